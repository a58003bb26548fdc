package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"penstock/internal/probe"
	"penstock/internal/resource"
)

// start brings a container up. If that fails, it sets when to try again.
func (k *keeper) start(ctx context.Context, c *container) {
	c.trouble, c.due = "", time.Time{}
	// Shown while the image is fetched and the container is created, because both can take long.
	k.publish()
	pid, started, err := k.bringUp(ctx, c)
	if err == nil {
		if c.last != nil {
			c.restarts++
		}
		c.missing = false
		k.runs(ctx, c, pid, started)
		return
	}
	if ctx.Err() != nil {
		return // the replica or the platform is ending
	}
	k.failures++
	c.ends++
	c.missing = errors.Is(err, ErrImageNotFound)
	if k.once.set && (c.missing || c.ends >= startTries) {
		k.neverStarts(ctx, c, err)
		return
	}
	pause := k.pause(c)
	if c.missing {
		pause = max(pause, k.e.cfg.Backoff.after(c.ends+1)) // asking again at once would give the same answer
	}
	c.due = time.Now().Add(pause)
	c.trouble = fmt.Sprintf("container '%s' cannot be started: %v", c.spec.Name, err)
	k.tell(warning, "ContainerCreateFailure", 0, "Container '%s' cannot be started: %v. The next try is in %s.", c.spec.Name, err, round(pause))
}

// bringUp does everything that is needed to run the container's process.
func (k *keeper) bringUp(ctx context.Context, c *container) (pid int, started time.Time, err error) {
	d := k.e.cfg.Driver
	if !k.sandbox {
		// All images come first: a replica that lacks one uses no other resources.
		for _, other := range k.containers {
			if err := k.pull(ctx, other); err != nil {
				return 0, started, err
			}
		}
	} else if err := k.pull(ctx, c); err != nil {
		return 0, started, err
	}
	k.passed()
	ahead := c.fresh // as part of a standby, so little is left to do
	if !ahead {
		revision := k.rev.ID.Key()
		if err := k.e.starts.enter(ctx, revision, false); err != nil {
			return 0, started, err
		}
		defer func() { k.e.starts.leave(revision, k.e.replicasUp()) }()
	}
	if !k.sandbox {
		if err := k.makeSandbox(ctx); err != nil {
			return 0, started, err
		}
	}
	if err := k.make(ctx, c); err != nil {
		return 0, started, err
	}
	k.passed()
	c.fresh = false
	started = time.Now() // not after the start: the process may have ended by then
	pid, err = d.Start(ctx, c.id)
	if err != nil && ahead && ctx.Err() == nil {
		k.e.cfg.Log.Warn("what was made ahead does not start; it is made again", "replica", k.name, "container", c.spec.Name, "err", err)
		if err = k.make(ctx, c); err == nil {
			c.fresh, started = false, time.Now()
			pid, err = d.Start(ctx, c.id)
		}
	}
	if err != nil {
		return 0, started, fmt.Errorf("start: %w", err)
	}
	k.tell(normal, "ContainerStarted", time.Since(started), "Started container '%s'", c.spec.Name)
	return pid, started, nil
}

// plan returns what the driver would be asked to create for c now, and a digest of it. It ensures that what c mounts
// exists.
func (k *keeper) plan(ctx context.Context, c *container) (Container, string, error) {
	spec, err := k.resolved(ctx, c.spec)
	if err != nil {
		return Container{}, "", err
	}
	mounts, err := k.mounts(ctx, spec)
	if err != nil {
		return Container{}, "", err
	}
	planned := k.container(c, spec, mounts)
	sum, err := digest(planned)
	return planned, sum, err
}

// make creates c, unless c exists, was never started and matches the current plan.
func (k *keeper) make(ctx context.Context, c *container) error {
	planned, sum, err := k.plan(ctx, c)
	if err != nil {
		return err
	}
	if c.fresh && c.sum == sum {
		return nil
	}
	c.fresh = false
	d := k.e.cfg.Driver
	if c.exists {
		if err := d.Delete(ctx, c.id); err != nil {
			return fmt.Errorf("delete what ran before: %w", err)
		}
		c.exists = false
	}
	began := time.Now()
	if err := d.Create(ctx, planned); err != nil {
		c.pulled = false // the image may have been removed
		return fmt.Errorf("create: %w", err)
	}
	c.exists, c.fresh, c.sum = true, true, sum
	k.tell(normal, "ContainerCreated", time.Since(began), "Created container '%s'", c.spec.Name)
	return nil
}

