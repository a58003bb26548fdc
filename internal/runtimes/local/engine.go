package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// Config is the configuration of an engine. Driver is required; everything else is optional.
type Config struct {
	Driver Driver
	// Scheme is the prefix of container IDs in the API: "containerd".
	Scheme string
	// Emit receives the lines of the system log. It must not block.
	Emit func(resource.Event)
	Log  *slog.Logger
	// Capacity is what the machine offers to replicas.
	Capacity Capacity
	// Secrets returns the current values of an app's secrets. It is called at each start of a container that refers to
	// a secret, and at each Apply if replicas have secrets as files. The engine keeps no values. nil means that there
	// are no secrets.
	Secrets func(ctx context.Context, app resource.ID) (map[string]resource.Secret, error)
	// Fetch copies an image that is not on this machine from its registry to the driver, and returns how many bytes
	// were received. Its errors are those of Driver.Image. nil means that images come by other ways.
	Fetch func(ctx context.Context, app resource.ID, image string) (bytes int64, err error)
	// Answered reports whether a replica has sent a byte of a response since the given time. A container that fails its
	// liveness probe while it still answers requests is busy, not hung. Answered must not block. nil means that this is
	// not known.
	Answered func(replica string, since time.Time) bool
	// Storage finds a storage of an environment. It is called at each start of a container that mounts one. nil means
	// that there are no storages.
	Storage func(ctx context.Context, environment resource.ID, name string) (Storage, error)
	// Replicas is the folder in which the engine stores what must be known about a replica after it has gone. It is
	// created if it is missing. With "", nothing is stored, and ends are forgotten with the engine.
	Replicas string
	// Backoff is the pause between restarts. The zero value is that of Kubernetes.
	Backoff Backoff
	// Standbys is how many revisions may have a standby: those that had a replica most recently. 0 means none.
	Standbys int
	// Starts is how many containers are created at a time. 0 means one per CPU, and at least 2.
	Starts int
	// NewID returns the last part of a replica's name: five letters and digits. nil means a random one.
	NewID func() string
}

// Engine keeps revisions running on this machine. It has one keeper per replica, and one goroutine that reads the
// driver's events. The wanted number of replicas is not stored anywhere: it is the number of keepers.
//
//	Apply, Remove ───────────────> keepers ──> Driver
//	Replicas, Watch <── views <──────┘  ^───── Driver.Watch, probes
type Engine struct {
	cfg    Config
	starts *gate
	// preparing makes standbys be created one after the other.
	preparing *gate
	lives     lives
	adopted   chan struct{} // closed when what the driver lists has been adopted
	ended     chan struct{} // closed when Run has returned
	fresh     chan struct{} // signals Run that starting is not empty

	mu         sync.Mutex
	keepers    map[string]*keeper      // by replica
	containers map[string]*keeper      // by container ID
	strays     []resource.Replica      // sandboxes that cannot be adopted
	ends       map[string]runtimes.End // by replica
	starting   []*keeper               // their goroutines are not started yet; Run starts them
	promised   map[string]int64        // bytes of memory by replica
	room       waitingRoom             // replicas that wait for memory
	wishes     map[string]*wish        // revisions, by key, that should have a standby
	told       map[string]bool         // revisions, by key, of which it was reported that this machine is too small
	watchers   map[*watcher]struct{}
}

