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

// keeper keeps one replica running. Only the keeper's own goroutine calls the driver for this replica.
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
	settled chan struct{} // closed when it is known whether the adopted replica is ready

	// The engine's mu guards the following fields.
	ending  bool
	endsFor string // why it is ending
	view    resource.Replica
	ends    int // consecutive ends of the container with the most of them; part of view

	// Only the keeper's goroutine uses the following fields.
	containers []*container // init containers first
	probing    sync.WaitGroup
	admitted   bool
	adopted    bool
	refusal    string    // why it was not admitted
	refusedFor string    // the same in one word
	askAgain   time.Time // when to ask again although nothing was signalled
	touched    bool      // the driver may have something of this replica
	sandbox    bool      // the sandbox is complete
	addr       netip.Addr
	since      time.Time // the time from which a start is measured
	ready      time.Time
	was        bool  // it has been ready since its containers run
	took       times // by its last start
	failures   int
	stale      string // why its secret files are out of date
	removed    bool   // nothing of it is left; read after run has returned
	once       once
	life       life
	rest       rest // the engine's mu guards parts of it
}

// container is one container of a replica.
type container struct {
	spec resource.Container
	id   string
	main bool // requests go to this one
	init bool // an init container: it runs before the others and must end

	ports   []int // those that its image EXPOSEs
	port    int   // the port on which it was found to listen
	finding int   // the run of the process whose port is being detected without probes

	phase    phase
	due      time.Time // when to start it
	image    string    // the image that it runs, pinned by digest
	pulled   bool
	missing  bool   // its image is missing
	done     bool   // not restarted: a successful init container, or an ended one of a replica that runs once
	failed   bool   // done, but not successfully
	exists   bool   // the driver may have this container
	fresh    bool   // it exists and was never started
	sum      string // digest of what it was created from; "" if unknown
	frozen   bool   // the driver may have paused it
	pid      int
	started  time.Time
	runs     int // number of processes started; tells which process a probe result is about
	restarts int
	ends     int // consecutive ends, for the backoff
	trouble  string
	last     *resource.Exit
	missed   *resource.Exit // an end that nobody saw and that is not reported yet
	oom      *OOM

	stopProbes context.CancelFunc
	asked      bool // its probes have reported for this process whether it is ready
	ready      bool
	loaded     bool   // its process has been ready
	unhealthy  string // why it is not ready
	killAt     time.Time
	why        string // why it is being killed
}

type phase int

const (
	idle    phase = iota
	running       // its process runs
	killing       // it got SIGTERM and will be started again when it has ended
)

func (c *container) up() bool { return c.phase != idle }

