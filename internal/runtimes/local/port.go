package local

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"penstock/internal/probe"
	"penstock/internal/resource"
)

// settlePorts is how long the finder waits, after a process has opened its first port, for further ports before it
// chooses the lowest one. Servers open their ports at nearly the same time. A port that the image EXPOSEs is chosen at
// once.
const settlePorts = 100 * time.Millisecond

// finder detects the port for a replica's requests when its app does not name one. Several probes may call it
// concurrently.
//
// Only ports that accept connections count, in this order: ports that the image of the first container EXPOSEs; ports
// that neither the images nor the probes of the other containers name; all others. Among equals, the lowest port is
// chosen. A choice stays while its port is open, with one exception: a port that the image EXPOSEs and that opens later
// replaces it, because a server may report its health long before it serves.
type finder struct {
	listening func(context.Context) ([]netip.AddrPort, error)
	at        netip.Addr // address of the replica
	exposed   []int      // by the image of the first container
	others    []int      // named by the other containers
	found     func(port int, beside []int)

	mu      sync.Mutex
	port    int
	seen    []int
	since   time.Time // when seen last changed
	settled bool      // no further ports are expected to open
}

// look returns the port, or an error that says why there is none.
func (f *finder) look(ctx context.Context) (int, error) {
	sockets, err := f.listening(ctx)
	if err != nil {
		return 0, fmt.Errorf("its ports cannot be seen: %w", err)
	}
	open := reachable(sockets, f.at)
	f.mu.Lock()
	defer f.mu.Unlock()
	best := f.best(open)
	named := slices.Contains(f.exposed, best)
	now := time.Now()
	if !slices.Equal(open, f.seen) {
		f.seen, f.since = open, now
	}
	switch {
	case best == 0:
		f.port = 0
		return 0, noPort(sockets)
	case slices.Contains(open, f.port) && (!named || slices.Contains(f.exposed, f.port)):
		return f.port, nil
	case !named && !f.settled && now.Sub(f.since) < settlePorts:
		return 0, fmt.Errorf("the replica listens on %s, and others may follow", portList(open))
	}
	f.port, f.settled = best, true
	f.found(best, slices.DeleteFunc(slices.Clone(open), func(port int) bool { return port == best }))
	return best, nil
}

// best returns the port to choose from the open ones, which are in ascending order. It returns 0 if there are none.
func (f *finder) best(open []int) int {
	for _, first := range []func(int) bool{
		func(port int) bool { return slices.Contains(f.exposed, port) },
		func(port int) bool { return !slices.Contains(f.others, port) },
		func(int) bool { return true },
	} {
		if i := slices.IndexFunc(open, first); i >= 0 {
			return open[i]
		}
	}
	return 0
}