func (k *keeper) pull(ctx context.Context, c *container) error {
	if c.pulled {
		return nil
	}
	began := time.Now()
	k.tell(normal, "PullingImage", 0, "Pulling image \"%s\"", c.spec.Image)
	moved, err := k.e.cfg.Fetch(ctx, k.rev.App(), c.image)
	if errors.Is(err, ErrImageUnauthorized) {
		k.tell(warning, "ImagePullUnauthorized", 0, "Failed to pull image \"%s\": %v", c.spec.Image, err)
	}
	var image Image
	if err == nil {
		image, err = k.e.cfg.Driver.Image(ctx, c.image)
	}
	if err != nil {
		return fmt.Errorf("image %q: %w", c.spec.Image, err)
	}
	took := time.Since(began)
	c.pulled, c.ports = true, image.Ports
	rest := ""
	if moved > 0 {
		rest = fmt.Sprintf(" %d bytes of it came from the registry; the rest was here.", moved)
	}
	k.tell(normal, "PulledImage", took, "Successfully pulled image \"%s\" in %s. Image size: %d bytes.%s", c.spec.Image, round(took), image.Bytes, rest)
	k.prefetch(ctx, c)
	return nil
}

// prefetch reads the weights of the container's image into memory before the container starts, if its app asks for
// that. A failure only makes the start slower.
func (k *keeper) prefetch(ctx context.Context, c *container) {
	driver, ok := k.e.cfg.Driver.(Prefetcher)
	if !ok || k.rev.Settings.Prefetch != resource.PrefetchWeights {
		return
	}
	began := time.Now()
	weights, read, err := driver.Prefetch(ctx, c.image)
	switch took := time.Since(began); {
	case ctx.Err() != nil:
	case err != nil:
		k.tell(warning, "PrefetchFailed", took, "The weights of image \"%s\" were not read ahead: %v. The container reads them itself.", c.spec.Image, err)
	case weights > 0:
		k.tell(normal, "PrefetchedWeights", took, "The weights of image \"%s\" are in memory: %d bytes, of which %d were read now, in %s", c.spec.Image, weights, read, round(took))
	}
}

func (k *keeper) makeSandbox(ctx context.Context) error {
	record, err := k.record(ctx)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	k.touched = true
	k.keepLife()
	k.addr, err = k.e.cfg.Driver.CreateSandbox(ctx, Sandbox{
		Replica:      k.name,
		Revision:     k.rev.ID,
		Environment:  k.rev.Environment,
		DiskLimit:    diskLimit(k.rev),
		Capabilities: k.rev.Settings.Capabilities,
		Record:       record,
	})
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	k.sandbox = true
	return nil
}

// container returns what the driver is asked to create for c. spec is c's specification with the values of its secrets and variables.
func (k *keeper) container(c *container, spec resource.Container, mounts []Mount) Container {
	return Container{
		ID:        c.id,
		Replica:   k.name,
		Name:      spec.Name,
		Image:     c.image,
		Command:   spec.Command,
		Args:      spec.Args,
		Env:       environment(k.env, k.name, spec),
		Hints:     hints(spec),
		Mounts:    mounts,
		Resources: spec.Resources,
		Hostname:  hostname(k.name),
	}
}

// runs records that the container's process runs, and starts its probes.
func (k *keeper) runs(ctx context.Context, c *container, pid int, started time.Time) {
	c.phase, c.pid, c.started = running, pid, started
	if !k.once.set {
		k.startedFirst(started)
	}
	c.asked, c.ready, c.unhealthy, c.oom = false, false, "", nil
	// Of a process that was adopted, only the replica's record tells whether it has been ready.
	c.loaded = !k.life.Ready.IsZero() && !k.life.Ready.Before(started)
	c.runs++
	c.port = 0
	if c.init {
		c.asked, c.stopProbes = true, func() {}
		return
	}
	k.probe(ctx, c, started)
}

// probe starts the probes of a container that was started at the given time.
func (k *keeper) probe(ctx context.Context, c *container, started time.Time) {
	c.asked = false
	target := k.target(c, started)
	ctx, c.stopProbes = context.WithCancel(ctx)
	id, run := c.id, c.runs
	k.probing.Go(func() {
		probe.Run(ctx, target, func(v probe.Verdict) { k.inbox.put(note{container: id, verdict: &v, run: run}) })
	})
}

