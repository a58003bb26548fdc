package ingress

import (
	"container/list"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"penstock/internal/access"
	"penstock/internal/ingress/upstream"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// room is a revision's places and waiting room.
type room struct {
	name string
	in   *Ingress

	mu       sync.Mutex
	open     bool // in the table
	settings resource.Settings
	target   int // requests that a replica should have at a time; 0: nobody has said
	failed   string
	blocked  string
	replicas []*replica // that may be given requests, in the table's order
	leaving  []*replica // that may not, and still have some
	turn     int        // whose it is, in round robin
	waiting  list.List  // of *waiter, oldest request first
	refused  uint64     // answered by the ingress for want of a replica
}

// replica is guarded by its room's mu, but for the pool.
type replica struct {
	name     string
	addr     string
	pool     *upstream.Pool
	inFlight int
	gone     bool
	// shunned is until when it is given requests only if no other can take them: it did not accept a connection.
	shunned time.Time
	tally   link.Tally
	badge   string // how a cookie calls it
}

// shunFor is short: a replica that does not accept connections is about to leave the table, or to come back.
const shunFor = time.Second

// ticket is a request's claim to a place.
type ticket struct {
	host  string
	port  int // in place of host, for a connection of a TCP app
	from  netip.Addr
	since time.Time  // when it came; who came first goes first, also after a second try
	tried []*replica // that did not accept its connection, in this round of tries
	shuns time.Time  // when the first one did not; zero: each has
	rests int        // between rounds

	sticky bool   // the client is to stay on one replica
	badge  string // the one that it had, by its cookie

	settings resource.Settings // the revision's, when it got its place
	addr     string            // the replica's, likewise
	held     time.Duration     // how long it waited
}

// Ends of a claim that lead to another one.
var (
	// errMoved means that the request's host leads elsewhere now.
	errMoved = errors.New("the route changed")
	// errTried means that each replica there is has refused this request's connection.
	errTried = errors.New("every replica was tried")
)

func newRoom(name string, in *Ingress) *room { return &room{name: name, in: in, open: true} }

// pick chooses a replica with a free place that is not among those tried. It is called with mu held.
//
// Azure's behaviour is a plain round robin. Else, where the revision's scale rule says how many requests a replica
// serves at a time, one is filled up to that before the next gets any, so that the others become idle; and beyond it,
// or where nobody has said so, it is the least loaded one, and of equals the first.
func (rm *room) pick(tried []*replica) *replica {
	limit := rm.settings.MaxConcurrency
	can := func(r *replica) bool {
		return (limit == 0 || r.inFlight < limit) && (len(tried) == 0 || !slices.Contains(tried, r))
	}
	if rm.settings.Behaviour == resource.Azure {
		for i := range rm.replicas {
			at := (rm.turn + i) % len(rm.replicas)
			if can(rm.replicas[at]) {
				rm.turn = at + 1
				return rm.replicas[at]
			}
		}
		return nil
	}
	var best, last *replica
	for _, r := range rm.replicas {
		switch {
		case !can(r):
		case !r.shunned.IsZero() && time.Now().Before(r.shunned):
			if last == nil || r.inFlight < last.inFlight {
				last = r
			}
		case r.inFlight < rm.target:
			return r
		case best == nil || r.inFlight < best.inFlight:
			best = r
		}
	}
	if best == nil {
		return last
	}
	return best
}

// pickFor is pick for one who may have had a replica before. That one is taken while it has a place, whatever its load.
// It is called with mu held.
func (rm *room) pickFor(t *ticket, tried []*replica) *replica {
	if t.badge == "" {
		return rm.pick(tried)
	}
	i := slices.IndexFunc(rm.replicas, func(r *replica) bool {
		return r.badge == t.badge && !slices.Contains(tried, r) && (rm.settings.MaxConcurrency == 0 || r.inFlight < rm.settings.MaxConcurrency)
	})
	if i >= 0 {
		return rm.replicas[i]
	}
	return rm.pick(tried)
}

// hand gives places to those who wait, in their order. It is called with mu held.
func (rm *room) hand() {
	for first := rm.waiting.Front(); first != nil; first = rm.waiting.Front() {
		w := first.Value.(*waiter)
		r := rm.pickFor(w.ticket, nil)
		if r == nil {
			return
		}
		rm.remove(first)
		rm.give(w.ticket, r)
		w.outcome <- outcome{replica: r}
	}
}

// give is called with mu held.
func (rm *room) give(t *ticket, r *replica) {
	r.inFlight++
	t.settings, t.addr = rm.settings, r.addr
}

// release gives back a place that was not used.
func (rm *room) release(r *replica) { rm.done(r, nil) }

// done gives a place back, and counts the request that was on it if that is over. Both under the lock that a place
// costs anyway.
func (rm *room) done(r *replica, rec *access.Record) {
	rm.mu.Lock()
	r.inFlight--
	if rec != nil {
		r.tally.Requests++
		if rec.Status >= http.StatusInternalServerError || rec.Proto == access.ProtoTCP && rec.Flags&access.FlagUpstreamTermination != 0 {
			r.tally.Errors++
		}
		took := rec.Duration
		if rec.Status == http.StatusSwitchingProtocols || rec.Proto == access.ProtoTCP {
			took = rec.FirstByte // a tunnel lasts as long as its two ends like
		}
		r.tally.Latency.Add(took)
	}
	drained := r.gone && r.inFlight == 0
	if drained {
		rm.leaving = slices.DeleteFunc(rm.leaving, func(l *replica) bool { return l == r })
	} else if !r.gone {
		rm.hand()
	}
	over := drained && !rm.open && len(rm.leaving) == 0
	rm.mu.Unlock()
	if drained {
		r.pool.Close()
		rm.in.nudge()
	}
	if over {
		rm.in.forget(rm)
	}
}

// shun notes that r did not accept a connection.
func (rm *room) shun(r *replica, now time.Time) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	r.shunned = now.Add(shunFor)
}

