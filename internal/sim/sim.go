// Package sim simulates a revision in virtual time under a trace of requests. It runs the server's own code: the
// decider of package scale and the queue of package ingress/room. It is pure, so the same input gives the same result.
//
//	trace ──► room (slots, queue) ──► served after its service time
//	            │ ▲
//	     Load   ▼ │ replicas that are ready
//	          scale.Decider ──► starts and stops of replicas
package sim

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"
	"time"

	"penstock/internal/ingress/room"
	"penstock/internal/resource"
	"penstock/internal/scale"
)

// Request is one request of a trace.
type Request struct {
	At      time.Duration // since the start of the trace; requests are in this order
	Service time.Duration // time on a replica that has a free slot
}

// Config configures a run.
type Config struct {
	Policy   scale.Policy
	Settings resource.Settings
	// Learned is what is known of the revision before the first request.
	Learned scale.Learned
	// Replicas are ready at the start.
	Replicas int
	// Start returns how long the n-th start takes, from the order of a replica until it is ready. n counts from 0.
	Start func(n int) time.Duration
	// Slots is how many requests a replica works on at once. Further requests wait inside it, in order. 0 means no
	// limit.
	Slots int
	// Tail is how long the run continues after the last request has ended.
	Tail time.Duration
}

// Result is the outcome of a run.
type Result struct {
	Served  int
	Refused map[room.Reason]int
	// Waits are how long each served request waited for a replica, and Times how long it took in all. Both are in the
	// order in which requests ended.
	Waits, Times []time.Duration
	// ReplicaTime is the sum of the replicas' lifetimes, each from its order to its end.
	ReplicaTime time.Duration
	// Starts counts the replicas that were ordered, and ColdStarts those that were ordered while there were none.
	Starts, ColdStarts int
	MostReplicas       int
	Counts             []Count
	End                time.Duration
}

// Count is the number of replicas from a time on.
type Count struct {
	At time.Duration
	N  int
}

// ErrTrace is wrapped by errors about an invalid trace.
var ErrTrace = errors.New("trace")

// epoch is where virtual time begins. Any time will do.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Run simulates trace with c.
func Run(c Config, trace []Request) (Result, error) {
	if c.Start == nil {
		return Result{}, errors.New("config: want Start, got nil")
	}
	for i, r := range trace {
		if r.At < 0 || i > 0 && r.At < trace[i-1].At {
			return Result{}, fmt.Errorf("%w: request %d comes at %v, before the one before it", ErrTrace, i, r.At)
		}
		if r.Service < 0 {
			return Result{}, fmt.Errorf("%w: request %d: want a service time of at least 0, got %v", ErrTrace, i, r.Service)
		}
	}
	s := &run{Config: c, decider: scale.New(c.Policy, scale.State{Learned: c.Learned}), room: room.New(epoch), reported: -reportEvery}
	s.result.Refused = map[room.Reason]int{}
	for range c.Replicas {
		s.replicas = append(s.replicas, &replica{name: s.name(), ready: true})
	}
	s.count()
	s.update()
	for _, r := range trace {
		s.until(r.At)
		s.arrive(r)
	}
	s.until(never)
	for _, r := range s.replicas {
		s.result.ReplicaTime += s.now - r.ordered
	}
	s.result.End = s.now
	return s.result, nil
}

// never is later than any event.
const never = time.Duration(1<<63 - 1)

type run struct {
	Config
	decider *scale.Decider
	room    *room.Room
	result  Result

	now      time.Duration
	named    int
	replicas []*replica // oldest first, including those that leave
	leaving  int
	events   events
	look     time.Duration // when the decider wants to decide next

	load     scale.Load // that was reported since the last decision
	ended    int        // requests since the last report, and served is how long they were on replicas
	served   time.Duration
	starts   []time.Duration
	before   room.Measure  // of the last report
	reported time.Duration // when that was
	told     int           // how many requests it said there were
	news     bool          // there is something to report before the next second
	lined    bool          // requests waited after the last event
	last     time.Duration // time of the last request event
	open     int           // requests that have not ended
}

// replica is a replica, from its order to its end.
type replica struct {
	name    string
	ordered time.Duration
	ready   bool
	gone    bool // cancelled or told to stop
	working int
	queue   []*request // requests assigned to it that have no slot
}

type request struct {
	Request
	ticket room.Ticket
	place  time.Duration // when it was assigned to a replica
	on     *room.Replica
}

