package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"penstock/internal/resource"
)

// Limits are the times after which a new revision is judged.
type Limits struct {
	// StayUp is how long the containers of a new revision that have no startup or readiness probe must run before the
	// revision counts as ready. A program that ends at once is "ready" for a moment, and must not replace one that works.
	StayUp time.Duration
	// Stalled is how long a write waits for a new revision that makes no progress.
	Stalled time.Duration
	// Unhealthy is the same with Azure's behaviour. The write succeeds then, and the revision is unhealthy: Azure
	// answered after 4 to 20 s.
	Unhealthy time.Duration
}

// withDefaults returns l with the default in place of each limit that is 0. That of StayUp is none.
func (l Limits) withDefaults() Limits {
	return Limits{StayUp: l.StayUp, Stalled: cmp.Or(l.Stalled, time.Minute), Unhealthy: cmp.Or(l.Unhealthy, 10*time.Second)}
}

// provisionLimit is how long a write waits for a revision that still makes progress. It ends the operation, not the
// revision: that keeps starting, and a later success counts. The same is true for the Limits.
const provisionLimit = 20 * time.Minute

const (
	// progressCheck is the time between two looks at what a starting revision uses.
	progressCheck = 5 * time.Second
	// A program that loads a model reads and allocates: its memory grows by more than progressMemory, or it takes more
	// than this share of a core. One that waits for requests does neither.
	progressMemory = 1 << 20
	progressCPU    = 0.03
)

// courses remember how far new revisions have come. After a restart of the process they begin anew.
type courses struct {
	mu sync.Mutex
	by map[string]*course // by the key of the revision
}

// course is the last progress of a revision.
type course struct {
	at     time.Time
	mark   string // what its replicas do
	cpu    time.Duration
	memory uint64
}

func (c *courses) forget(revision resource.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.by, revision.Key())
}

// idle returns for how long a new revision has made no progress. A write of its app counts as progress.
func (r *Reconciler) idle(ctx context.Context, app resource.App, rev resource.Revision, replicas []resource.Replica) time.Duration {
	now := time.Now()
	var mark strings.Builder
	fmt.Fprint(&mark, app.Generation)
	seen := course{at: now}
	busy := false // something runs that the engine bounds itself: a pull, an init container
	for _, replica := range replicas {
		fmt.Fprint(&mark, " ", replica.Name, replica.State, replica.Restarts)
		busy = busy || replica.State == resource.ReplicaCreating
		if u, err := r.cfg.Runtime.Usage(ctx, replica.Name); err == nil { // otherwise it has no containers
			seen.cpu += time.Duration(u.CPUNanos)
			seen.memory += u.WorkingSet
		}
	}
	seen.mark = mark.String()
	key := rev.ID.Key()
	r.courses.mu.Lock()
	defer r.courses.mu.Unlock()
	was := r.courses.by[key]
	if was == nil || busy || seen.mark != was.mark || seen.memory > was.memory+progressMemory ||
		(seen.cpu-was.cpu).Seconds() > progressCPU*max(progressCheck, now.Sub(was.at)).Seconds() {
		r.courses.by[key] = &seen
		return 0
	}
	return now.Sub(was.at)
}

// isStarting reports whether a revision has never been ready and may still become so by itself.
func isStarting(rev resource.Revision, v verdict) bool {
	return rev.Ready.IsZero() && v.state == resource.RevisionActivating
}
