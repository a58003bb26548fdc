package local

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"penstock/internal/probe"
	"penstock/internal/resource"
)

// keeper keeps one replica running. Only its own goroutine calls the driver about it.
//
//	waiting for memory ── sandbox ── init containers, one after the other, each to its good end
//	                              └─ containers, each: due ─> running ─> (killing) ─> due ...
//	                                                       ^ end: SIGTERM, grace, SIGKILL, delete, remove sandbox
type keeper struct {
	e       *Engine
	name    string
	rev     resource.Revision
	env     []resource.EnvVar
	created time.Time
	inbox   *inbox
	end     chan struct{} // closed by Engine.stop
	settled chan struct{} // closed when what was adopted is known to be ready or not

	// Guarded by the engine's mu.
	ending bool
	view   resource.Replica
	ends   int // in a row, of the container of which they are most; belongs to view

	// The goroutine's own.
	containers []*container // those of init first
	probing    sync.WaitGroup
	admitted   bool
	adopted    bool
	refusal    string    // why it was not admitted
	refusedFor string    // in one word
	askAgain   time.Time // when that may have changed by itself
	touched    bool      // the driver may have something of it
	sandbox    bool      // the sandbox is complete
	addr       netip.Addr
	since      time.Time // of what a start is counted from
	ready      time.Time
	was        bool // ready since its containers run
	failures   int
	stale      string // why secrets that it has as files are not those of now
	removed    bool   // nothing of it is left; read after run has returned
	once       once
}

// container is one container of a replica.
type container struct {
	spec resource.Container
	id   string
	main bool // the one that requests go to
	init bool // it runs before the others and is to end

	ports   []int // that its image EXPOSEs
	port    int   // on which it was found to listen
	finding int   // the process, by runs, whose port is looked for without probes

	phase    phase
	due      time.Time // when to start it
	image    string    // what it runs, pinned
	pulled   bool
	missing  bool // its image is not there
	done     bool // it is not started again: an init container that has ended well, any that ended of a replica that runs once
	failed   bool // done, and not well
	exists   bool // the driver may have it
	pid      int
	started  time.Time
	runs     int // processes started, to tell the answers to probes apart
	restarts int
	ends     int // in a row, for backoff
	trouble  string
	last     *resource.Exit
	missed   *resource.Exit // an end that nobody saw, not told yet
	oom      *OOM

	stopProbes context.CancelFunc
	asked      bool // its probes have said for this process whether it is ready
	ready      bool
	unhealthy  string // why not ready
	killAt     time.Time
	why        string // why it is being killed
}

type phase int

const (
	idle    phase = iota
	running       // its process runs
	killing       // it got SIGTERM and is started again once it has ended
)

func (c *container) up() bool { return c.phase != idle }

func newKeeper(e *Engine, name string, rev resource.Revision, env []resource.EnvVar, created time.Time) *keeper {
	k := &keeper{
		e: e, name: name, rev: rev, env: env, created: created, since: created,
		inbox: &inbox{some: make(chan struct{}, 1)}, end: make(chan struct{}), settled: make(chan struct{}),
	}
	add := func(spec resource.Container) *container {
		c := &container{spec: spec, id: containerID(name, spec.Name), image: rev.Pinned(spec.Image)}
		k.containers = append(k.containers, c)
		return c
	}
	for _, spec := range rev.Template.InitContainers {
		add(spec).init = true
	}
	for i, spec := range rev.Template.Containers {
		add(spec).main = i == 0
	}
	k.view = k.status()
	return k
}

// run keeps the replica until it is told to end it or ctx ends, which leaves the containers running.
func (k *keeper) run(ctx context.Context) {
	work, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		// What is under way, as a long pull, ends when the replica shall.
		select {
		case <-k.end:
			cancel()
		case <-work.Done():
		}
	})
	defer waiting.Wait()
	defer k.probing.Wait()
	defer cancel()

	settle := sync.OnceFunc(func() { close(k.settled) })
	defer settle()
	if k.adopted {
		k.tellAdopted(work)
		k.refresh(work) // they may have changed while nobody was there
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		k.advance(work)
		k.conclude(work)
		k.publish()
		if !slices.ContainsFunc(k.containers, func(c *container) bool { return c.phase == running && !c.asked }) {
			settle()
		}
		timer.Stop()
		if at := k.next(); !at.IsZero() {
			timer.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return
		case <-k.end:
			k.terminate(ctx)
			return
		case <-timer.C:
		case <-k.inbox.some:
			for _, n := range k.inbox.take() {
				k.handle(work, n)
			}
		}
	}
}