func (s *run) time() time.Time { return epoch.Add(s.now) }

func (s *run) name() string {
	s.named++
	return fmt.Sprintf("r%d", s.named)
}

// event is something that happens at a time: a request ends, or a replica becomes ready.
type event struct {
	at    time.Duration
	order int
	what  func()
}

type events struct {
	list []event
	n    int
}

func (e *events) Len() int { return len(e.list) }
func (e *events) Less(i, j int) bool {
	return e.list[i].at < e.list[j].at || e.list[i].at == e.list[j].at && e.list[i].order < e.list[j].order
}
func (e *events) Swap(i, j int) { e.list[i], e.list[j] = e.list[j], e.list[i] }
func (e *events) Push(x any)    { e.list = append(e.list, x.(event)) }
func (e *events) Pop() any {
	last := e.list[len(e.list)-1]
	e.list = e.list[:len(e.list)-1]
	return last
}

func (s *run) later(at time.Duration, what func()) {
	s.events.n++
	heap.Push(&s.events, event{at, s.events.n, what})
}

// until runs the simulation up to end.
func (s *run) until(end time.Duration) {
	for {
		next := min(s.look, s.reportAt())
		if len(s.events.list) > 0 && s.events.list[0].at <= next {
			next = s.events.list[0].at
		}
		late, waits := s.room.NextDeadline()
		if waits {
			next = min(next, late.Sub(epoch))
		}
		if end == never && s.open == 0 && next > s.last+s.Tail {
			s.now = max(s.now, s.last+s.Tail)
			return
		}
		if next >= end {
			s.now = end
			return
		}
		s.now = next
		if waits && !late.After(s.time()) {
			s.room.Expire(s.time())
			s.settle()
		}
		changed := false // replicas that are ready
		for len(s.events.list) > 0 && s.events.list[0].at <= s.now {
			heap.Pop(&s.events).(event).what()
			changed = changed || len(s.starts) > 0
		}
		s.notice()
		if reports := s.now >= s.reportAt() && s.report(); reports || changed || s.now >= s.look {
			s.decide()
		}
	}
}

// An ingress reports when there is news, but not more often than reportPause, and each reportEvery.
const (
	reportPause = 5 * time.Millisecond
	reportEvery = time.Second
)

// reportAt is when the ingress reports next.
func (s *run) reportAt() time.Duration {
	if s.news {
		return max(s.now, s.reported+reportPause)
	}
	if s.open == 0 && s.told == 0 && s.ended == 0 {
		return never
	}
	return max(s.reported.Truncate(reportEvery)+reportEvery, (s.now + reportEvery - 1).Truncate(reportEvery))
}

// notice finds out, after an event, whether there is news: more requests than replicas should have, or the end of a line.
func (s *run) notice() {
	waiting := s.room.Waiting()
	if s.room.Grown(s.room.InFlight()+waiting, s.told) || s.lined && waiting == 0 {
		s.news = true
	}
	s.lined = waiting > 0
}

// report tells the decider's side what the room has counted, and says whether there is anything to decide about.
func (s *run) report() bool {
	m := s.room.Measure(s.time())
	arrived, busy := int(m.Arrivals-s.before.Arrivals), m.Busy-s.before.Busy
	before := s.told
	s.load.InFlight, s.load.Waiting = s.room.InFlight(), s.room.Waiting()
	s.load.Arrived += arrived
	s.load.Busy += busy
	s.load.Completed += s.ended
	s.load.Served += s.served
	s.load.Measured = s.time()
	s.told = s.load.InFlight + s.load.Waiting
	changed := arrived > 0 || s.ended > 0 || s.told > 0 || before > 0
	s.before, s.reported, s.news, s.ended, s.served = m, s.now, false, 0, 0
	return changed
}

func (s *run) arrive(r Request) {
	q := &request{Request: r}
	q.ticket = room.Ticket{Arrived: s.time(), Value: q}
	s.open++
	on, err := s.room.Claim(&q.ticket, s.time())
	switch refusal := (*room.Refusal)(nil); {
	case err == nil:
		s.give(q, on)
	case errors.Is(err, room.ErrWaits):
	case errors.As(err, &refusal):
		s.refuse(refusal)
	}
	s.notice()
}

func (s *run) refuse(r *room.Refusal) {
	s.result.Refused[r.Reason]++
	s.open--
	s.last = s.now
}