// reachable returns the ports to which the ingress can connect at the replica's address, in ascending order.
func reachable(sockets []netip.AddrPort, at netip.Addr) []int {
	var ports []int
	for _, s := range sockets {
		if s.Addr().IsUnspecified() || s.Addr() == at {
			ports = append(ports, int(s.Port()))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func noPort(sockets []netip.AddrPort) error {
	if len(sockets) == 0 {
		return errors.New("the replica listens on no port yet")
	}
	var names []string
	for _, s := range sockets {
		names = append(names, s.String())
	}
	slices.Sort(names)
	return fmt.Errorf("the replica listens on no port that others can reach, only on %s; let it listen on 0.0.0.0", strings.Join(slices.Compact(names), ", "))
}

func portList(ports []int) string {
	names := make([]string, len(ports))
	for i, port := range ports {
		names[i] = strconv.Itoa(port)
	}
	return strings.Join(names, ", ")
}

// target returns what the probes of a container check, and on which address and port.
func (k *keeper) target(c *container, started time.Time) probe.Target {
	behaviour := k.rev.Settings.Behaviour
	t := probe.Target{Address: k.addr, Started: started, Ready: c.loaded, Behaviour: behaviour}
	port := 0
	if c.main { // the one that answers requests
		t.Answered = func(since time.Time) bool { return k.e.cfg.Answered(k.name, since) }
		if port = k.rev.TargetPort; k.rev.DetectPort {
			port, t.Port = probe.Detected, k.finder(c).look
		}
	}
	t.Checks = probe.Checks(c.spec.Probes, port, behaviour)
	return t
}

// finder returns a finder for the process that runs in c.
func (k *keeper) finder(c *container) *finder {
	id, run := c.id, c.runs
	f := &finder{
		at: k.addr, exposed: c.ports,
		settled: k.adopted && run == 1, // it has run for a long time
		found: func(port int, beside []int) {
			k.inbox.put(note{container: id, run: run, port: port, beside: beside})
		},
		listening: func(context.Context) ([]netip.AddrPort, error) {
			return nil, errors.New("this engine does not see them; set targetPort")
		},
	}
	if driver, ok := k.e.cfg.Driver.(Listener); ok {
		f.listening = func(ctx context.Context) ([]netip.AddrPort, error) { return driver.Listening(ctx, id) }
	}
	for _, other := range k.containers {
		if other == c || other.init {
			continue
		}
		f.others = append(f.others, other.ports...)
		for _, p := range other.spec.Probes {
			f.others = append(f.others, portOf(p))
		}
	}
	return f
}

func portOf(p resource.Probe) int {
	switch {
	case p.HTTP != nil:
		return p.HTTP.Port
	case p.TCP != nil:
		return p.TCP.Port
	}
	return 0
}

// findPort detects the port of a replica that was created when its app had no ingress.
func (k *keeper) findPort(ctx context.Context) {
	for _, c := range k.containers {
		if !c.main || c.phase != running || c.port != 0 || k.rev.TargetPort != 0 || k.rev.DetectPort || c.finding == c.runs {
			continue
		}
		c.finding = c.runs
		t := probe.Target{Address: k.addr, Started: c.started, Behaviour: k.rev.Settings.Behaviour}
		t.Port, t.Checks = k.finder(c).look, probe.Checks(nil, probe.Detected, t.Behaviour)
		ctx, stop := context.WithCancel(ctx)
		probes := c.stopProbes
		c.stopProbes = func() { stop(); probes() }
		k.probing.Go(func() { probe.Run(ctx, t, func(probe.Verdict) {}) })
	}
}

// detected records the port for requests.
func (k *keeper) detected(c *container, port int, beside []int) {
	c.port = port
	message := fmt.Sprintf("Target port %d detected", port)
	if len(beside) > 0 {
		message += fmt.Sprintf("; the replica listens on %s too, and targetPort can say that one is meant", portList(beside))
	}
	k.tell(normal, "TargetPortDetected", time.Since(c.started), "%s", message)
}

// checkTarget warns if a replica becomes ready by its own probes while nothing listens on the port that its requests go to.
func (k *keeper) checkTarget(ctx context.Context) {
	target := k.rev.TargetPort
	if target == 0 || k.rev.DetectPort {
		return
	}
	if state, _ := k.state(); state != resource.ReplicaReady {
		return // the last of its containers decides
	}
	driver, ok := k.e.cfg.Driver.(Listener)
	if !ok {
		return
	}
	for _, c := range k.containers {
		if !c.main || slices.ContainsFunc(probe.Checks(c.spec.Probes, target, k.rev.Settings.Behaviour), func(p probe.Check) bool {
			return p.Type != resource.Liveness && portOf(p.Probe) == target
		}) {
			continue // a probe has just found the port open
		}
		sockets, err := driver.Listening(ctx, c.id)
		if err != nil || slices.Contains(reachable(sockets, k.addr), target) {
			return
		}
		where := noPort(sockets).Error()
		if ports := reachable(sockets, k.addr); len(ports) > 0 {
			where = "the container listens on " + portList(ports)
		}
		k.tell(warning, "TargetPortClosed", 0, "Requests go to port %d (targetPort), where nothing listens; %s", target, where)
	}
}
