package autoscale

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"sync"
	"time"

	"penstock/internal/decisions"
	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/scale"
)

// Config has what a Scaler needs. All fields are required.
type Config struct {
	// Demand waits for new demand on the ingresses and returns it by revision ID.
	Demand func(ctx context.Context) (map[string]link.Demand, error)
	// Usage returns what a replica uses now.
	Usage func(ctx context.Context, replica string) (runtimes.Usage, error)
	// Touch asks reconcile to look at an app because the count of a revision has changed. It must not block.
	Touch func(app resource.ID)
	Emit  func(resource.Event)
	// Record stores a decision. It must not block.
	Record func(decisions.Decision)
	// Secrets returns the secrets of an app or a job by name, for the rules that use them.
	Secrets func(ctx context.Context, owner resource.ID) (map[string]resource.Secret, error)
	// Dial connects to the address of an external source, which can be an app of the environment.
	Dial func(ctx context.Context, environment resource.ID, address string) (net.Conn, error)
	// Roots are the certificates that external sources are verified with. Nil means those of the machine.
	Roots *x509.CertPool
	// Learned is the file that keeps the learned times across restarts.
	Learned string
	Log     *slog.Logger
}

// Scaler keeps a decider for each revision that can have replicas.
type Scaler struct {
	cfg  Config
	kick chan struct{} // has an element when a decision is due
	// changed has an element when sources may have to be started or stopped.
	changed chan struct{}

	mu        sync.Mutex
	revisions map[string]*revision // by key
	jobs      map[string]*job      // started by events; by key
	learned   map[string]learned   // by key; read from the file and not used yet

	saved []byte // content of the file; used only by the goroutine in Run
}

// revision is what is kept for one revision.
type revision struct {
	id      resource.ID
	rev     resource.Revision // as reconcile passed it last
	decider *scale.Decider
	policy  scale.Policy

	current, ready int                      // replicas at the last call of Wanted
	held           int                      // of current, those that wait for room on the machine
	heldBy         string                   // what they wait for
	seen           map[string]bool          // by replica name: whether it has been ready
	late           map[string]bool          // by replica name: it has waited for room or was found running, so it says nothing about how long a start takes
	load           scale.Load               // since the last decision
	starts         []time.Duration          // since the last decision
	readings       map[string]scale.Reading // of cpu and memory rules
	gauge          gauge
	sources        map[string]*sourceState // of external rules, by their name

	wanted int
	reason string
	last   scale.Decision
	next   time.Time // when to decide again

	recorded scale.Decision // the last decision that was recorded
}

// recordEvery is the minimum time between records of decisions that change the rule or bound but not the count.
const recordEvery = time.Minute

// New reads the learned times and starts nothing.
func New(cfg Config) *Scaler {
	known, err := load(cfg.Learned)
	if err != nil {
		cfg.Log.Warn("the saved request and start times cannot be used; they are measured again", "err", err)
		known = map[string]learned{}
	}
	return &Scaler{cfg: cfg, kick: make(chan struct{}, 1), changed: make(chan struct{}, 1), revisions: map[string]*revision{}, jobs: map[string]*job{}, learned: known}
}

// Wanted returns how many replicas a revision of an app should have now. Reconcile calls it at each pass with the
// replicas that run or were ordered, without those that are leaving. It does not block.
func (s *Scaler) Wanted(app resource.App, rev resource.Revision, replicas []resource.Replica) (n int, reason string) {
	now := time.Now()
	p := policy(app, rev)
	s.mu.Lock()
	defer s.mu.Unlock()
	key := rev.ID.Key()
	r := s.revisions[key]
	if r == nil {
		r = &revision{id: rev.ID, decider: scale.New(p, s.resumed(key)), policy: p, sources: map[string]*sourceState{}}
		r.wanted = min(max(len(replicas), s.before(app, rev), p.Min), p.Max)
		r.reason = "the rules have not been evaluated yet"
		r.decider.Resume(now, r.wanted)
		s.revisions[key] = r
		s.due(r, now)
		s.sourcesChanged()
	}
	if !reflect.DeepEqual(p, r.policy) {
		r.decider.SetPolicy(p)
		r.policy = p
		s.due(r, now)
		s.sourcesChanged()
	}
	if r.rev.Ready.IsZero() && !rev.Ready.IsZero() {
		r.decider.Resume(now, r.wanted) // the cool-down period begins when the revision can serve
	}
	r.rev = rev
	if r.observe(replicas) {
		s.due(r, now)
	}
	return r.wanted, r.reason
}

