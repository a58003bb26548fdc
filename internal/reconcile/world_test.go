package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/jobplan"
	"penstock/internal/link"
	"penstock/internal/reconcile"
	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
	"penstock/internal/store"
)

// world is a platform over the fake driver that can be restarted: the store and the driver stay, as files and
// containers would.
type world struct {
	t      testing.TB
	store  *store.Store
	driver *fake.Driver
	images *images
	routes *routes
	scale  reconcile.Scaler   // nil: none
	worn   reconcile.Recycler // nil: none
	limits reconcile.Limits

	mu       sync.Mutex
	released []resource.ID // environments whose addresses were given back
	events   []resource.Event
	secrets  map[string]string
	exposed  []netip.AddrPort // to replicas, as was said last
	deaf     bool             // saying so fails
	calls    map[string]int   // of what is outside memory
	places   map[string]int   // of environments, by key
	given    int
	issue    func(names []string) (link.Certificate, time.Time, error) // nil: certificates are names only

	reconciler *reconcile.Reconciler
	engine     *local.Engine
	stop       func()
}

func newWorld(t testing.TB, change ...func(*world)) *world {
	t.Helper()
	return openWorld(t, filepath.Join(t.TempDir(), "db"), change...)
}

// openWorld starts one over the database at path, which is made if there is none.
func openWorld(t testing.TB, path string, change ...func(*world)) *world {
	t.Helper()
	documents, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	driver := fake.New(fake.Options{})
	w := &world{
		t: t, store: documents, driver: driver, limits: reconcile.Limits{StayUp: 20 * time.Millisecond, Stalled: time.Hour, Unhealthy: time.Hour},
		images: &images{driver: driver, pushed: map[string]int{}}, secrets: map[string]string{}, calls: map[string]int{}, places: map[string]int{}, routes: &routes{busy: map[string]chan struct{}{}, fewest: map[string]int{}},
	}
	t.Cleanup(func() {
		w.stop()
		w.driver.Close()
		documents.Close()
	})
	_, _, err = documents.Environments().Create(t.Context(), resource.Environment{
		Meta:              resource.Meta{ID: environment},
		EnvironmentStatus: resource.EnvironmentStatus{DefaultDomain: "example.localhost"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(w)
	}
	w.start()
	return w
}

var (
	environment = resource.EnvironmentID("s", "g", "env")
	chat        = resource.AppID("s", "g", "chat")
)

func (w *world) start() {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.t.Output(), nil))
	emit := func(e resource.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}
	w.engine = local.New(local.Config{Driver: w.driver, Emit: emit, Log: log, Backoff: quickly, Capacity: local.Capacity{Memory: room}, Secrets: w.all})
	w.reconciler = reconcile.New(reconcile.Config{
		Created: func(resource.Revision) {},
		Scale:   w.scale, Recycle: w.worn, Store: w.store, Runtime: w.engine, Images: w.images, Routes: w.routes,
		Certificate: w.certificate,
		Key: func(c resource.Certificate) ([]byte, error) {
			w.asked("Key")
			return c.Sealed, nil
		},
		Release: func(id resource.ID) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.released = append(w.released, id)
			delete(w.places, id.Key())
			return nil
		},
		Expose: func(ports []netip.AddrPort) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.deaf {
				return errors.New("the firewall is deaf")
			}
			w.exposed = ports
			w.calls["Expose"]++
			return nil
		},
		Addresses: func(id resource.ID) (netip.Prefix, netip.Addr, error) {
			return w.place(id)
		},
		Limits: w.limits,
		Domain: "example.localhost", Emit: emit, Forget: func(resource.ID) error { return nil }, Log: log, Backoff: jobplan.Backoff{First: 20 * time.Millisecond, Max: 40 * time.Millisecond},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.engine.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	ready := make(chan struct{})
	wg.Go(func() {
		if err := w.reconciler.Run(ctx, func() { close(ready) }); err != nil {
			w.t.Error(err)
		}
	})
	w.stop = func() { cancel(); wg.Wait() }
	select {
	case <-ready:
	case <-time.After(20 * time.Second):
		w.t.Fatal("not ready")
	}
}

func (w *world) certificate(names []string) (link.Certificate, time.Time, error) {
	w.asked("Certificate")
	w.mu.Lock()
	issue := w.issue
	w.mu.Unlock()
	if issue != nil {
		return issue(names)
	}
	return link.Certificate{Names: names}, time.Now().Add(time.Hour), nil
}

// place gives an environment addresses that no other has had before.
func (w *world) place(id resource.ID) (netip.Prefix, netip.Addr, error) {
	w.asked("Addresses")
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok := w.places[id.Key()]
	if !ok {
		n = w.given
		w.given++
		w.places[id.Key()] = n
	}
	gateway := netip.AddrFrom4([4]byte{10, 9 + byte(n>>8), byte(n), 1})
	return netip.PrefixFrom(gateway, 24).Masked(), gateway, nil
}

func (w *world) asked(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[what]++
}

// outside is how often anything was asked for that is not in memory.
func (w *world) outside() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.calls)
}

func (w *world) all(context.Context, resource.ID) (map[string]resource.Secret, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]resource.Secret{}
	for name, value := range w.secrets {
		if value != "" {
			all[name] = resource.Secret(value)
		}
	}
	return all, nil
}

// set gives a secret a value; "" removes it.
func (w *world) set(secret, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets[secret] = value
}

// put writes the app as a user would, and waits until that generation has come to an end.
func (w *world) put(change func(a *resource.App)) resource.App {
	w.t.Helper()
	w.write(change)
	return w.settled()
}