func newKeeper(e *Engine, name string, rev resource.Revision, env []resource.EnvVar, created time.Time) *keeper {
	k := &keeper{
		e: e, name: name, rev: rev, env: env, created: created, since: created,
		life:  life{Revision: rev.ID, Created: created.UTC().Round(0)},
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

// run keeps the replica running until it must end, or until ctx ends. In the second case the containers keep running.
func (k *keeper) run(ctx context.Context) {
	work, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		// A call in progress, such as a long pull, is canceled when the replica must end.
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
	if !k.life.Told.IsZero() { // an earlier process has told it to end
		k.terminate(ctx)
		return
	}
	if k.adopted {
		if k.rest.is == "" {
			k.tellAdopted(work)
		}
		k.refresh(work) // they may have changed while the platform was down
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
			k.keepTold()
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

// advance does everything that is due.
func (k *keeper) advance(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	if k.rest.is != "" {
		k.look(ctx)
		return
	}
	if k.once.state != "" || !k.admitted && !k.admit() {
		return
	}
	k.watchTimeout(ctx)
	for _, c := range k.containers {
		if ctx.Err() != nil {
			return
		}
		if c.init && c.failed {
			return // containers after it do not start
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
			return // the start of the first container creates what all of them share
		}
		if c.init {
			return // the others wait until it has ended
		}
	}
	k.tidy(ctx)
}

// next returns when advance is due again. It is zero if advance is due only after a note.
func (k *keeper) next() time.Time {
	var first time.Time
	if k.rest.is != "" {
		return k.rest.again
	}
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
			break // the others wait until it has ended
		}
	}
	return first
}

// admit asks the engine for the replica's memory.
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

// handle processes a note.
func (k *keeper) handle(ctx context.Context, n note) {
	if n.secrets {
		k.refresh(ctx)
		return
	}
	if n.check {
		k.rest.checked = false
		return
	}
	if n.sleep {
		k.freeze(ctx)
		return
	}
	if !n.wake.IsZero() {
		k.wake(ctx, n.wake)
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
		return // it only triggers another look
	}
	c := k.containers[i]
	switch {
	case n.lost:
		c.fresh, k.rest.checked = false, false
	case n.oom != nil:
		k.outOfMemory(c, n.oom)
	case n.exit != nil:
		if c.up() && (n.pid == 0 || n.pid == c.pid) {
			if k.rest.is != "" && k.fell(c, *n.exit) {
				return
			}
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

// publish makes the replica's current state visible to the engine's callers.
func (k *keeper) publish() {
	if k.rest.is != "" {
		return // the view shows the replica that it will become
	}
	view := k.status()
	if ready := view.State == resource.ReplicaReady; ready && k.ready.IsZero() {
		now := time.Now()
		if !k.was {
			k.took = k.startedAndLoaded(now)
		}
		k.ready, k.was, k.failures = now, true, 0
		if !k.once.set {
			k.readyFirst(now)
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

// status returns the replica as the goroutine knows it.
func (k *keeper) status() resource.Replica {
	r := resource.Replica{
		Name: k.name, Revision: k.rev.ID, Address: k.addr, Created: k.created, ReadySince: k.ready, Failures: k.failures,
		Stage: k.stage(),
	}
	if k.was {
		r.Start, r.Load = k.took.start, k.took.load
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

// times are how long a start took: until the program of the main container ran, and from then until the replica was ready.
type times struct{ start, load time.Duration }

// startedAndLoaded returns the times of a start that is over at now. The program of a frozen replica ran before.
func (k *keeper) startedAndLoaded(now time.Time) times {
	for _, c := range k.containers {
		if c.main && c.started.After(k.since) {
			return times{c.started.Sub(k.since), now.Sub(c.started)}
		}
	}
	if l := k.life; k.adopted && !l.Ready.IsZero() && l.Ready.Before(k.since) && l.Started.After(l.Created) {
		return times{l.Started.Sub(l.Created), l.Ready.Sub(l.Started)} // it was ready before it was adopted
	}
	return times{start: now.Sub(k.since)}
}

// stage returns how far the start has come.
func (k *keeper) stage() resource.Stage {
	if !k.ready.IsZero() {
		return resource.StageReady
	}
	pulled, created, loading := true, false, true
	for _, c := range k.containers {
		pulled = pulled && (c.pulled || c.exists || c.done)
		created = created || c.exists
		loading = loading && (c.init || c.up())
	}
	switch {
	case !k.admitted:
		return resource.StageQueued
	case loading:
		return resource.StageLoading
	case created && k.sandbox:
		return resource.StageCreated
	case pulled:
		return resource.StagePulled
	}
	return resource.StageQueued
}

// passed shows how far the start has come, if clients follow it. Otherwise nobody needs to know, and telling takes time.
func (k *keeper) passed() {
	if k.rev.Settings.Progress {
		k.publish()
	}
}

// stopping returns how a replica that is ending is shown.
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

// shownID returns a container's ID as the API shows it.
func (e *Engine) shownID(id string) string {
	if e.cfg.Scheme == "" {
		return id
	}
	return e.cfg.Scheme + "://" + id
}

// note is a message to a keeper. A note without a container only triggers another look.
type note struct {
	container string
	pid       int
	exit      *resource.Exit
	oom       *OOM
	verdict   *probe.Verdict
	image     bool // a new image has arrived
	run       int  // the run of the container's process that the verdict or the port is about
	port      int  // the detected port
	beside    []int
	detect    bool // the port must be detected
	check     bool // what a standby is created from may have changed
	lost      bool // a container that was created ahead no longer exists
	sleep     bool
	wake      time.Time
	secrets   bool // the secrets that the replica has as files may have changed
}

// inbox queues notes until the keeper reads them, so a sender never waits for a driver call to end. Its size is bounded
// by what a replica can do during one call: a few ends and the results of its probes.
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

// tell writes a line to the system log.
func (k *keeper) tell(warn bool, reason string, took time.Duration, format string, args ...any) {
	k.e.cfg.Emit(resource.Event{
		At: time.Now(), Warning: warn, App: k.rev.App(), Revision: k.rev.Name(), Replica: k.name,
		Reason: reason, Message: fmt.Sprintf(format, args...), Source: eventSource, Duration: took,
	})
}