// judge handles the result of a probe.
func (k *keeper) judge(ctx context.Context, c *container, v probe.Verdict) {
	c.ready, c.loaded = v.Ready, c.loaded || v.Ready
	c.asked = c.asked || v.Ready || v.Err != nil
	if v.Changed && v.Ready {
		k.checkTarget(ctx)
	}
	if v.Open > 0 {
		k.tell(warning, "ProbeNeverSucceeded", v.Open, "%s", v.Hint())
	}
	if v.Err == nil {
		c.unhealthy = ""
		return
	}
	if n := max(v.Busy, v.Loading); n > 0 {
		if isPowerOfTwo(n) {
			k.tell(normal, "ProbeFailed", 0, "%s", v.Message())
		}
		return
	}
	c.unhealthy = v.Message()
	if errors.Is(v.Err, syscall.ECONNREFUSED) {
		c.unhealthy += k.elsewhere(ctx, c)
	}
	if k.rev.Settings.Behaviour == resource.Azure || v.Kill || isPowerOfTwo(v.Failures) {
		k.tell(warning, "ProbeFailed", 0, "%s", c.unhealthy)
	}
	if !v.Kill {
		return
	}
	kind := strings.ToLower(string(v.Check.Type))
	then := "will be restarted"
	if k.once.set {
		then = "is ended"
	}
	if v.Check.Type == resource.Liveness && !c.loaded && !hasProbe(c.spec, resource.Startup) {
		then += "; it has never been ready, and a startup probe would give it time to load"
	}
	k.tell(warning, "ProbeFailed", 0, "Container %s failed %s probe, %s", c.spec.Name, kind, then)
	grace := v.Check.Grace
	if grace == 0 {
		grace = k.rev.Template.Grace
	}
	k.stopContainer(ctx, c, grace, probeFailure)
}

// probeFailure is the reason for the end of a container whose probe failed too often.
const probeFailure = "ProbeFailure"

func hasProbe(c resource.Container, t resource.ProbeType) bool {
	return slices.ContainsFunc(c.Probes, func(p resource.Probe) bool { return p.Type == t })
}

// stopContainer ends a container's process. why is reported as the reason.
func (k *keeper) stopContainer(ctx context.Context, c *container, grace time.Duration, why string) {
	c.stopProbes()
	c.phase, c.why, c.ready = killing, why, false
	if grace <= 0 {
		k.kill(ctx, c)
		return
	}
	c.killAt = time.Now().Add(grace)
	k.signal(ctx, c, syscall.SIGTERM)
}

// elsewhere returns on which ports a container listens, for a container that refused a connection.
func (k *keeper) elsewhere(ctx context.Context, c *container) string {
	driver, ok := k.e.cfg.Driver.(Listener)
	if !ok {
		return ""
	}
	sockets, err := driver.Listening(ctx, c.id)
	if err != nil || len(sockets) == 0 {
		return ""
	}
	if ports := reachable(sockets, k.addr); len(ports) > 0 {
		return "; the container listens on " + portList(ports)
	}
	return "; " + noPort(sockets).Error()
}

func (k *keeper) kill(ctx context.Context, c *container) { k.signal(ctx, c, syscall.SIGKILL) }

func (k *keeper) signal(ctx context.Context, c *container, s syscall.Signal) {
	if err := k.e.cfg.Driver.Kill(ctx, c.id, s); err != nil && ctx.Err() == nil {
		k.e.cfg.Log.Warn("a container could not be signalled; it is killed when it is deleted",
			"replica", k.name, "container", c.spec.Name, "signal", s.String(), "err", err)
	}
}

// tellAdopted starts the probes of containers that were found running, and reports those that ended meanwhile.
func (k *keeper) tellAdopted(ctx context.Context) {
	for _, c := range k.containers {
		if c.phase == running {
			k.runs(ctx, c, c.pid, c.started)
			k.tell(normal, "ReplicaAdopted", 0, "Container '%s' was found running and is kept (process %d).", c.spec.Name, c.pid)
		}
		if c.missed != nil {
			k.over(c, *c.missed)
			c.missed = nil
		}
	}
	if !k.life.Ready.IsZero() {
		k.since = time.Now() // its start is over
	}
}

// isPowerOfTwo selects which of a probe's consecutive failures are logged: the 1st, 2nd, 4th, 8th ...
func isPowerOfTwo(n int) bool { return n > 0 && n&(n-1) == 0 }

// round rounds a duration to the precision that readers need.
func round(d time.Duration) time.Duration {
	switch {
	case d > time.Minute:
		return d.Round(time.Second)
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > time.Millisecond:
		return d.Round(time.Millisecond)
	default:
		return d.Round(time.Microsecond)
	}
}