func (w *world) write(change func(a *resource.App)) {
	w.t.Helper()
	_, err := w.store.Apps().Put(w.t.Context(), chat, func(a *resource.App, exists bool) error {
		if !exists {
			a.ID, a.Environment = chat, environment
			a.Configuration.Ingress = &resource.Ingress{External: true, TargetPort: 8080, Transport: resource.TransportAuto}
			a.Template = resource.Template{
				Grace:      10 * time.Second,
				Containers: []resource.Container{{Name: "chat", Image: fake.Echo, Resources: resource.Resources{MilliCPU: 250, Memory: 512 << 20}}},
				Scale:      resource.Scale{Min: 1, Max: 10},
			}
		}
		change(a)
		a.Generation++
		a.Modified = time.Now()
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.reconciler.Touch(chat)
}

// settled waits until the newest generation of the app has come to an end.
func (w *world) settled() resource.App {
	w.t.Helper()
	var app resource.App
	w.until("the write has come to an end", func() bool {
		app = w.app()
		return app.Observed == app.Generation
	})
	return app
}

func (w *world) app() resource.App {
	w.t.Helper()
	app, err := w.store.Apps().Get(w.t.Context(), chat)
	if err != nil {
		w.t.Fatal(err)
	}
	return app
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			w.mu.Lock()
			for _, e := range w.events {
				w.t.Logf("event %s %s: %s", e.Revision, e.Reason, e.Message)
			}
			w.mu.Unlock()
			w.t.Fatalf("did not come true: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// running are the names of a revision's replicas.
func (w *world) running(revision string) []string {
	w.t.Helper()
	all, err := w.engine.Replicas(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, r := range all {
		if r.Revision.Base() == revision {
			names = append(names, r.Name)
		}
	}
	return names
}

// ask sends a request where the newest table leads it.
func (w *world) ask(host string) string {
	w.t.Helper()
	table := w.routes.last()
	at := slices.IndexFunc(table.Routes, func(r link.Route) bool { return r.Host == host })
	if at < 0 {
		return "no route"
	}
	if len(table.Routes[at].Targets) == 0 {
		return "no target"
	}
	up := w.routes.revision(table.Routes[at].Targets[0].Revision)
	if len(up.Replicas) == 0 {
		return "held: " + up.Failed + up.Blocked
	}
	resp, err := http.Get("http://" + up.Replicas[0].Addr + "/")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// request begins a request on a revision or a replica. It goes on until end is called.
func (w *world) request(on string) (end func()) {
	over := make(chan struct{})
	w.routes.mu.Lock()
	defer w.routes.mu.Unlock()
	w.routes.busy[on] = over
	return func() { close(over) }
}

// watch counts the replicas in tables anew.
func (w *world) watch() (fewest func(revision string) int) {
	w.routes.mu.Lock()
	defer w.routes.mu.Unlock()
	clear(w.routes.fewest)
	for _, rev := range w.routes.table.Revisions {
		w.routes.fewest[rev.ID[strings.LastIndexByte(rev.ID, '/')+1:]] = len(rev.Replicas)
	}
	return func(revision string) int {
		w.routes.mu.Lock()
		defer w.routes.mu.Unlock()
		return w.routes.fewest[revision]
	}
}

func (w *world) saw(reason string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.events, func(e resource.Event) bool { return e.Reason == reason })
}

// routes stands for the ingresses: a replica is drained when it is not busy.
type routes struct {
	mu     sync.Mutex
	table  link.Table
	busy   map[string]chan struct{} // by revision or replica; closed when the request on it ends
	fewest map[string]int           // replicas that a table has had of a revision, once it had one
}

func (r *routes) Publish(t link.Table) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Version = r.table.Version + 1
	r.table = t
	for _, rev := range t.Revisions {
		id, err := resource.ParseID(rev.ID)
		if err != nil {
			panic(err) // of the code under test
		}
		if fewest, ok := r.fewest[id.Base()]; len(rev.Replicas) > 0 && !ok || ok && len(rev.Replicas) < fewest {
			r.fewest[id.Base()] = len(rev.Replicas)
		}
	}
	return t.Version
}

func (r *routes) Applied(context.Context, uint64) error { return nil }

func (r *routes) Drained(ctx context.Context, _ uint64, replica string) error {
	r.mu.Lock()
	var busy chan struct{}
	for revision := range maps.Keys(r.busy) {
		if replica == revision || strings.HasPrefix(replica, revision+"-") {
			busy = r.busy[revision]
		}
	}
	r.mu.Unlock()
	if busy == nil {
		return nil
	}
	select {
	case <-busy:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *routes) InFlight() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := map[string]int{}
	for name, busy := range r.busy {
		select {
		case <-busy:
		default:
			n[name] = 1
		}
	}
	return n
}

func (r *routes) last() link.Table {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table
}

func (r *routes) revision(name string) link.Revision {
	for _, rev := range r.last().Revisions {
		if rev.ID == name || strings.HasSuffix(rev.ID, "/"+name) {
			return rev
		}
	}
	return link.Revision{}
}

// images resolves what the driver has; an image that was pushed again has a digest that the driver does not know.
type images struct {
	driver *fake.Driver
	mu     sync.Mutex
	pushed map[string]int
}

func (i *images) Digest(ctx context.Context, _ resource.Keyring, ref string) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n := i.pushed[ref]; n > 0 {
		return fmt.Sprintf("sha256:%064d", n), nil
	}
	image, err := i.driver.Image(ctx, ref)
	if errors.Is(err, local.ErrImageNotFound) {
		err = fmt.Errorf("%w: %w", err, resource.ErrNotFound)
	}
	return image.Digest, err
}

func (i *images) push(ref string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pushed[ref]++
}
