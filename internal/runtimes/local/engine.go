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

// Config is what an engine is made from. Driver is needed; the rest may be left out.
type Config struct {
	Driver Driver
	// Scheme is what the ids of containers start with in what the API shows: "containerd".
	Scheme string
	// Emit takes the lines of the system log. It must not block.
	Emit func(resource.Event)
	Log  *slog.Logger
	// Capacity is what the machine has to give.
	Capacity Capacity
	// Secrets tells the values of an app's secrets now. It is asked at each start of a container that refers to one, and
	// at each Apply for those that replicas have as files: the engine keeps no values. nil: there are none.
	Secrets func(ctx context.Context, app resource.ID) (map[string]resource.Secret, error)
	// Fetch brings an image that is not on this machine to the driver from where its name says, and tells how many bytes
	// came. Its errors are those of Driver.Image. nil: images come by other ways.
	Fetch func(ctx context.Context, app resource.ID, image string) (bytes int64, err error)
	// Answered says whether a replica has sent a byte of an answer to a request since then: a container that does not
	// answer its liveness probe in time while others get answers is busy, not hung. It must not block. nil: nobody knows.
	Answered func(replica string, since time.Time) bool
	// Storage finds a storage of an environment. It is asked at each start of a container that mounts it. nil: there are
	// none.
	Storage func(ctx context.Context, environment resource.ID, name string) (Storage, error)
	// Backoff spaces out restarts; the zero value is Kubernetes'.
	Backoff Backoff
	// Starts is how many containers are made at a time; 0: one a CPU, and at least 2.
	Starts int
	// NewID returns the last part of a replica's name, five letters and digits; nil: at random.
	NewID func() string
}

// Engine keeps revisions running on this machine: one keeper a replica, and one goroutine that reads what the driver
// sees. What is wanted is not written down anywhere: it is how many keepers there are.
//
//	Apply, Remove ───────────────> keepers ──> Driver
//	Replicas, Watch <── views <──────┘  ^───── Driver.Watch, probes
type Engine struct {
	cfg     Config
	starts  *gate
	adopted chan struct{} // closed when what the driver lists has been adopted
	ended   chan struct{} // closed when Run has returned
	fresh   chan struct{} // tells Run that starting is not empty

	mu         sync.Mutex
	keepers    map[string]*keeper // by replica
	containers map[string]*keeper // by container ID
	strays     []resource.Replica // sandboxes that cannot be adopted
	starting   []*keeper          // whose goroutine Run has not started yet
	promised   map[string]int64   // bytes of memory by replica
	slowTold   map[string]bool    // revisions, by key, that were told that they want more CPU than there is
	watchers   map[*watcher]struct{}
}

// New returns an engine that does nothing before Run.
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
		adopted:    make(chan struct{}),
		ended:      make(chan struct{}),
		fresh:      make(chan struct{}, 1),
		keepers:    map[string]*keeper{},
		containers: map[string]*keeper{},
		promised:   map[string]int64{},
		slowTold:   map[string]bool{},
		watchers:   map[*watcher]struct{}{},
	}
}

// checkEvery is how often the driver's list is compared with what the engine believes, in case an event was lost. It
// only bounds how long such a fault lasts.
const checkEvery = 30 * time.Second

// watchAgain is the pause before the driver is watched again after its channel closed by itself.
const watchAgain = time.Second

// Run adopts what the driver lists and then keeps replicas until ctx ends. Containers run on after that. When it
// returns, every goroutine it started is gone. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.ended)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	// First watch, then list: an exit between the two is seen twice, not never.
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
	if want := kindOf(w.Run != nil); !w.Revision.ID.Is(want) {
		return fmt.Errorf("revision %s: want a %s, got a %s", w.Revision.Name(), want, w.Revision.ID.Type)
	}
	if err := e.wait(ctx); err != nil {
		return err
	}
	if w.Run != nil {
		return e.run(w)
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
	for range missing {
		e.add(newKeeper(e, e.newName(w.Revision.ID), w.Revision, w.Env, time.Now()))
	}
	if missing < 0 {
		for _, k := range firstToGo(live, w.Retire)[:-missing] {
			e.stop(k)
		}
	}
	slow := missing > 0 && e.tooMuchCPU(w.Revision)
	e.mu.Unlock()
	if slow {
		e.emitSlow(w.Revision)
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
	delete(e.slowTold, revision.Key())
	for _, k := range e.live(revision) {
		e.stop(k)
	}
	return nil
}

// Replicas implements runtimes.Runtime.
func (e *Engine) Replicas(ctx context.Context) ([]resource.Replica, error) {
	if err := e.wait(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := slices.Clone(e.strays)
	for _, k := range e.keepers {
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

// errEnded answers calls to an engine whose Run has returned.
var errEnded = errors.New("the engine has ended")

// wait returns when what ran before has been adopted: before that nobody knows how many replicas there are.
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

// live lists the replicas of a revision that have not been told to end. The caller holds mu.
func (e *Engine) live(revision resource.ID) []*keeper {
	var list []*keeper
	for _, k := range e.keepers {
		if !k.ending && k.rev.ID.Key() == revision.Key() {
			list = append(list, k)
		}
	}
	return list
}

// add takes a keeper on; Run starts it. The caller holds mu.
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

// stop tells a keeper to end its replica. The caller holds mu.
func (e *Engine) stop(k *keeper) {
	if k.ending {
		return
	}
	k.ending = true
	k.view = stopping(k.view)
	close(k.end)
	e.changed(k.rev.ID)
}

// forget drops a keeper whose goroutine has ended. One that ended because the engine does stays listed.
func (e *Engine) forget(k *keeper) {
	if !k.removed {
		return
	}
	e.mu.Lock()
	delete(e.keepers, k.name)
	for _, c := range k.containers {
		delete(e.containers, c.id)
	}
	e.changed(k.rev.ID)
	e.mu.Unlock()
	e.giveBack(k)
}

// giveBack takes back a replica's memory, and tells those who wait for some.
func (e *Engine) giveBack(k *keeper) {
	e.mu.Lock()
	delete(e.promised, k.name)
	waiting := make([]*keeper, 0, len(e.keepers))
	for _, other := range e.keepers {
		if _, ok := e.promised[other.name]; !ok {
			waiting = append(waiting, other)
		}
	}
	e.mu.Unlock()

	// Who has waited longest looks first; who does not fit does not stop a smaller one.
	slices.SortFunc(waiting, func(a, b *keeper) int { return a.created.Compare(b.created) })
	for _, other := range waiting {
		other.inbox.put(note{})
	}
}

// dispatch hands what the driver saw to the keeper whom it concerns.
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

// imageCame makes the replicas look again that wait for an image. Which one came is not asked: names of one image are
// many, and a look is cheap.
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

// firstToGo orders replicas by who ends first when there are too many: those named, in that order, then those that are
// not ready, then the youngest, which has lost least. So does a ReplicaSet in Kubernetes (controller_utils.go,
// ActivePodsWithRanks).
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
			b.created.Compare(a.created), cmp.Compare(a.name, b.name))
	})
}

// poke makes c readable without waiting; c has room for one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
