// Package recycle observes the memory of replicas. It reports leaks, and says which replicas reconcile must replace before they
// reach their memory limit. Package leak decides; this package measures, and passes the decisions on.
//
//	reconcile ──► Worn(revision, replicas) ──► a leak.Trace for each container ◄── Usage, every 0.5 to 30 s
//	    ▲                                          │
//	    └────────── Touch(app) ◄───────────────────┴──► events, Explain
package recycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"penstock/internal/leak"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// Config has what a Watcher needs. All fields are required.
type Config struct {
	// Usage returns what a replica uses now.
	Usage func(ctx context.Context, replica string) (runtimes.Usage, error)
	// Touch asks reconcile to look at an app because one of its replicas must be replaced. It must not block.
	Touch func(app resource.ID)
	Emit  func(resource.Event)
	Log   *slog.Logger
}

const (
	// The longest time between two looks at a container. With penstock.recycle a leak that begins suddenly is seen sooner.
	restingLook  = 30 * time.Second
	recycledLook = 5 * time.Second
	// restingShare is the time between two moments at which replicas are looked at that rest.
	restingShare = 6 * time.Second
	// Without the tag nothing depends on the first minutes of a replica that is not known to leak, so it is looked at more often
	// only when it grows.
	leastLook = 10 * time.Second
	// A new replica needs leadMargin to take the place of an old one, and twice the time that a start takes.
	leadMargin = 30 * time.Second
	// longestStart bounds the time that a start is assumed to take.
	longestStart = 10 * time.Minute
	// A leak is reported again when it is so many times faster than reported.
	faster = 2
)

// Watcher observes the replicas of all revisions that can have some.
type Watcher struct {
	cfg  Config
	kick chan struct{} // has an element when there is something new to look at

	mu        sync.Mutex
	began     time.Time            // of the first call of Worn
	revisions map[string]*revision // by key
}

type revision struct {
	id       resource.ID
	share    int // percent; 0: its replicas are not replaced
	start    time.Duration
	known    bool                // it has reached its limit before
	again    bool                // a replica was replaced while it may have been warming up
	futile   bool                // it was reported that the share is too low
	reported map[string]int64    // growth per hour that was reported, by container
	replicas map[string]*replica // by name
}

type replica struct {
	name       string
	ready      bool
	containers map[string]*container // by name
	next       time.Time             // when to look
	worn       time.Time             // when it was found to need a successor; zero if it does not
	why        string
}

type container struct {
	started time.Time // of its process
	ready   time.Time // when its replica was ready after that; zero until then
	trace   *leak.Trace
}

// New returns a Watcher and starts nothing.
func New(cfg Config) *Watcher {
	return &Watcher{cfg: cfg, kick: make(chan struct{}, 1), revisions: map[string]*revision{}}
}

// Worn returns the replicas of a revision that must be replaced before they reach their memory limit, in the order in which that
// was found, and for each the reason. Reconcile calls it at each pass with the replicas that have not been told to stop. It does
// not block.
func (w *Watcher) Worn(rev resource.Revision, replicas []resource.Replica) (names []string, why map[string]string) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.began.IsZero() {
		w.began = now
	}
	r := w.revisions[rev.ID.Key()]
	if r == nil {
		r = &revision{id: rev.ID, reported: map[string]int64{}}
		w.revisions[rev.ID.Key()] = r
	}
	r.share = rev.Settings.Recycle
	before := r.replicas
	r.replicas = make(map[string]*replica, len(replicas))
	for _, one := range replicas {
		kept := before[one.Name]
		if kept == nil {
			kept = &replica{name: one.Name, containers: map[string]*container{}}
		}
		r.replicas[one.Name] = kept
		if r.observe(kept, one, w.began) {
			kept.next = now
			select {
			case w.kick <- struct{}{}:
			default:
			}
		}
	}
	var worn []*replica
	for _, one := range r.replicas {
		if !one.worn.IsZero() && r.share > 0 {
			worn = append(worn, one)
		}
	}
	slices.SortFunc(worn, func(a, b *replica) int {
		if c := a.worn.Compare(b.worn); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	for _, one := range worn {
		if why == nil {
			why = map[string]string{}
		}
		names, why[one.name] = append(names, one.name), one.why
	}
	return names, why
}

// observe notes which processes a replica has. It reports whether there is something new to look at. began is when this Watcher
// began to observe.
func (r *revision) observe(kept *replica, now resource.Replica, began time.Time) (look bool) {
	ready := now.State == resource.ReplicaReady
	if ready && !kept.ready && !now.ReadySince.IsZero() && !now.WaitsForRoom() {
		if start := now.ReadySince.Sub(now.Created); start > 0 && now.Restarts == 0 && !now.Created.Before(began) {
			r.start = min(start, longestStart)
		}
	}
	kept.ready = ready
	for _, s := range now.Containers {
		c := kept.containers[s.Name]
		if c == nil || !c.started.Equal(s.Started) {
			c = &container{started: s.Started, trace: &leak.Trace{}}
			kept.containers[s.Name] = c
			// The memory of the process that has ended is free.
			kept.worn, kept.why = time.Time{}, ""
		}
		if s.LastExit != nil && s.LastExit.OOM {
			r.known = true
		}
		if ready && c.ready.IsZero() {
			c.ready, look = now.ReadySince, true
			if s.Started.Before(began) {
				c.ready = s.Started // when it was ready first is not known
			}
		}
	}
	return look
}

// Forget drops a revision that should have no replicas.
func (w *Watcher) Forget(id resource.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.revisions, id.Key())
}