// New returns an engine. It does nothing before Run.
func New(cfg Config) *Engine {
	if cfg.Emit == nil {
		cfg.Emit = func(resource.Event) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Secrets == nil {
		cfg.Secrets = noSecrets
	}
	if cfg.Fetch == nil {
		cfg.Fetch = func(context.Context, resource.ID, string) (int64, error) { return 0, nil }
	}
	if cfg.Answered == nil {
		cfg.Answered = func(string, time.Time) bool { return false }
	}
	if cfg.Storage == nil {
		cfg.Storage = noStorage
	}
	if cfg.NewID == nil {
		cfg.NewID = randomID
	}
	cfg.Backoff = cfg.Backoff.withDefaults()
	if cfg.Starts <= 0 {
		cfg.Starts = max(2, runtime.NumCPU())
	}
	return &Engine{
		cfg:        cfg,
		starts:     newGate(cfg.Starts),
		preparing:  newGate(1),
		wishes:     map[string]*wish{},
		lives:      lives{cfg.Replicas},
		ends:       map[string]runtimes.End{},
		adopted:    make(chan struct{}),
		ended:      make(chan struct{}),
		fresh:      make(chan struct{}, 1),
		keepers:    map[string]*keeper{},
		containers: map[string]*keeper{},
		promised:   map[string]int64{},
		room:       newWaitingRoom(),
		told:       map[string]bool{},
		watchers:   map[*watcher]struct{}{},
	}
}

// checkEvery is how often the driver's list is compared with the engine's state, in case an event was lost. It only
// bounds how long such a fault lasts.
const checkEvery = 30 * time.Second

// watchAgain is the pause before the engine watches the driver again after the driver's channel has closed.
const watchAgain = time.Second

// Run adopts what the driver lists, and then keeps replicas running until ctx ends. Containers keep running after that.
// When Run returns, every goroutine that it started has ended. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.ended)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	// Watch before listing: an exit between the two calls is then seen twice and not missed.
	events, err := e.cfg.Driver.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch containers: %w", err)
	}
	found, err := e.adopt(ctx)
	if err != nil {
		return err
	}
	wg.Go(func() {
		e.settle(ctx, found)
		close(e.adopted)
	})

	check := make(chan struct{}, 1)
	wg.Go(func() { e.checkLoop(ctx, check) })
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.fresh:
			for _, k := range e.takeStarting() {
				wg.Go(func() {
					k.run(ctx)
					e.forget(k)
				})
			}
		case ev, ok := <-events:
			if ok {
				e.dispatch(ev)
				continue
			}
			if ctx.Err() != nil {
				return nil
			}
			e.cfg.Log.Warn("the driver stopped telling about containers; watching it again", "in", watchAgain)
			events, again = nil, time.After(watchAgain)
		case <-again:
			if events, err = e.cfg.Driver.Watch(ctx); err != nil {
				e.cfg.Log.Warn("containers cannot be watched; trying again", "in", watchAgain, "err", err)
				events, again = nil, time.After(watchAgain)
				continue
			}
			again = nil
			poke(check)
		}
	}
}

