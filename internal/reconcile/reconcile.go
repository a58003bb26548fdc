// Package reconcile makes what runs equal to what was asked for. It works on one app, job or environment at a time, from
// what is and not from what happened, so it may be called at any time, any number of times, and again after a crash.
//
//	ARM write ──► store ──► Touch(app)            engine: a replica changed ──► Touch(app)
//	                           │
//	                           ▼
//	     revision for the template ─► runtime.Apply ─► judge replicas ─► switch traffic ─► publish routes
//	                                                                                          │
//	                                        runtime.Remove ◄─ drained at every ingress ◄──────┘
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/store"
)

// Images tells which image a reference means now, to who has these keys.
type Images interface {
	Digest(ctx context.Context, keys resource.Keyring, ref string) (string, error)
}

// Routes takes what ingresses are to route by, says when they do, and when they have stopped to use a replica.
type Routes interface {
	Publish(t link.Table) (version uint64)
	Applied(ctx context.Context, version uint64) error
	Drained(ctx context.Context, version uint64, replica string) error
}

// Config is what a Reconciler works with. All fields are needed that do not say otherwise.
type Config struct {
	Store   *store.Store
	Runtime runtimes.Runtime
	Images  Images
	Routes  Routes
	// Certificate makes or finds the certificate of a domain's host names.
	Certificate func(names []string) (link.Certificate, error)
	// Key opens the private key of a certificate that was uploaded, as PEM.
	Key func(resource.Certificate) ([]byte, error)
	// Addresses says which addresses replicas of an environment have, and where they reach the ingress. Zero values are
	// for replicas without a network of their own.
	Addresses func(environment resource.ID) (netip.Prefix, netip.Addr)
	// Release gives back the addresses of an environment that is deleted. nil: it has none.
	Release func(environment resource.ID) error
	// Expose lets replicas reach these ports of their gateways, and no others. nil: they have no gateways.
	Expose func(ports []netip.AddrPort) error
	// Domain is the parent of the environments' domains.
	Domain string
	Emit   func(resource.Event)
	// Created is told of each new revision, once or, after a crash, not at all. It must not block.
	Created func(resource.Revision)
	// Forget drops what is kept about an app or a job beside its documents: its logs.
	Forget func(id resource.ID) error
	// Backoff spaces out the tries of executions; the zero value is Kubernetes'.
	Backoff Backoff
	Log     *slog.Logger
}

const (
	workers = 4
	// A key that failed is tried again after firstRetry, doubling up to lastRetry.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Reconciler keeps all apps and environments of a server.
type Reconciler struct {
	cfg   Config
	queue *queue

	mu      sync.Mutex
	retries map[string]time.Duration

	engine     snapshots
	departures departures
	tasks      sync.WaitGroup // those that wait for requests to end
	table      table
}

// New starts nothing.
func New(cfg Config) *Reconciler {
	if cfg.Release == nil {
		cfg.Release = func(resource.ID) error { return nil }
	}
	if cfg.Expose == nil {
		cfg.Expose = func([]netip.AddrPort) error { return nil }
	}
	return &Reconciler{cfg: cfg, queue: newQueue(), retries: map[string]time.Duration{}, departures: departures{by: map[string]*departure{}}}
}

// Touch asks for a look at an app, a job or an environment. It never blocks.
func (r *Reconciler) Touch(id resource.ID) { r.queue.touch(id) }

// Run reconciles until ctx ends. It looks at everything once before it publishes the first routes, so that ingresses
// go on with their last table until there is a better one; then it calls ready.
func (r *Reconciler) Run(ctx context.Context, ready func()) error {
	defer r.queue.close()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		r.tasks.Wait()
	}()
	watch := r.cfg.Runtime.Watch(ctx)
	all, err := r.first(ctx)
	if err != nil {
		return err
	}
	for range workers {
		wg.Go(func() { r.work(ctx) })
	}
	r.table.open()
	for _, id := range all {
		r.Touch(id)
	}
	if _, err := r.publish(ctx); err != nil {
		return err
	}
	ready()
	for revision := range watch {
		r.Touch(revision.Parent())
	}
	return nil
}