// reopen is called before the table that has the room is there to be used.
func (rm *room) reopen() {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.open = true
}

// update makes the room as rev says, and sends away those who wait here for a host that t leads elsewhere.
func (rm *room) update(rev link.Revision, t *table) {
	rm.mu.Lock()
	old := append(rm.replicas, rm.leaving...)
	rm.settings, rm.target, rm.failed, rm.blocked = rev.Settings, rev.Target, rev.Failed, rev.Blocked
	rm.replicas, rm.leaving = make([]*replica, 0, len(rev.Replicas)), nil
	for _, want := range rev.Replicas {
		at := upstream.Address{Addr: want.Addr, TLS: rev.TLS}
		i := slices.IndexFunc(old, func(r *replica) bool { return r.name == want.Name })
		var r *replica
		if i < 0 {
			r = &replica{name: want.Name, badge: badge(want.Name), pool: rm.in.upstreams.Pool(at)}
		} else {
			r = old[i]
			old = slices.Delete(old, i, i+1)
			r.gone = false
			r.pool.Reset(at)
		}
		r.addr = want.Addr
		rm.replicas = append(rm.replicas, r)
	}
	rm.dismiss(old)
	rm.send(rm.astray(t))
	rm.hand()
	if rm.failed != "" && len(rm.replicas) == 0 {
		err := rm.refuse()
		rm.send(func(*waiter) error { return err })
	}
	rm.mu.Unlock()
	for _, r := range old {
		r.pool.Close()
	}
}

// dismiss keeps account of replicas that are given no more requests. It is called with mu held.
func (rm *room) dismiss(replicas []*replica) {
	for _, r := range replicas {
		r.gone = true
		if r.inFlight > 0 {
			rm.leaving = append(rm.leaving, r)
		}
	}
}

// retire closes the room, which has left the table, and says whether nothing of it is left.
func (rm *room) retire() (over bool) {
	rm.mu.Lock()
	rm.open = false
	old := rm.replicas
	rm.replicas = nil
	rm.dismiss(old)
	rm.send(func(*waiter) error { return errMoved })
	over = len(rm.leaving) == 0
	rm.mu.Unlock()
	for _, r := range old {
		r.pool.Close()
	}
	return over
}

func (rm *room) over() bool {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return !rm.open && len(rm.leaving) == 0
}

// report adds what the room counts.
func (rm *room) report(to *link.Report) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	for _, list := range [][]*replica{rm.replicas, rm.leaving} {
		for _, r := range list {
			if r.inFlight > 0 {
				to.InFlight[r.name] += r.inFlight
			}
		}
	}
	if n := rm.waiting.Len(); n > 0 {
		to.Waiting[rm.name] += n
	}
}

// refuses counts a request that got no replica.
func (rm *room) refuses() {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.refused++
}

// traffic adds what the room has counted.
func (rm *room) traffic(to *link.Traffic) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	for _, list := range [][]*replica{rm.replicas, rm.leaving} {
		for _, r := range list {
			if r.tally.Requests > 0 {
				to.Replicas[r.name] = r.tally
			}
			if at := r.pool.Heard(); !at.IsZero() {
				if ago := time.Since(at); ago < link.HeardFor {
					to.Heard[r.name] = ago
				}
			}
		}
	}
	if rm.refused > 0 {
		to.Refused[rm.name] = rm.refused
	}
}

// pools appends those of the room's replicas.
func (rm *room) pools(to []*upstream.Pool) []*upstream.Pool {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	for _, r := range rm.replicas {
		to = append(to, r.pool)
	}
	return to
}
