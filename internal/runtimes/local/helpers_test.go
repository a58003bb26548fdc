package local_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

// bench is an engine over a fake driver, with everything that it reported and asked for.
type bench struct {
	*local.Engine
	driver *spy
	events *events
	stop   func()
}

// setUp starts an engine over a new fake driver. change, if not nil, changes its configuration.
func setUp(t testing.TB, change func(*local.Config)) *bench {
	t.Helper()
	d := &spy{Driver: fake.New(fake.Options{})}
	t.Cleanup(d.Close)
	b := &bench{driver: d, events: &events{}}
	b.restart(t, change)
	return b
}

// restart starts a new engine over the same driver.
func (b *bench) restart(t testing.TB, change func(*local.Config)) {
	t.Helper()
	if b.stop != nil {
		b.stop()
	}
	cfg := local.Config{Driver: b.driver, Backoff: quick, Emit: b.events.add, Scheme: "fake"}
	if change != nil {
		change(&cfg)
	}
	b.Engine, b.stop = start(t, cfg)
}

// start runs an engine until stop is called or the test ends.
func start(t testing.TB, cfg local.Config) (e *local.Engine, stop func()) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	e = local.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return e, stop
}

func (b *bench) apply(t testing.TB, w runtimes.Workload) {
	t.Helper()
	if err := b.Apply(t.Context(), w); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func (b *bench) remove(t testing.TB, w runtimes.Workload) {
	t.Helper()
	if err := b.Remove(t.Context(), w.Revision.ID); err != nil {
		t.Fatalf("Remove: %v", err)
	}
}

func (b *bench) list(t testing.TB) []resource.Replica {
	t.Helper()
	list, err := b.Replicas(t.Context())
	if err != nil {
		t.Fatalf("Replicas: %v", err)
	}
	return list
}

// until waits until all replicas of the engine fulfil ok, and returns them, the oldest first.
func (b *bench) until(t testing.TB, what string, ok func([]resource.Replica) bool) []resource.Replica {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for {
		list := b.list(t)
		if ok(list) {
			return list
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s has not come: %+v\nevents:\n%s", what, list, b.events)
		}
	}
}

func (b *bench) ready(t testing.TB, n int) []resource.Replica {
	t.Helper()
	return b.until(t, fmt.Sprintf("%d ready replicas", n), func(list []resource.Replica) bool {
		return len(list) == n && !slices.ContainsFunc(list, func(r resource.Replica) bool { return r.State != resource.ReplicaReady })
	})
}

func (b *bench) gone(t testing.TB) {
	t.Helper()
	b.until(t, "the end of all replicas", func(list []resource.Replica) bool { return len(list) == 0 })
	if lines := left(b.driver); len(lines) > 0 {
		t.Errorf("left behind: %q", lines)
	}
}

// web returns a workload with n replicas of an echo server with ingress.
func web(n int, env ...resource.EnvVar) runtimes.Workload {
	app := resource.AppID("s", "g", "web")
	return runtimes.Workload{
		Replicas: n,
		Revision: resource.Revision{
			ID: app.Child("revisions", "web--0000001"), Environment: resource.EnvironmentID("s", "g", "env"), RevisionStatus: resource.RevisionStatus{Serving: resource.Serving{TargetPort: 8080}},
			Template: resource.Template{
				Grace: 30 * time.Second,
				Containers: []resource.Container{{
					Name: "main", Image: fake.Echo, Env: env, Resources: resource.Resources{MilliCPU: 250, Memory: 1 << 29},
				}},
			},
		},
	}
}

func env(pairs ...string) (list []resource.EnvVar) {
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		list = append(list, resource.EnvVar{Name: name, Value: value})
	}
	return list
}

// events keeps the events that an engine emits.
type events struct {
	mu   sync.Mutex
	list []resource.Event
}

func (e *events) add(ev resource.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

func (e *events) all() []resource.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.list)
}

func (e *events) reasons() (words []string) {
	for _, ev := range e.all() {
		words = append(words, ev.Reason)
	}
	return words
}

func (e *events) count(reason string) (n int) {
	for _, r := range e.reasons() {
		if r == reason {
			n++
		}
	}
	return n
}

