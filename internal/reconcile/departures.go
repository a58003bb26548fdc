package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"penstock/internal/resource"
)

// departures are the replicas that are being removed. Once a replica is in it, no table routes to the replica. The
// replica is stopped when no ingress has a request on it any more.
type departures struct {
	mu sync.Mutex
	by map[string]*departure // by replica
}

type departure struct {
	app    string // key
	began  time.Time
	cancel context.CancelFunc // nil until somebody waits for its requests
	done   bool               // no request is left, or the drain limit has passed
}

// set makes going the app's replicas that are being removed. A replica that is no longer among them stays.
func (d *departures) set(app resource.ID, going []resource.Replica) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key, named := app.Key(), map[string]bool{}
	for _, replica := range going {
		named[replica.Name] = true
		if d.by[replica.Name] == nil {
			d.by[replica.Name] = &departure{app: key, began: time.Now()}
		}
	}
	for name, one := range d.by {
		if one.app != key || named[name] {
			continue
		}
		if one.cancel != nil {
			one.cancel()
		}
		delete(d.by, name)
	}
}

func (d *departures) has(replica string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.by[replica] != nil
}

// done returns the replicas that can be stopped.
func (d *departures) done(replicas []resource.Replica) (names []string, since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, replica := range replicas {
		one := d.by[replica.Name]
		if one == nil || !one.done {
			continue
		}
		names = append(names, replica.Name)
		if since.IsZero() || one.began.Before(since) {
			since = one.began
		}
	}
	return names, since
}

// depart waits in the background for the requests on replicas that are being removed, at most until limit, and then
// triggers another pass over their app. version is a table that routes to none of them.
func (r *Reconciler) depart(ctx context.Context, rev resource.Revision, going []resource.Replica, version uint64, limit time.Duration) {
	for _, replica := range going {
		r.departures.mu.Lock()
		one := r.departures.by[replica.Name]
		if one == nil || one.cancel != nil {
			r.departures.mu.Unlock()
			continue
		}
		drain, cancel := context.WithTimeout(ctx, limit)
		one.cancel = cancel
		r.departures.mu.Unlock()
		r.tasks.Go(func() {
			defer cancel()
			err := r.cfg.Routes.Drained(drain, version, replica.Name)
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				r.warn(rev.App(), rev.Name(), "DrainLimitReached", fmt.Sprintf("requests on replica %s had not ended after %s; they are cut", replica.Name, limit))
			case err != nil:
				return // it stays after all, or the server stops
			}
			r.departures.mu.Lock()
			one.done = true
			r.departures.mu.Unlock()
			r.Touch(rev.App())
		})
	}
}

// remove stops the replicas of a revision that is no longer wanted, once none of them has a request.
func (r *Reconciler) remove(ctx context.Context, rev resource.Revision, going []resource.Replica) error {
	done, since := r.departures.done(going)
	if len(going) == 0 || len(done) < len(going) {
		return nil
	}
	if err := r.cfg.Runtime.Remove(ctx, rev.ID); err != nil {
		return fmt.Errorf("remove revision %s: %w", rev.Name(), err)
	}
	r.emit(rev.App(), rev.Name(), "RevisionDrained", fmt.Sprintf("No request is left on revision %q", rev.Name()), time.Since(since))
	return nil
}