// Explain lists the memory of the containers of a revision, by replica and name.
func (w *Watcher) Explain(id resource.ID) (list []leak.Memory) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.revisions[id.Key()]
	if r == nil {
		return nil
	}
	for _, one := range r.replicas {
		for name, c := range one.containers {
			if trend := c.trace.Trend(); trend.Limit > 0 {
				list = append(list, leak.Memory{Replica: one.name, Container: name, Trend: trend, Worn: one.why})
			}
		}
	}
	slices.SortFunc(list, func(a, b leak.Memory) int {
		if c := strings.Compare(a.Replica, b.Replica); c != 0 {
			return c
		}
		return strings.Compare(a.Container, b.Container)
	})
	return list
}

// Run observes replicas until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-w.kick:
		case <-ctx.Done():
			return nil
		}
		timer.Reset(w.round(ctx, time.Now()))
	}
}

// round looks at the replicas whose time has come, and returns when the next one is due.
func (w *Watcher) round(ctx context.Context, now time.Time) time.Duration {
	type due struct {
		revision resource.ID
		replica  string
	}
	var list []due
	w.mu.Lock()
	for _, r := range w.revisions {
		for _, one := range r.replicas {
			if one.looked() && !one.next.After(now) {
				list = append(list, due{r.id, one.name})
			}
		}
	}
	w.mu.Unlock()
	for _, d := range list {
		u, err := w.cfg.Usage(ctx, d.replica)
		if ctx.Err() != nil {
			return restingLook
		}
		if err != nil && !errors.Is(err, resource.ErrNotFound) { // not found: it has ended
			w.cfg.Log.Warn("the memory of a replica cannot be read; it is tried again", "replica", d.replica, "err", err)
		}
		w.add(d.revision, d.replica, u)
	}
	next := restingLook
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.revisions {
		for _, one := range r.replicas {
			if one.looked() {
				next = min(next, time.Until(one.next))
			}
		}
	}
	return max(next, 0)
}

// looked reports whether there is a process to look at. Before a replica is ready, its growth means nothing.
func (one *replica) looked() bool {
	for _, c := range one.containers {
		if !c.ready.IsZero() {
			return true
		}
	}
	return false
}