// find returns the first event with the given reason whose message contains text.
func (e *events) find(reason, text string) (resource.Event, bool) {
	for _, ev := range e.all() {
		if ev.Reason == reason && strings.Contains(ev.Message, text) {
			return ev, true
		}
	}
	return resource.Event{}, false
}

// want fails the test unless there is such an event.
func (e *events) want(t testing.TB, reason, text string) resource.Event {
	t.Helper()
	ev, ok := e.find(reason, text)
	if !ok {
		t.Errorf("want an event %s with %q, got:\n%s", reason, text, e)
	}
	return ev
}

func (e *events) String() string {
	var b strings.Builder
	for _, ev := range e.all() {
		fmt.Fprintf(&b, "%s: %s (%s)\n", ev.Reason, ev.Message, ev.Duration)
	}
	return b.String()
}

// spy is a fake driver that records what it was asked for, and can be told to fail.
type spy struct {
	*fake.Driver
	pull        func(ctx context.Context) error // called before Image
	failRemoves int                             // this many calls of RemoveSandbox fail
	deafOnce    bool                            // the next watch ends before it sends anything, so exits are lost

	sockets []netip.AddrPort // what all containers seem to listen on; nil: the real ports

	came chan local.Event // sent to watchers in addition to the fake's events; nil: nothing

	mu         sync.Mutex
	making     func(local.Container) // called before Create
	sandboxes  []local.Sandbox
	containers []local.Container
}

func (s *spy) Image(ctx context.Context, ref string) (local.Image, error) {
	if s.pull != nil {
		if err := s.pull(ctx); err != nil {
			return local.Image{}, err
		}
	}
	return s.Driver.Image(ctx, ref)
}

func (s *spy) Listening(ctx context.Context, id string) ([]netip.AddrPort, error) {
	if s.sockets != nil {
		return s.sockets, nil
	}
	return s.Driver.Listening(ctx, id)
}

func (s *spy) CreateSandbox(ctx context.Context, b local.Sandbox) (netip.Addr, error) {
	s.mu.Lock()
	s.sandboxes = append(s.sandboxes, b)
	s.mu.Unlock()
	return s.Driver.CreateSandbox(ctx, b)
}

func (s *spy) Create(ctx context.Context, c local.Container) error {
	s.mu.Lock()
	s.containers = append(s.containers, c)
	making := s.making
	s.mu.Unlock()
	if making != nil {
		making(c)
	}
	return s.Driver.Create(ctx, c)
}

func (s *spy) RemoveSandbox(ctx context.Context, replica string) error {
	s.mu.Lock()
	fail := s.failRemoves > 0
	s.failRemoves--
	s.mu.Unlock()
	if fail {
		return fmt.Errorf("sandbox %s is busy", replica)
	}
	return s.Driver.RemoveSandbox(ctx, replica)
}

func (s *spy) Watch(ctx context.Context) (<-chan local.Event, error) {
	s.mu.Lock()
	deaf := s.deafOnce
	s.deafOnce = false
	s.mu.Unlock()
	if !deaf && s.came == nil {
		return s.Driver.Watch(ctx)
	}
	if !deaf {
		all, err := s.Driver.Watch(ctx)
		if err != nil {
			return nil, err
		}
		out := make(chan local.Event)
		go func() {
			defer close(out)
			for {
				select {
				case e, ok := <-all:
					if !ok {
						return
					}
					out <- e
				case e := <-s.came:
					out <- e
				}
			}
		}()
		return out, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	all, err := s.Driver.Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	out := make(chan local.Event)
	go func() {
		defer close(out)
		defer cancel()
		<-all // this event is lost
	}()
	return out, nil
}

// before sets a function that is called with each container before it is created.
func (s *spy) before(making func(local.Container)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making = making
}

// created returns the containers that were created, sorted by name and then by time.
func (s *spy) created() []local.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.containers)
	slices.SortStableFunc(list, func(a, b local.Container) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// left lists what a driver has.
func left(d local.Driver) []string {
	list, err := d.List(context.Background())
	if err != nil {
		return []string{err.Error()}
	}
	var lines []string
	for _, s := range list {
		lines = append(lines, fmt.Sprintf("sandbox %s with %d containers", s.Replica, len(s.Containers)))
	}
	return lines
}