// Apply implements runtimes.Runtime.
func (e *Engine) Apply(ctx context.Context, w runtimes.Workload) error {
	if w.Replicas < 0 {
		return fmt.Errorf("revision %s: want 0 or more replicas, got %d", w.Revision.Name(), w.Replicas)
	}
	if !w.Revision.ID.Is(resource.TypeRevision) {
		return fmt.Errorf("revision %s: want a %s, got a %s", w.Revision.Name(), resource.TypeRevision, w.Revision.ID.Type)
	}
	if err := e.wait(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	live := e.live(w.Revision.ID)
	missing := w.Replicas - len(live)
	if missing > 0 {
		if err := e.cfg.Capacity.fits(w.Revision); err != nil {
			e.mu.Unlock()
			return fmt.Errorf("revision %s: %w", w.Revision.Name(), err)
		}
	}
	for _, k := range live {
		k.lookAgain()
		if w.Revision.DetectPort && !k.rev.DetectPort {
			k.inbox.put(note{detect: true})
		}
	}
	if missing > 0 && e.useStandby(w, true) {
		missing--
	}
	for range missing {
		e.add(newKeeper(e, e.newName(w.Revision.ID), w.Revision, w.Env, time.Now()))
	}
	if missing < 0 {
		going := firstToGo(live, w.Retire)[:-missing]
		if w.Replicas == 0 {
			going = e.lull(w, going)
		}
		for _, k := range going {
			e.stop(k, runtimes.EndScaledIn)
		}
	}
	e.want(w, len(live) > 0)
	var told []resource.Event
	if missing > 0 {
		told = e.tooSmall(w.Revision)
	}
	e.mu.Unlock()
	for _, ev := range told {
		e.cfg.Emit(ev)
	}
	return nil
}

// Remove implements runtimes.Runtime.
func (e *Engine) Remove(ctx context.Context, revision resource.ID) error {
	if err := e.wait(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.told, revision.Key())
	delete(e.wishes, revision.Key())
	for _, k := range e.keepers {
		if k.asleep() && k.rev.ID.Equal(revision) {
			k.rest.kind = "" // it stays listed until it has gone
			e.stop(k, runtimes.EndRemoved)
		}
	}
	for _, k := range e.live(revision) {
		e.stop(k, runtimes.EndRemoved)
	}
	return nil
}

// Replicas implements runtimes.Runtime.
func (e *Engine) Replicas(ctx context.Context) ([]resource.Replica, error) {
	return e.list(ctx, func(resource.ID) bool { return true })
}

// ReplicasOf implements runtimes.Runtime.
func (e *Engine) ReplicasOf(ctx context.Context, id resource.ID) ([]resource.Replica, error) {
	return e.list(ctx, func(revision resource.ID) bool { return revision.Parent().Equal(id) })
}

// list returns the replicas of the revisions that of accepts.
func (e *Engine) list(ctx context.Context, of func(revision resource.ID) bool) ([]resource.Replica, error) {
	if err := e.wait(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []resource.Replica
	for _, r := range e.strays {
		if of(r.Revision) {
			list = append(list, r)
		}
	}
	for _, k := range e.keepers {
		if k.asleep() || !of(k.view.Revision) {
			continue
		}
		r := k.view
		r.Containers = slices.Clone(r.Containers)
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b resource.Replica) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// Usage implements runtimes.Runtime.
func (e *Engine) Usage(ctx context.Context, replica string) (runtimes.Usage, error) {
	u, err := e.cfg.Driver.Usage(ctx, replica)
	if errors.Is(err, ErrGone) {
		return u, fmt.Errorf("usage of replica %q: %w", replica, resource.ErrNotFound)
	}
	if err != nil {
		return u, fmt.Errorf("usage of replica %q: %w", replica, err)
	}
	return u, nil
}

// Mapped implements runtimes.Mapper.
func (e *Engine) Mapped(ctx context.Context, replica string) (runtimes.Mapped, error) {
	driver, ok := e.cfg.Driver.(Mapper)
	if !ok {
		return runtimes.Mapped{}, fmt.Errorf("mapped memory of replica %q: the engine cannot tell: %w", replica, errors.ErrUnsupported)
	}
	m, err := driver.Mapped(ctx, replica)
	if errors.Is(err, ErrGone) {
		return m, fmt.Errorf("mapped memory of replica %q: %w", replica, resource.ErrNotFound)
	}
	return m, err
}

var _ runtimes.Mapper = (*Engine)(nil)

// errEnded is returned by calls to an engine whose Run has returned.
var errEnded = errors.New("the engine has ended")

// wait blocks until what ran before has been adopted. The number of replicas is unknown before that.
func (e *Engine) wait(ctx context.Context) error {
	select {
	case <-e.adopted:
	case <-e.ended:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("wait for the engine to adopt what runs: %w", context.Cause(ctx))
	}
	select {
	case <-e.ended:
		return errEnded
	default:
		return nil
	}
}

// live returns the replicas of a revision that are not ending. The caller holds mu.
func (e *Engine) live(revision resource.ID) []*keeper {
	var list []*keeper
	for _, k := range e.keepers {
		if !k.ending && !k.asleep() && k.rev.ID.Equal(revision) {
			list = append(list, k)
		}
	}
	return list
}

// add registers a keeper. Run starts its goroutine. The caller holds mu.
func (e *Engine) add(k *keeper) {
	e.keepers[k.name] = k
	for _, c := range k.containers {
		e.containers[c.id] = k
	}
	e.starting = append(e.starting, k)
	e.changed(k.rev.ID)
	poke(e.fresh)
}

func (e *Engine) takeStarting() []*keeper {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.starting
	e.starting = nil
	return list
}

// stop makes a keeper end its replica. The caller holds mu.
func (e *Engine) stop(k *keeper, reason string) {
	if k.ending {
		return
	}
	k.ending, k.endsFor = true, reason
	k.view = stopping(k.view)
	close(k.end)
	e.changed(k.rev.ID)
}

// forget removes a keeper whose goroutine has ended. It stays listed if it ended because the engine ended.
func (e *Engine) forget(k *keeper) {
	if !k.removed {
		return
	}
	e.mu.Lock()
	delete(e.keepers, k.name)
	for _, c := range k.containers {
		delete(e.containers, c.id)
	}
	e.balance()
	var dropped []string
	ran := !k.life.Ended.IsZero()
	if ran {
		dropped = e.addEnd(k.life.end(k.name))
	}
	e.changed(k.rev.ID)
	e.mu.Unlock()
	if !ran {
		if err := e.lives.remove(k.name); err != nil {
			e.cfg.Log.Warn("the record of a replica cannot be removed", "replica", k.name, "err", err)
		}
	}
	e.drop(dropped)
	e.giveBack(k)
}

// giveBack frees a replica's memory, and wakes the replicas that wait for memory.
func (e *Engine) giveBack(k *keeper) {
	e.mu.Lock()
	if _, had := e.promised[k.name]; had {
		delete(e.promised, k.name)
		e.room.freed(time.Now())
	}
	e.room.leave(time.Now(), k.name)
	e.mu.Unlock()
	e.tellWaiting()
}

// tellWaiting makes the replicas that wait for memory try again.
func (e *Engine) tellWaiting() {
	e.mu.Lock()
	waiting := make([]*keeper, 0, len(e.keepers))
	for _, other := range e.keepers {
		if _, ok := e.promised[other.name]; !ok && !other.asleep() {
			waiting = append(waiting, other)
		}
	}
	// The replica that has waited longest is tried first.
	slices.SortFunc(waiting, func(a, b *keeper) int { return a.view.Created.Compare(b.view.Created) })
	e.mu.Unlock()
	for _, other := range waiting {
		other.inbox.put(note{})
	}
}

// dispatch passes an event of the driver to the keeper of its container.
func (e *Engine) dispatch(ev Event) {
	if ev.Image != "" {
		e.imageCame()
		return
	}
	e.mu.Lock()
	k := e.containers[ev.Container]
	e.mu.Unlock()
	if k != nil {
		k.inbox.put(note{container: ev.Container, pid: ev.PID, exit: ev.Exit, oom: ev.OOM})
	}
}

// imageCame wakes all replicas that wait for an image. It does not check which image is new: an image has many names,
// and a try is cheap.
func (e *Engine) imageCame() {
	e.mu.Lock()
	var waiting []*keeper
	for _, k := range e.keepers {
		if k.view.Hopeless {
			waiting = append(waiting, k)
		}
	}
	e.mu.Unlock()
	for _, k := range waiting {
		k.inbox.put(note{image: true})
	}
}

// firstToGo sorts replicas by the order in which they end when there are too many: first the named ones, in their
// order, then those that are not ready, then the youngest, which lose the least. Kubernetes' ReplicaSet does the same
// (controller_utils.go, ActivePodsWithRanks).
func firstToGo(list []*keeper, named []string) []*keeper {
	rank := func(k *keeper) int {
		if i := slices.Index(named, k.name); i >= 0 {
			return i
		}
		return len(named)
	}
	distance := func(k *keeper) int {
		switch k.view.State {
		case resource.ReplicaWaiting:
			return 0
		case resource.ReplicaCreating:
			return 1
		case resource.ReplicaStarting:
			return 2
		case resource.ReplicaUnready:
			return 3
		default:
			return 4
		}
	}
	return slices.SortedFunc(slices.Values(list), func(a, b *keeper) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(distance(a), distance(b)),
			b.view.Created.Compare(a.view.Created), cmp.Compare(a.name, b.name))
	})
}

// poke makes c readable without blocking. c has a buffer of one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
