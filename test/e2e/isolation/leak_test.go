package isolation_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"penstock/internal/network/networktest"
	"penstock/test/penstocktest"
)

const leakManifest = `
name: %s
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, %s}
  template:
    containers:
      - name: hello
        image: hello:1
        resources: {cpu: 0.25, memory: 0.5Gi}
        probes:
          - {type: Readiness, httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 1}
    terminationGracePeriodSeconds: 1
    scale: {minReplicas: 2, maxReplicas: 2}
`

// stranger is what the default gateway answers. No client may ever see it.
const stranger = "a stranger\n"

// leakTCPPort is that of a TCP app. The test's network has all ports to itself.
const leakTCPPort = 7070

// Nothing that is meant for a replica leaves the machine, whatever happens to bridges, routes and rules, and while the
// server is restarted: nothing from the ingress, from probes and from replicas. Control mends each fault, so it is also
// frozen during a fault, which then lasts. PENSTOCK_NIGHTLY=1 tries every fault with every defence taken away, and restarts
// more often.
func TestNothingForAReplicaLeavesTheMachine(t *testing.T) {
	networktest.Run(t, func(t *testing.T, out *networktest.Gateway) {
		out.Serve(t, 8080, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, stranger) }))
		// Requests that hang while there is no way to their replica are cut off soon.
		t.Setenv("PENSTOCK_STOP_LIMIT", "1s")
		m := penstocktest.Boot(t)
		m.Image(t, "hello")
		m.Apply(t, fmt.Sprintf(leakManifest, "hello", "allowInsecure: true"))
		m.Apply(t, fmt.Sprintf(leakManifest, "raw", fmt.Sprintf("transport: tcp, exposedPort: %d", leakTCPPort)))
		nightly := os.Getenv("PENSTOCK_NIGHTLY") == "1"
		restarts := 1
		if nightly {
			restarts = 20
		}
		l := &leak{m: m, out: out, answers: map[string]int{}, good: map[string]int{}}
		stop := l.press(t)
		defer stop()

		l.watch(t, "no fault", func() {})
		for range restarts {
			l.restart(t)
		}
		for _, f := range leakFaults {
			l.answered(t, f.what)
			b := bridge(t)
			l.watch(t, f.what+", while control mends it", func() { f.do(t, b) })
			f.end(t, b)
		}
		for _, without := range []struct {
			what   string
			remove []func(t *testing.T)
		}{
			{"nothing", nil},
			{"the unreachable route", []func(*testing.T){removeUnreachable}},
			{"the route and the firewall's table", []func(*testing.T){removeUnreachable, removeTables}},
			{"the firewall's table", []func(*testing.T){removeTables}},
		} {
			for _, f := range leakFaults {
				switch {
				case (f.neighbours || f.forwards) && len(without.remove) == 2:
					continue // what is left is that sockets use no gateway, which is no defence here
				case nightly || without.remove == nil || f.neighbours:
				case len(without.remove) == 1:
					continue // for the long variant
				}
				l.answered(t, f.what)
				b := bridge(t)
				thaw := l.freezeControl(t)
				l.bare = l.bare || len(without.remove) == 2
				for _, remove := range without.remove {
					remove(t)
				}
				l.watch(t, f.what+", without "+without.what, func() { f.do(t, b) })
				f.end(t, b)
				thaw()
				penstocktest.Until(t, time.Minute, "control puts back the defences", func() bool { return len(unreachable(t)) == 1 && len(tables(t)) == 1 })
			}
		}
		removeUnreachable(t)
		removeTables(t)
		l.killControl(t)
		if len(unreachable(t)) != 1 || len(tables(t)) != 1 {
			t.Errorf("after a restart of control: %d unreachable routes and %d tables, want one of each", len(unreachable(t)), len(tables(t)))
		}
		l.watch(t, "no fault any more", func() {})
		stop()
		t.Logf("answers: %v", l.answers)
		for kind, n := range l.good {
			t.Logf("%s: %d answered by a replica", kind, n)
		}
		m.Must(t, "down")
		if got := unreachable(t); len(got) != 0 {
			t.Errorf("a server that is down leaves the routes %v", got)
		}
		// A server that was killed leaves its routes. The next one must not read them.
		routes := filepath.Join("/run/penstock", m.Status.Instance, "routes.json")
		if _, err := os.Stat(routes); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a server that is down leaves %s: %v", routes, err)
		}
		need(t, os.MkdirAll(filepath.Dir(routes), 0o711))
		need(t, os.WriteFile(routes, []byte("of a server before"), 0o600))
		m.Must(t, "up") // Boot ends it
		log, err := os.ReadFile(filepath.Join(m.Data, "server.log"))
		need(t, err)
		if strings.Contains(string(log), "the last routes cannot be read") {
			t.Error("a server reads the routes of one before it")
		}
	})
}

