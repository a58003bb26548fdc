// Package reconcile makes the running replicas match what users asked for. It works on one app, job or environment at a
// time and compares states instead of replaying events, so it can run at any time, any number of times, and again after
// a crash.
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
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"penstock/internal/jobplan"
	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/store"
)

// Images resolves references to images, with the credentials of an app.
type Images interface {
	Digest(ctx context.Context, keys resource.Keyring, ref string) (string, error)
}

// Routes publishes the routing table to ingresses and reports when they use it and when they no longer use a replica.
type Routes interface {
	Publish(t link.Table) (version uint64)
	Applied(ctx context.Context, version uint64) error
	Drained(ctx context.Context, version uint64, replica string) error
	// InFlight returns the requests on each replica, by name.
	InFlight() map[string]int
}

// Scaler decides how many replicas revisions have.
type Scaler interface {
	// Wanted returns how many replicas a revision of an app should have, and why. It is given the current replicas,
	// except those that are being removed. It must not block. When the answer changes, Touch is called for the app.
	Wanted(app resource.App, rev resource.Revision, replicas []resource.Replica) (n int, reason string)
	// Demand returns how many executions the events of a job want, if they have told something new. at is when they were
	// asked. It must not block. When there is something new, Touch is called for the job.
	Demand(job resource.Job, settings resource.Settings) (executions int, at time.Time, ok bool)
	// Forget drops a revision that should have no replicas, or a job that events do not start.
	Forget(id resource.ID)
}

// Recycler says which replicas must be replaced because their memory grows.
type Recycler interface {
	// Worn returns the replicas of a revision that must be replaced, the most urgent first, and for each the reason. It is
	// given the replicas that have not been told to stop. It must not block. When the answer changes, Touch is called for
	// the app.
	Worn(rev resource.Revision, replicas []resource.Replica) (names []string, why map[string]string)
	// Forget drops a revision that should have no replicas.
	Forget(revision resource.ID)
}

// unworn is a Recycler that replaces nothing.
type unworn struct{}

func (unworn) Worn(resource.Revision, []resource.Replica) ([]string, map[string]string) {
	return nil, nil
}

func (unworn) Forget(resource.ID) {}

// fixed is a Scaler that does not scale.
type fixed struct{}

func (fixed) Wanted(_ resource.App, rev resource.Revision, _ []resource.Replica) (int, string) {
	return max(1, rev.Template.Scale.Min), "minReplicas"
}

func (fixed) Demand(resource.Job, resource.Settings) (int, time.Time, bool) {
	return 0, time.Time{}, false
}

func (fixed) Forget(resource.ID) {}

// Config is what a Reconciler needs. Fields are required unless they say otherwise.
type Config struct {
	Store   *store.Store
	Runtime runtimes.Runtime
	Images  Images
	Routes  Routes
	// Scale decides how many replicas revisions have. If it is nil, they have minReplicas, and at least one.
	Scale Scaler
	// Recycle says which replicas must be replaced. If it is nil, none is.
	Recycle Recycler
	// Certificate finds or creates the certificate for a domain's host names, and returns when to ask for the next one.
	Certificate func(names []string) (cert link.Certificate, renew time.Time, err error)
	// Key decrypts the private key of an uploaded certificate, as PEM.
	Key func(resource.Certificate) ([]byte, error)
	// Addresses returns the addresses of an environment's replicas, and where they reach the ingress. They are zero if
	// replicas have no network of their own.
	Addresses func(environment resource.ID) (addresses netip.Prefix, gateway netip.Addr, err error)
	// Release frees the addresses of a deleted environment. It can be nil if environments have none.
	Release func(environment resource.ID) error
	// Expose lets replicas reach these ports of their gateways, and no others. It can be nil if there are no gateways.
	Expose func(ports []netip.AddrPort) error
	// Domain is the parent of the environments' domains.
	Domain string
	Emit   func(resource.Event)
	// Limits are the times after which new revisions are judged.
	Limits Limits
	// Created is called for each new revision, once or, after a crash, not at all. It must not block.
	Created func(resource.Revision)
	// Forget deletes what is stored about an app or a job besides its documents: its logs.
	Forget func(id resource.ID) error
	// Backoff is the pause between the tries of an execution. The zero value has the pauses of Kubernetes.
	Backoff jobplan.Backoff
	Log     *slog.Logger
}

const (
	workers = 4
	// A failed key is retried after firstRetry, doubling up to lastRetry.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Reconciler reconciles all apps, jobs and environments of a server.
type Reconciler struct {
	cfg   Config
	queue *queue

	mu      sync.Mutex
	retries map[string]time.Duration

	engine     snapshots
	departures departures
	courses    courses
	tasks      sync.WaitGroup // goroutines that wait for requests to end
	table      table
}

// New returns a Reconciler and starts nothing.
func New(cfg Config) *Reconciler {
	if cfg.Scale == nil {
		cfg.Scale = fixed{}
	}
	if cfg.Recycle == nil {
		cfg.Recycle = unworn{}
	}
	if cfg.Release == nil {
		cfg.Release = func(resource.ID) error { return nil }
	}
	if cfg.Expose == nil {
		cfg.Expose = func([]netip.AddrPort) error { return nil }
	}
	cfg.Limits = cfg.Limits.withDefaults()
	return &Reconciler{cfg: cfg, queue: newQueue(), retries: map[string]time.Duration{}, departures: departures{by: map[string]*departure{}}, courses: courses{by: map[string]*course{}}, table: newTable()}
}

// Touch requests a pass over an app, a job, an environment or a resource group. It never blocks.
func (r *Reconciler) Touch(id resource.ID) { r.queue.touch(id) }

// Run reconciles until ctx ends. It reconciles everything once before it publishes the first routes, so that ingresses
// keep their last table until there is a better one. Then it calls ready.
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
	if _, err := r.publish(ctx, resource.ID{}); err != nil {
		return err
	}
	ready()
	for revision := range watch {
		r.Touch(revision.Parent())
	}
	return nil
}