// advance does what is due.
func (k *keeper) advance(ctx context.Context) {
	if ctx.Err() != nil || k.once.state != "" || !k.admitted && !k.admit() {
		return
	}
	k.watchTimeout(ctx)
	for _, c := range k.containers {
		if ctx.Err() != nil {
			return
		}
		if c.init && c.failed {
			return // nothing behind it starts
		}
		if c.done {
			continue
		}
		now := time.Now()
		switch c.phase {
		case idle:
			if !c.due.After(now) && k.once.why == "" {
				k.start(ctx, c)
			}
		case killing:
			if !c.killAt.IsZero() && !c.killAt.After(now) {
				c.killAt = time.Time{}
				k.kill(ctx, c)
			}
		case running:
		}
		if !k.sandbox {
			return // the first container's start makes what all of them share
		}
		if c.init {
			return // the others wait for its end
		}
	}
	k.tidy(ctx)
}

// next is when advance has something to do again; zero when only after news.
func (k *keeper) next() time.Time {
	var first time.Time
	if !k.admitted {
		return k.askAgain
	}
	if k.once.state != "" {
		return first
	}
	if first = k.deadline(); k.once.why != "" {
		first = time.Time{}
	}
	for _, c := range k.containers {
		if c.done {
			continue
		}
		at := c.due
		if c.phase == killing {
			at = c.killAt
		}
		if c.phase != running && !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
		if c.init {
			break // the others wait for its end
		}
	}
	return first
}

// admit asks for the replica's memory.
func (k *keeper) admit() bool {
	if no := k.e.admit(k); no != nil {
		if k.refusedFor != no.reason {
			k.tell(warning, no.reason, 0, "Replica '%s' is %s", k.name, no.message)
		}
		k.refusal, k.refusedFor, k.askAgain = no.message, no.reason, time.Time{}
		if no.again > 0 {
			k.askAgain = time.Now().Add(no.again)
		}
		return false
	}
	k.admitted, k.refusal, k.since = true, "", time.Now()
	k.tell(normal, "AssigningReplica", k.since.Sub(k.created), "Replica '%s' has been scheduled to run on a node.", k.name)
	return true
}

// handle takes news.
func (k *keeper) handle(ctx context.Context, n note) {
	if n.secrets {
		k.refresh(ctx)
		return
	}
	if n.detect {
		k.findPort(ctx)
		return
	}
	if n.image {
		for _, c := range k.containers {
			if c.missing && c.phase == idle && !c.due.IsZero() {
				c.due = time.Now()
			}
		}
		return
	}
	i := -1
	for j, c := range k.containers {
		if c.id == n.container {
			i = j
		}
	}
	if i < 0 {
		return // only a reason to look again
	}
	c := k.containers[i]
	switch {
	case n.oom != nil:
		k.outOfMemory(c, n.oom)
	case n.exit != nil:
		if c.up() && (n.pid == 0 || n.pid == c.pid) {
			k.exited(c, *n.exit)
		}
	case n.verdict != nil:
		if c.phase == running && n.run == c.runs {
			k.judge(ctx, c, *n.verdict)
		}
	case n.port != 0:
		if c.phase == running && n.run == c.runs {
			k.detected(c, n.port, n.beside)
		}
	}
}

// publish shows the replica to the callers of the engine.
func (k *keeper) publish() {
	view := k.status()
	if ready := view.State == resource.ReplicaReady; ready && k.ready.IsZero() {
		now := time.Now()
		k.ready, k.was, k.failures = now, true, 0
		if !k.once.set {
			k.tell(normal, "ReplicaReady", now.Sub(k.since), "Replica '%s' is ready.", k.name)
		}
		view = k.status()
	} else if !ready && !k.ready.IsZero() {
		k.ready = time.Time{}
		if view.State == resource.ReplicaUnready {
			k.tell(warning, "ReplicaUnready", 0, "Replica '%s' is given no requests: %s", k.name, view.Reason)
		}
		view = k.status()
	}
	ends := 0
	for _, c := range k.containers {
		ends = max(ends, c.ends)
	}
	k.e.mu.Lock()
	defer k.e.mu.Unlock()
	k.ends = ends
	if k.ending {
		view = stopping(view)
	}
	if !reflect.DeepEqual(view, k.view) {
		k.view = view
		k.e.changed(k.rev.ID)
	}
}