// add adds what a replica uses to its traces, and does what follows.
func (w *Watcher) add(id resource.ID, name string, u runtimes.Usage) {
	now := time.Now()
	var events []resource.Event
	touch := false
	w.mu.Lock()
	r := w.revisions[id.Key()]
	if r == nil || r.replicas[name] == nil {
		w.mu.Unlock()
		return // it has gone meanwhile
	}
	one := r.replicas[name]
	most := restingLook
	if r.share > 0 {
		most = recycledLook
	}
	wait := most
	for _, m := range u.Containers {
		c := one.containers[m.Container]
		if c == nil || c.ready.IsZero() {
			continue
		}
		c.trace.Add(c.ready, now, clamp(m.Used), clamp(m.Limit))
		wait = min(wait, c.trace.Next(most))
		if r.share == 0 && !r.known {
			wait = max(wait, leastLook)
			if c.trace.Trend().PerHour == 0 {
				wait = most
			}
		}
		if e, ok := r.leaks(one, m.Container, c.trace.Trend()); ok {
			events = append(events, e)
		}
		if e, ok := r.wears(one, m.Container, c.trace, now); ok {
			events, touch = append(events, e), true
		}
		if r.share > 0 && !r.futile && c.trace.Above(r.share) {
			r.futile = true
			events = append(events, r.event(one, "RecycleShareTooLow", true, fmt.Sprintf("Container '%s' needs %s of its limit of %s even without a leak, which is more than the %d %% of penstock.recycle. "+
				"Its replica is replaced only when it grows further. Give the container more memory, or set a higher share.", m.Container, bytes(clamp(m.Used)), bytes(clamp(m.Limit)), r.share)))
		}
	}
	if one.next = now.Add(wait); wait == restingLook {
		// At moments that many replicas share: a process that wakes up less often uses less CPU time.
		one.next = one.next.Add(one.next.Round(restingShare).Sub(one.next)) // and keep the monotonic clock
	}
	w.mu.Unlock()
	for _, e := range events {
		w.cfg.Emit(e)
	}
	if touch {
		w.cfg.Touch(id.Parent())
	}
}

// leaks returns an event about a leak that was not reported, or was reported as much slower. The replicas of a revision leak alike,
// so it is reported for one of them.
func (r *revision) leaks(one *replica, name string, trend leak.Trend) (e resource.Event, ok bool) {
	// A revision that has reached its limit before does not only warm up.
	if certain := trend.Certain || r.known && trend.PerHour > 0 && trend.Over >= trend.Left; !certain {
		return e, false
	}
	if trend.PerHour < faster*r.reported[name] || trend.PerHour == 0 {
		return e, false
	}
	r.reported[name] = trend.PerHour
	advice := "Set the tag penstock.recycle to have replicas replaced before that."
	if r.share > 0 {
		advice = fmt.Sprintf("It is replaced before that, at %d %% (penstock.recycle).", r.share)
	}
	return r.event(one, "MemoryLeak", true, fmt.Sprintf("The memory of container '%s' has grown by %s an hour for %s. It uses %s of %s and reaches the limit in about %s. %s",
		name, bytes(trend.PerHour), about(trend.Over), bytes(trend.Used), bytes(trend.Limit), about(trend.Left), advice)), true
}

// wears decides whether a replica must be replaced, and returns an event if it must.
func (r *revision) wears(one *replica, name string, trace *leak.Trace, now time.Time) (e resource.Event, ok bool) {
	if r.share == 0 || !one.worn.IsZero() || !one.ready {
		return e, false
	}
	worn := trace.Worn(leak.Policy{Share: r.share, Lead: 2*r.start + leadMargin, Known: r.known, Again: r.again})
	if worn == leak.Fits {
		return e, false
	}
	trend := trace.Trend()
	one.worn = now
	one.why = fmt.Sprintf("container '%s' uses %s of its memory limit of %s", name, bytes(trend.Used), bytes(trend.Limit))
	switch worn {
	case leak.Warming:
		r.again = true
	case leak.LimitNear:
		one.why += fmt.Sprintf(" and reaches it in about %s", about(trend.Left))
	}
	return r.event(one, "ReplicaRecycling", false, fmt.Sprintf("Replica %q is replaced: %s. A new one is started; when that is ready, this one gets no more requests and ends after its last one.", one.name, one.why)), true
}

func (r *revision) event(one *replica, reason string, warning bool, message string) resource.Event {
	return resource.Event{
		At: time.Now().UTC(), Warning: warning, App: r.id.Parent(), Revision: r.id.Base(), Replica: one.name, Reason: reason, Message: message, Source: "Memory",
	}
}

func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// bytes formats an amount of memory.
func bytes(n int64) string {
	mib := float64(n) / (1 << 20)
	if mib >= 10 {
		return fmt.Sprintf("%.0f MiB", mib)
	}
	return strconv.FormatFloat(math.Round(mib*10)/10, 'f', -1, 64) + " MiB"
}

// about formats a duration with the precision of an estimate.
func about(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	case d >= time.Hour:
		return strings.TrimSuffix(d.Round(10*time.Minute).String(), "0s")
	case d >= 2*time.Minute:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return d.Round(time.Second).String()
}