// before returns the count that a new revision starts with. In Single mode it is the count of the revision that it
// replaces.
func (s *Scaler) before(app resource.App, rev resource.Revision) int {
	if !rev.Ready.IsZero() {
		return 0 // the revision had a count of its own
	}
	if app.Configuration.Mode != resource.Multiple {
		for _, other := range s.revisions {
			if other.id.Parent().Key() == app.ID.Key() && other.id.Key() != rev.ID.Key() && !other.rev.Ready.IsZero() {
				return max(1, other.wanted)
			}
		}
	}
	return 1
}

// Forget drops a revision that can have no replicas any more, or a job that events start no more.
func (s *Scaler) Forget(id resource.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := id.Key()
	delete(s.learned, key)
	if s.revisions[key] != nil || s.jobs[key] != nil {
		delete(s.revisions, key)
		delete(s.jobs, key)
		s.sourcesChanged()
	}
}

// observe stores the current replicas, and reports whether their number has changed.
func (r *revision) observe(replicas []resource.Replica) (changed bool) {
	ready, held, heldBy := 0, 0, ""
	late := map[string]bool{}
	seen := make(map[string]bool, len(replicas))
	for _, replica := range replicas {
		is := replica.State == resource.ReplicaReady
		if replica.WaitsForRoom() {
			held, heldBy = held+1, cmp.Or(heldBy, replica.Reason)
		}
		if replica.WaitsForRoom() || r.late[replica.Name] || r.seen == nil { // nil: this is the first look
			late[replica.Name] = true
		}
		if is {
			ready++
			if was, known := r.seen[replica.Name]; known && !was && !late[replica.Name] && !replica.ReadySince.IsZero() {
				r.starts = append(r.starts, replica.ReadySince.Sub(replica.Created))
			}
		}
		seen[replica.Name] = is || r.seen[replica.Name]
	}
	changed = r.current != len(replicas) || r.ready != ready
	r.current, r.ready, r.seen = len(replicas), ready, seen
	r.held, r.heldBy, r.late = held, heldBy, late
	return changed
}

// due schedules a decision for r now. It is called with mu held.
func (s *Scaler) due(r *revision, now time.Time) {
	r.next = now
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run makes decisions until ctx ends.
func (s *Scaler) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.listen(ctx) })
	wg.Go(func() { s.measure(ctx) })
	wg.Go(func() { s.follow(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.kick:
		case <-save.C:
			s.save()
			continue
		case <-ctx.Done():
			s.save()
			return nil
		}
		timer.Reset(time.Until(s.decide(time.Now())))
	}
}

// listen receives the demand on the ingresses.
func (s *Scaler) listen(ctx context.Context) {
	for {
		news, err := s.cfg.Demand(ctx)
		if err != nil {
			return
		}
		now := time.Now()
		s.mu.Lock()
		for id, d := range news {
			if r := s.find(id); r != nil {
				r.take(d)
				s.due(r, now)
			}
		}
		s.mu.Unlock()
	}
}

func (s *Scaler) find(id string) *revision {
	parsed, err := resource.ParseID(id)
	if err != nil {
		return nil
	}
	return s.revisions[parsed.Key()]
}

func (r *revision) take(d link.Demand) {
	r.load.Arrived += d.Arrivals
	r.load.Completed += d.Ended
	r.load.Served += d.Served
	r.load.Busy += d.Busy
	r.load.InFlight, r.load.Waiting, r.load.Open = d.Now, d.Queued, d.Open
	r.load.Measured = d.Measured
}

// longest is the time between two rounds when nothing is due.
const longest = time.Minute