// leak asks for apps all the time, and keeps count of the answers and of what arrives at the gateway.
type leak struct {
	m    *penstocktest.Machine
	out  *networktest.Gateway
	port atomic.Int64

	fault, ended atomic.Int64 // how many faults there have been, and requests that ended in the one that they began in

	mu      sync.Mutex
	answers map[string]int
	good    map[string]int // answers of replicas, by kind of client
	left    int            // packets that arrived at the gateway until the last look
	bare    bool           // whether route and rules have been removed, so that the kernel's own answers to replicas may have left
}

// press starts clients that send what nobody but a replica may get. stop ends them; it may be called twice.
func (l *leak) press(t *testing.T) (stop func()) {
	t.Helper()
	l.port.Store(int64(l.m.Status.HTTPPort))
	const lines = "line 0\nline 1\nline 2\nline 3\nend\n"
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for _, w := range []struct {
		kind, method, path, want string
		tcp                      bool
	}{
		{"short", "GET", "/", "hello, world\n", false},
		{"short", "GET", "/", "hello, world\n", false},
		{"stream", "GET", "/stream?ms=200", lines, false},
		{"post", "POST", "/print?lines=0&text=x", "printed 0 lines\n", false},
		{"from a replica", "GET", "/get?url=http%3A%2F%2Fhello%2Fstream%3Fms%3D200", lines, false},
		{"tcp", "GET", "/", "hello, world\n", true},
	} {
		wg.Go(func() {
			client := &http.Client{Timeout: time.Second, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for n := 0; ; n++ {
				select {
				case <-quit:
					return
				case <-time.After(5 * time.Millisecond):
				}
				port := l.port.Load()
				if w.tcp {
					port = leakTCPPort
				}
				r, err := http.NewRequestWithContext(t.Context(), w.method, "http://127.0.0.1:"+strconv.FormatInt(port, 10)+w.path, strings.NewReader("secret"))
				if err != nil {
					t.Error(err)
					return
				}
				r.Host, r.Close = "hello.penstock.localhost", n%2 == 0
				r.Header.Set("Authorization", "Bearer secret")
				fault := l.fault.Load()
				answer := ask(client, r, w.want)
				if l.fault.Load() == fault {
					l.ended.Add(1)
				}
				if strings.HasPrefix(answer, "wrong") {
					t.Errorf("%s: %s", w.kind, answer)
				}
				l.mu.Lock()
				l.answers[answer]++
				if answer == "200" {
					l.good[w.kind]++
				}
				l.mu.Unlock()
			}
		})
	}
	return sync.OnceFunc(func() { close(quit); wg.Wait() })
}

// ask says in a word or two how a request went.
func ask(client *http.Client, r *http.Request, want string) string {
	resp, err := client.Do(r)
	if err != nil {
		return "no answer"
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	switch {
	case strings.Contains(string(b), stranger):
		return "wrong: the stranger answered"
	case err != nil && strings.HasPrefix(want, string(b)):
		return "cut"
	case resp.StatusCode == http.StatusOK && string(b) == want:
		return "200"
	case resp.StatusCode == http.StatusBadGateway, resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusGatewayTimeout:
		return strconv.Itoa(resp.StatusCode)
	}
	return fmt.Sprintf("wrong: %d %q, %v", resp.StatusCode, b, err)
}

// watch lets a fault last for a while under requests and probes, and looks at what left the machine meanwhile.
func (l *leak) watch(t *testing.T, what string, fault func()) {
	t.Helper()
	began := time.Now()
	fault()
	l.fault.Add(1)
	l.ended.Store(0)
	// A retransmission, and a few requests that find the fault, have to have been seen.
	time.Sleep(300 * time.Millisecond)
	penstocktest.Until(t, time.Minute, "4 requests begin and end during: "+what, func() bool { return l.ended.Load() >= 4 })
	l.look(t, what)
	t.Logf("%s: %s", what, time.Since(began).Round(time.Millisecond))
}

// look fails the test when packets left since the last look.
func (l *leak) look(t *testing.T, what string) {
	t.Helper()
	// All that an instance may choose its addresses from.
	kinds := l.out.Arrived(netip.MustParsePrefix("10.0.0.0/8"))
	all := 0
	for kind, n := range kinds {
		if !l.bare || kind != "reset" && kind != "icmp" {
			all += n
		}
	}
	if all > l.left {
		t.Errorf("%s: %d packets for replicas left the machine; in all so far: %v", what, all-l.left, kinds)
	}
	l.left = all
}

// answered waits until replicas answer each kind of client again.
func (l *leak) answered(t *testing.T, before string) {
	t.Helper()
	l.mu.Lock()
	from := maps.Clone(l.good)
	l.mu.Unlock()
	kinds := []string{"short", "stream", "post", "tcp"}
	if len(tables(t)) > 0 { // which lead replicas to the ingress
		kinds = append(kinds, "from a replica")
	}
	penstocktest.Until(t, time.Minute, "replicas answer all clients before: "+before, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return !slices.ContainsFunc(kinds, func(kind string) bool { return l.good[kind] == from[kind] })
	})
}

// restart ends the server and all containers, and starts it again.
func (l *leak) restart(t *testing.T) {
	t.Helper()
	began := time.Now()
	l.m.Must(t, "down")
	l.m.Status.HTTPPort = 0
	l.m.Must(t, "up")
	t.Logf("down and up: %s", time.Since(began).Round(time.Millisecond))
	l.port.Store(int64(l.m.Status.HTTPPort))
	l.answered(t, "the end of a restart")
	l.look(t, "down and up")
}

// killControl waits until control is there again.
func (l *leak) killControl(t *testing.T) {
	t.Helper()
	before := l.m.Role(t, "control")
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	penstocktest.Until(t, 30*time.Second, "control is new", func() bool {
		_, _, code := l.m.Run(t, "app", "list")
		now := l.m.Role(t, "control")
		return code == 0 && now != 0 && now != before
	})
	l.look(t, "control is killed")
}

// freezeControl stops control's process, which mends nothing then, until thaw is called.
func (l *leak) freezeControl(t *testing.T) (thaw func()) {
	t.Helper()
	pid := l.m.Role(t, "control")
	need(t, syscall.Kill(pid, syscall.SIGSTOP))
	return func() { need(t, syscall.Kill(pid, syscall.SIGCONT)) }
}

// leakFault is something that happens to the bridge of the environment.
type leakFault struct {
	what string
	// neighbours says that packets would leave without a gateway: all addresses are taken for those of neighbours.
	neighbours bool
	// forwards says that the machine would forward what replicas send to their gateway.
	forwards bool
	do       func(t *testing.T, bridge netlink.Link)
	// undo is nil if control mends the fault.
	undo func(t *testing.T, bridge netlink.Link)
}

func (f leakFault) end(t *testing.T, bridge netlink.Link) {
	t.Helper()
	if f.undo != nil {
		f.undo(t, bridge)
	}
}

var leakFaults = []leakFault{
	{"the bridge is down", false, false, down, nil},
	{"the bridge is renamed", false, false, func(t *testing.T, b netlink.Link) { rename(t, b, "renamed0") }, nil},
	{"the bridge's route is removed", false, false, func(t *testing.T, b netlink.Link) { need(t, netlink.RouteDel(connected(t, b))) }, nil},
	{"the bridge has no address", false, true, func(t *testing.T, b netlink.Link) { need(t, netlink.AddrDel(b, address(t, b))) }, nil},
	{"the bridge is deleted", false, false, func(t *testing.T, b netlink.Link) { need(t, netlink.LinkDel(b)) }, nil},
	{"another route is closer", false, false, func(t *testing.T, b netlink.Link) { need(t, netlink.RouteAdd(closer(t, b))) }, func(t *testing.T, b netlink.Link) {
		need(t, netlink.RouteDel(closer(t, b)))
	}},
	{"the bridge is down and the default route has no gateway", true, false, func(t *testing.T, b netlink.Link) { down(t, b); defaultRoute(t, false) },
		func(t *testing.T, _ netlink.Link) { defaultRoute(t, true) }},
}

func need(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func down(t *testing.T, b netlink.Link) { t.Helper(); need(t, netlink.LinkSetDown(b)) }

// rename needs the device to be down before Linux 6.2. The server may be faster to bring it up, or to give it its name
// again.
func rename(t *testing.T, b netlink.Link, to string) {
	t.Helper()
	for {
		down(t, b)
		err := netlink.LinkSetName(b, to)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
	}
}

// bridge is the one of the test's network, where there is one environment.
func bridge(t *testing.T) netlink.Link {
	t.Helper()
	links, err := netlink.LinkList()
	need(t, err)
	links = slices.DeleteFunc(links, func(l netlink.Link) bool { return l.Type() != "bridge" })
	if len(links) != 1 {
		t.Fatalf("bridges %v, want one", links)
	}
	return links[0]
}

// address is the gateway's, as it was when the server gave it to the bridge.
func address(t *testing.T, b netlink.Link) *netlink.Addr {
	t.Helper()
	addrs, err := netlink.AddrList(b, netlink.FAMILY_V4)
	need(t, err)
	if len(addrs) != 1 {
		t.Fatalf("addresses of the bridge: %v, want one", addrs)
	}
	return &addrs[0]
}

// connected is the route that the kernel makes for the bridge.
func connected(t *testing.T, b netlink.Link) *netlink.Route {
	t.Helper()
	a := address(t, b)
	return &netlink.Route{
		LinkIndex: b.Attrs().Index, Dst: &net.IPNet{IP: a.IP.Mask(a.Mask), Mask: a.Mask}, Src: a.IP, Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_KERNEL,
	}
}

// closer is a route of somebody else's for the first addresses of the bridge.
func closer(t *testing.T, b netlink.Link) *netlink.Route {
	t.Helper()
	a := address(t, b)
	dst := &net.IPNet{IP: a.IP.Mask(a.Mask), Mask: net.CIDRMask(24, 32)}
	return &netlink.Route{Dst: dst, Gw: networktest.GatewayAddress.AsSlice()}
}

// defaultRoute goes by the gateway, or has all addresses be those of neighbours, as with point-to-point devices.
func defaultRoute(t *testing.T, gateway bool) {
	t.Helper()
	l, err := netlink.LinkByName(networktest.Device)
	need(t, err)
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Scope: unix.RT_SCOPE_LINK}
	if gateway {
		r.Gw, r.Scope = networktest.GatewayAddress.AsSlice(), unix.RT_SCOPE_UNIVERSE
	}
	need(t, netlink.RouteReplace(r))
}

func unreachable(t *testing.T) []netlink.Route {
	t.Helper()
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Type: unix.RTN_UNREACHABLE}, netlink.RT_FILTER_TYPE)
	need(t, err)
	return routes
}

func removeUnreachable(t *testing.T) {
	t.Helper()
	for _, r := range unreachable(t) {
		need(t, netlink.RouteDel(&r))
	}
}

func tables(t *testing.T) []*nftables.Table {
	t.Helper()
	c, err := nftables.New()
	need(t, err)
	all, err := c.ListTables()
	need(t, err)
	return all
}

func removeTables(t *testing.T) {
	t.Helper()
	all := tables(t)
	c, err := nftables.New()
	need(t, err)
	for _, table := range all {
		c.DelTable(table)
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
}