// settle handles tickets whose wait has ended.
func (s *run) settle() {
	for _, t := range slices.Clone(s.room.Settled()) {
		q := t.Value.(*request)
		on, err := t.Outcome()
		if refusal, ok := errors.AsType[*room.Refusal](err); ok {
			s.refuse(refusal)
		} else if err == nil {
			s.give(q, on)
		}
	}
}

// give assigns q to a replica.
func (s *run) give(q *request, on *room.Replica) {
	q.on, q.place = on, s.now
	r := on.Value.(*replica)
	if s.Slots > 0 && r.working >= s.Slots {
		r.queue = append(r.queue, q)
		return
	}
	s.work(r, q)
}

func (s *run) work(r *replica, q *request) {
	r.working++
	s.later(s.now+q.Service, func() {
		r.working--
		s.open--
		s.last = s.now
		s.result.Served++
		s.result.Waits = append(s.result.Waits, q.place-q.At)
		s.result.Times = append(s.result.Times, s.now-q.At)
		s.ended++
		s.served += s.now - q.place
		if len(r.queue) > 0 {
			next := r.queue[0]
			r.queue = r.queue[1:]
			s.work(r, next)
		}
		if s.room.Release(q.on, s.time()) {
			s.end(r)
		}
		s.settle()
	})
}

// decide calls the decider and applies its decision.
func (s *run) decide() {
	current := len(s.replicas) - s.leaving
	d := s.decider.Decide(scale.Sample{At: s.time(), Current: current, Load: s.load, Starts: s.starts})
	s.load, s.starts = scale.Load{InFlight: s.load.InFlight, Waiting: s.load.Waiting}, nil
	s.look = d.Next.Sub(epoch)
	for n := current; n < d.Wanted; n++ {
		s.order(current == 0)
	}
	if d.Wanted < current {
		s.shrink(current - d.Wanted)
	}
	if d.Wanted != current {
		s.count()
	}
}

func (s *run) count() {
	n := len(s.replicas) - s.leaving
	s.result.MostReplicas = max(s.result.MostReplicas, len(s.replicas))
	s.result.Counts = append(s.result.Counts, Count{s.now, n})
}

func (s *run) order(cold bool) {
	r := &replica{name: s.name(), ordered: s.now}
	s.replicas = append(s.replicas, r)
	took := max(0, s.Start(s.result.Starts))
	s.result.Starts++
	if cold {
		s.result.ColdStarts++
	}
	s.later(s.now+took, func() {
		if r.gone {
			return
		}
		r.ready = true
		s.starts = append(s.starts, took)
		s.update()
	})
}

// shrink stops n replicas: first those that are not ready, then the least loaded.
func (s *run) shrink(n int) {
	load := map[*replica]int{}
	for _, r := range s.room.Replicas() {
		load[r.Value.(*replica)] = r.InFlight()
	}
	var can []*replica
	for _, r := range s.replicas {
		if !r.gone {
			can = append(can, r)
		}
	}
	slices.SortStableFunc(can, func(a, b *replica) int {
		switch {
		case a.ready != b.ready && b.ready:
			return -1
		case a.ready != b.ready:
			return 1
		default:
			return load[a] - load[b]
		}
	})
	for _, r := range can[:n] {
		r.gone = true
		s.leaving++
	}
	s.update()
	for _, r := range can[:n] {
		if load[r] == 0 {
			s.end(r)
		}
	}
}

// end removes a replica that has no requests.
func (s *run) end(r *replica) {
	i := slices.Index(s.replicas, r)
	if i < 0 {
		return
	}
	s.replicas = slices.Delete(s.replicas, i, i+1)
	s.leaving--
	s.result.ReplicaTime += s.now - r.ordered
}

// update tells the room which replicas are ready.
func (s *run) update() {
	var names []string
	var values []*replica
	for _, r := range s.replicas {
		if r.ready && !r.gone {
			names, values = append(names, r.name), append(values, r)
		}
	}
	target := 0
	for _, rule := range s.Policy.Rules {
		if rule.Kind == scale.HTTP || rule.Kind == scale.TCP {
			target = int(rule.Target)
		}
	}
	s.room.Update(room.Config{Settings: s.Settings, Target: target}, names, func(i int) (string, any) { return names[i], values[i] }, s.time())
	s.settle()
}