// decide makes the decisions that are due, and returns when the next one is due.
func (s *Scaler) decide(now time.Time) (next time.Time) {
	var told []func()
	s.mu.Lock()
	next = now.Add(longest)
	for _, r := range s.revisions {
		if !r.next.After(now) {
			if tell := s.one(r, now); tell != nil {
				told = append(told, tell)
			}
		}
		if r.next.Before(next) {
			next = r.next
		}
	}
	s.mu.Unlock()
	for _, tell := range told {
		tell()
	}
	return next
}

// one decides for r. It returns a function that reports the decision, to be called without the lock, or nil.
func (s *Scaler) one(r *revision, now time.Time) (tell func()) {
	d := r.decider.Decide(scale.Sample{At: now, Current: r.wanted, Load: r.load, Readings: r.measurements(), Starts: r.starts})
	r.starts = nil
	r.load = scale.Load{InFlight: r.load.InFlight, Waiting: r.load.Waiting, Open: r.load.Open}
	was := r.wanted
	r.wanted, r.reason, r.last, r.next = d.Wanted, d.Reason, d, d.Next
	other := (d.Rule != r.recorded.Rule || d.Bound != r.recorded.Bound) && now.Sub(r.recorded.At) >= recordEvery
	if d.Wanted == was && !other {
		return nil
	}
	r.recorded = d
	kept := record(r.id, r.policy, was, d)
	if d.Wanted == was {
		return func() { s.cfg.Record(kept) }
	}
	event := rescaled(r.id, was, d)
	return func() {
		s.cfg.Record(kept)
		s.cfg.Emit(event)
		s.cfg.Touch(r.id.Parent())
	}
}

// record returns a decision in the form that is stored.
func record(rev resource.ID, p scale.Policy, was int, d scale.Decision) decisions.Decision {
	out := decisions.Decision{
		At: d.At.UTC(), App: rev.Parent(), Revision: rev.Base(), Behaviour: string(p.Behaviour),
		Rule: d.Rule, Wanted: d.Desired, Bound: string(d.Bound), From: was, To: d.Wanted, Reason: d.Reason,
	}
	for _, w := range d.Wishes {
		if w.Rule == d.Rule {
			out.Value, out.Target = w.Value, w.Target
		}
	}
	return out
}

// rescaled returns the event of a change, with Azure's names.
func rescaled(rev resource.ID, was int, d scale.Decision) resource.Event {
	e := resource.Event{At: d.At.UTC(), App: rev.Parent(), Revision: rev.Base(), Source: "Scaling"}
	switch {
	case was == 0:
		e.Reason, e.Message = "KEDAScaleTargetActivated", fmt.Sprintf("Scaled revision %q from 0 to %d: %s", rev.Base(), d.Wanted, d.Reason)
	case d.Wanted == 0:
		e.Reason, e.Message = "KEDAScaleTargetDeactivated", fmt.Sprintf("Scaled revision %q from %d to 0: %s", rev.Base(), was, d.Reason)
	default:
		e.Reason, e.Message = "SuccessfulRescale", fmt.Sprintf("Scaled revision %q from %d to %d: %s", rev.Base(), was, d.Wanted, d.Reason)
	}
	return e
}

// Counts lists how many replicas each revision should have. It has only revisions that can have replicas.
func (s *Scaler) Counts() []scale.Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]scale.Count, 0, len(s.revisions))
	for _, r := range s.revisions {
		list = append(list, scale.Count{Revision: r.id, Wanted: r.wanted, Reason: r.reason})
	}
	return list
}

// Explain says why a revision has its number of replicas. ok is false if it can have none.
func (s *Scaler) Explain(id resource.ID) (e scale.Explanation, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.revisions[id.Key()]
	if r == nil {
		return e, false
	}
	return scale.Explanation{
		Policy: r.policy, Wanted: r.wanted, Current: r.current, Ready: r.ready, Held: r.held, HeldBy: r.heldBy, Last: r.last,
		Learned: r.decider.State().Learned,
	}, true
}