// status is the replica as the goroutine knows it.
func (k *keeper) status() resource.Replica {
	r := resource.Replica{
		Name: k.name, Revision: k.rev.ID, Address: k.addr, Created: k.created, ReadySince: k.ready, Failures: k.failures,
	}
	r.State, r.Reason = k.state()
	if r.Port = k.rev.TargetPort; r.Port == 0 {
		for _, c := range k.containers {
			r.Port = max(r.Port, c.port)
		}
	}
	for _, c := range k.containers {
		r.Hopeless = r.Hopeless || c.missing
		r.Restarts += c.restarts
		s := resource.ContainerStatus{
			Name: c.spec.Name, ID: k.e.shownID(c.id), Running: c.up(), Done: c.init && c.done && !c.failed, Started: c.started, Restarts: c.restarts, LastExit: c.last,
		}
		if s.Running {
			s.PID = c.pid
		}
		if c.init {
			r.InitContainers = append(r.InitContainers, s)
			continue
		}
		r.Containers = append(r.Containers, s)
	}
	return r
}

// stopping is how a replica that was told to end is shown.
func stopping(r resource.Replica) resource.Replica {
	r.State, r.ReadySince, r.Reason = resource.ReplicaStopping, time.Time{}, "told to end"
	return r
}

func (k *keeper) state() (resource.ReplicaState, string) {
	if k.once.state != "" {
		return k.once.state, k.once.why
	}
	if k.refusal != "" {
		return resource.ReplicaWaiting, k.refusal
	}
	creating := false
	for _, c := range k.containers {
		switch {
		case c.done:
			continue
		case c.phase == idle && c.trouble != "":
			return resource.ReplicaWaiting, c.trouble
		case c.init && c.up():
			return resource.ReplicaCreating, fmt.Sprintf("init container '%s' runs", c.spec.Name)
		}
		creating = creating || c.phase == idle
	}
	if creating {
		return resource.ReplicaCreating, ""
	}
	for _, c := range k.containers {
		if c.done {
			continue
		}
		if c.ready && c.phase == running {
			continue
		}
		if k.was {
			return resource.ReplicaUnready, c.unhealthy
		}
		return resource.ReplicaStarting, c.unhealthy
	}
	return resource.ReplicaReady, ""
}

// shownID is a container's ID as the API shows it.
func (e *Engine) shownID(id string) string {
	if e.cfg.Scheme == "" {
		return id
	}
	return e.cfg.Scheme + "://" + id
}

// note is news for a keeper. One without a container is only a reason to look again.
type note struct {
	container string
	pid       int
	exit      *resource.Exit
	oom       *OOM
	verdict   *probe.Verdict
	image     bool // one has come
	run       int  // which process of the container the verdict or the port is about
	port      int  // found
	beside    []int
	detect    bool // the port is wanted
	secrets   bool // those that it has as files may have changed
}

// inbox holds news until the keeper has time for them: whoever brings some never waits for a driver call to end. What
// can lie in it is bounded by what a replica can do while one call lasts: a few ends and the answers of its probes.
type inbox struct {
	some chan struct{}

	mu   sync.Mutex
	list []note
}

func (b *inbox) put(n note) {
	b.mu.Lock()
	if !n.secrets || !slices.ContainsFunc(b.list, func(n note) bool { return n.secrets }) {
		b.list = append(b.list, n)
	}
	b.mu.Unlock()
	poke(b.some)
}

func (b *inbox) take() []note {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.list
	b.list = nil
	return list
}

const (
	normal  = false
	warning = true

	eventSource = "Engine"
)

// tell writes a line of the system log.
func (k *keeper) tell(warn bool, reason string, took time.Duration, format string, args ...any) {
	k.e.cfg.Emit(resource.Event{
		At: time.Now(), Warning: warn, App: k.rev.App(), Revision: k.rev.Name(), Replica: k.name,
		Reason: reason, Message: fmt.Sprintf(format, args...), Source: eventSource, Duration: took,
	})
}

// emitSlow tells that a revision wants more CPU than there is.
func (e *Engine) emitSlow(rev resource.Revision) {
	e.cfg.Emit(resource.Event{
		At: time.Now(), Warning: true, App: rev.App(), Revision: rev.Name(), Reason: "InsufficientCPU", Source: eventSource,
		Message: fmt.Sprintf("A replica asks for %s vCPU and this machine has %s: it runs, slower than it would with all of them.",
			cpus(milliCPU(rev)), cpus(e.cfg.Capacity.MilliCPU)),
	})
}