// first reconciles everything, and reports running replicas that belong to no document.
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
	groups, err := r.cfg.Store.Groups().List(ctx, store.Scope{})
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
	for _, g := range groups {
		all = append(all, g.ID)
	}
	for _, id := range all {
		r.once(ctx, id)
	}
	ends, err := r.cfg.Runtime.Ended(ctx)
	if err != nil {
		return nil, err
	}
	for _, end := range ends {
		if app := end.Revision.Parent(); !known[app.Key()] {
			r.once(ctx, app)
		}
	}
	replicas, err := r.cfg.Runtime.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	for _, replica := range replicas {
		if !known[replica.Revision.Parent().Key()] {
			r.cfg.Log.Warn("a running replica belongs to no app or job in the database; it is not touched",
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

// once reconciles id and schedules a retry if that fails.
func (r *Reconciler) once(ctx context.Context, id resource.ID) {
	var err error
	switch {
	case id.Is(resource.TypeApp):
		err = r.app(ctx, id)
	case id.Is(resource.TypeJob):
		err = r.job(ctx, id)
	case id.Is(resource.TypeEnvironment):
		err = r.environment(ctx, id)
	case id.Is(resource.TypeGroup):
		err = r.group(ctx, id)
	default:
		r.cfg.Log.Error("nothing reconciles this type", "id", id)
		return
	}
	if errors.Is(err, resource.ErrNotFound) {
		err = nil // deleted in the meantime
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

// group removes a deleted resource group when nothing is left in it.
func (r *Reconciler) group(ctx context.Context, id resource.ID) error {
	g, err := r.cfg.Store.Groups().Get(ctx, id)
	if err != nil || g.Deleted.IsZero() {
		return err
	}
	in := store.Scope{Subscription: id.Subscription, Group: id.Group}
	apps, err := r.cfg.Store.Apps().List(ctx, in)
	if err != nil || len(apps) > 0 {
		return err
	}
	jobs, err := r.cfg.Store.Jobs().List(ctx, in)
	if err != nil || len(jobs) > 0 {
		return err
	}
	environments, err := r.cfg.Store.Environments().List(ctx, in)
	if err != nil || len(environments) > 0 {
		return err
	}
	return r.cfg.Store.Groups().Delete(ctx, id)
}

// left requests passes over the environment and the group of an app or a job that is gone: if they are deleted, they wait
// for it.
func (r *Reconciler) left(id, environment resource.ID) {
	r.Touch(environment)
	r.Touch(resource.GroupID(id.Subscription, id.Group))
}

func (r *Reconciler) environment(ctx context.Context, id resource.ID) error {
	env, err := r.cfg.Store.Environments().Get(ctx, id)
	if err != nil {
		return err
	}
	switch env.Provisioning() {
	case resource.Deleting:
		apps, err := r.appsIn(ctx, id)
		if err != nil {
			return err
		}
		jobs, err := r.cfg.Store.Jobs().List(ctx, store.Scope{})
		if err != nil {
			return err
		}
		jobs = slices.DeleteFunc(jobs, func(j resource.Job) bool { return !j.Environment.Equal(id) })
		if len(apps)+len(jobs) > 0 {
			return nil // they are being deleted too; the last one requests another pass
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
			// An unknown replica may still use them. The next start of the server tries again.
			r.cfg.Log.Warn("a deleted environment keeps its addresses", "environment", id.Base(), "err", err)
		}
		if err := r.cfg.Store.Environments().Delete(ctx, id); err != nil {
			return err
		}
		r.Touch(resource.GroupID(id.Subscription, id.Group))
	case resource.InProgress:
		_, err := r.cfg.Store.Environments().Observe(ctx, id, func(_ resource.Environment, status *resource.EnvironmentStatus) error {
			if status.DefaultDomain == "" {
				status.DefaultDomain = environmentDomain(id, r.cfg.Domain)
			}
			status.Progress = resource.Progress{Observed: env.Generation}
			return nil
		})
		if err != nil {
			return err
		}
		apps, err := r.appsIn(ctx, id)
		if err != nil {
			return err
		}
		for _, app := range apps {
			r.Touch(app.ID) // the environment's tags apply to them too
		}
	}
	if _, err := r.publish(ctx, id); err != nil {
		return err
	}
	if renew := r.table.renewal(id); !renew.IsZero() {
		// The machine's clock can be changed, or the machine suspended, in the meantime.
		r.queue.later(id, min(time.Until(renew), renewalCheck))
	}
	return nil
}

// renewalCheck is the longest time between two checks of an environment's certificate.
const renewalCheck = 24 * time.Hour

func (r *Reconciler) appsIn(ctx context.Context, environment resource.ID) ([]resource.App, error) {
	apps, err := r.cfg.Store.Apps().List(ctx, store.Scope{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(apps, func(a resource.App) bool { return !a.Environment.Equal(environment) }), nil
}