// first reconciles everything there is, and tells what runs that nobody asked for.
func (r *Reconciler) first(ctx context.Context) ([]resource.ID, error) {
	environments, err := r.cfg.Store.Environments().List(ctx, store.Scope{})
	if err != nil {
		return nil, err
	}
	apps, err := r.cfg.Store.Apps().List(ctx, store.Scope{})
	if err != nil {
		return nil, err
	}
	jobs, err := r.cfg.Store.Jobs().List(ctx, store.Scope{})
	if err != nil {
		return nil, err
	}
	var all []resource.ID
	for _, e := range environments {
		all = append(all, e.ID)
	}
	known := map[string]bool{}
	for _, a := range apps {
		all = append(all, a.ID)
		known[a.ID.Key()] = true
	}
	for _, j := range jobs {
		all = append(all, j.ID)
		known[j.ID.Key()] = true
	}
	for _, id := range all {
		r.once(ctx, id)
	}
	replicas, err := r.cfg.Runtime.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	for _, replica := range replicas {
		if !known[replica.Revision.Parent().Key()] {
			r.cfg.Log.Warn("a replica runs whose app or job is not in the database; it is left alone",
				"replica", replica.Name, "revision", replica.Revision)
		}
	}
	return all, nil
}

func (r *Reconciler) work(ctx context.Context) {
	for {
		id, ok := r.queue.next(ctx)
		if !ok {
			return
		}
		r.once(ctx, id)
		r.queue.done(id)
	}
}

// once reconciles id and, when that fails, asks for another try.
func (r *Reconciler) once(ctx context.Context, id resource.ID) {
	var err error
	switch {
	case id.Is(resource.TypeApp):
		err = r.app(ctx, id)
	case id.Is(resource.TypeJob):
		err = r.job(ctx, id)
	case id.Is(resource.TypeEnvironment):
		err = r.environment(ctx, id)
	default:
		r.cfg.Log.Error("nothing reconciles this type", "id", id)
		return
	}
	if errors.Is(err, resource.ErrNotFound) {
		err = nil // deleted while we looked
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil || ctx.Err() != nil {
		delete(r.retries, id.Key())
		return
	}
	wait := min(max(2*r.retries[id.Key()], firstRetry), lastRetry)
	r.retries[id.Key()] = wait
	r.queue.later(id, wait)
	r.cfg.Log.Error("reconcile failed", "id", id, "err", err, "again_in", wait)
}

func (r *Reconciler) environment(ctx context.Context, id resource.ID) error {
	env, err := r.cfg.Store.Environments().Get(ctx, id)
	if err != nil {
		return err
	}
	apps, err := r.cfg.Store.Apps().List(ctx, store.Scope{})
	if err != nil {
		return err
	}
	apps = slices.DeleteFunc(apps, func(a resource.App) bool { return a.Environment.Key() != id.Key() })
	switch env.Provisioning {
	case resource.Deleting:
		if len(apps) > 0 {
			return fmt.Errorf("environment %s: app %s is still in it", id.Base(), apps[0].ID.Base())
		}
		jobs, err := r.cfg.Store.Jobs().List(ctx, store.Scope{})
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(jobs, func(j resource.Job) bool { return j.Environment.Key() == id.Key() }); i >= 0 {
			return fmt.Errorf("environment %s: job %s is still in it", id.Base(), jobs[i].ID.Base())
		}
		certificates, err := r.cfg.Store.Certificates().List(ctx, store.Scope{Parent: id})
		if err != nil {
			return err
		}
		for _, c := range certificates {
			if err := r.cfg.Store.Certificates().Delete(ctx, c.ID); err != nil {
				return err
			}
		}
		storages, err := r.cfg.Store.Storages().List(ctx, store.Scope{Parent: id})
		if err != nil {
			return err
		}
		for _, s := range storages {
			if err := r.cfg.Store.Storages().Delete(ctx, s.ID); err != nil {
				return err
			}
		}
		if err := r.cfg.Release(id); err != nil {
			// A replica that nobody knows may be in it; the next start of the server tries again.
			r.cfg.Log.Warn("a deleted environment keeps its addresses", "environment", id.Base(), "err", err)
		}
		if err := r.cfg.Store.Environments().Delete(ctx, id); err != nil {
			return err
		}
	case resource.InProgress:
		_, err := r.cfg.Store.Environments().Put(ctx, id, func(e *resource.Environment, exists bool) error {
			if !exists {
				return fmt.Errorf("environment %s: %w", id.Base(), resource.ErrNotFound)
			}
			if e.DefaultDomain == "" {
				e.DefaultDomain = environmentDomain(id, r.cfg.Domain)
			}
			if e.Provisioning == resource.InProgress {
				e.Provisioning = resource.Succeeded
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, app := range apps {
			r.Touch(app.ID) // its tags hold for them too
		}
	}
	_, err = r.publish(ctx)
	return err
}
