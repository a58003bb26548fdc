// Package room decides which replica of a revision serves a request, which requests wait for a place, and which are
// refused.
//
// It is pure: it reads no clock, starts no goroutine and does no I/O, so a simulator in virtual time runs the code that
// the ingress runs. Every method that depends on time is given it. A Room does no locking; its owner does.
//
//	Claim ──► a place on a Replica ──► Release ─┐
//	  │                                         ▼
//	  └─────► the line, oldest first ──► a place, a Refusal or ErrMoved, told by Settled
//	                                            ▲
//	                     Update, Expire, Dismiss, Close
package room

import (
	"errors"
	"slices"
	"time"

	"penstock/internal/resource"
)

// ShunFor is how long a replica that did not accept a connection is tried last. It is short: such a replica is about to
// leave the table or to accept connections again.
const ShunFor = time.Second

var (
	// ErrWaits means that the ticket waits in line.
	ErrWaits = errors.New("waits for a place")
	// ErrMoved means that the ticket must look for its room again.
	ErrMoved = errors.New("the route changed")
	// ErrTried means that no replica has accepted this ticket's connection.
	ErrTried = errors.New("every replica was tried")
)

// Config is what a room is told about its revision.
type Config struct {
	resource.Settings
	// Target is how many requests a replica should have at a time; 0 means that no scale rule says so.
	Target int
	// Failed says why no replica can ever start; "" means that one can.
	Failed string
	// Blocked says why no replica can start for now.
	Blocked string
}

// Room is the replicas of one revision and the line of tickets that wait for a place on them.
type Room struct {
	config   Config
	closed   bool
	replicas []*Replica // in the table's order
	leaving  []*Replica // that have left the table and still serve requests
	next     int        // where round robin continues

	first, last *Ticket // the line, in order of arrival
	waiting     integral
	settled     []*Ticket

	inFlight integral
	arrivals uint64
	epoch    time.Time
	measured time.Duration // since epoch: no later event is counted before it
}

// Replica is one replica of a room.
type Replica struct {
	Name string
	// Key is what Ticket.Prefer calls the replica.
	Key string
	// Value belongs to the room's owner.
	Value any

	inFlight integral
	gone     bool
	shunned  time.Time // until when it is tried last
}

// InFlight returns the number of places that are taken.
func (r *Replica) InFlight() int { return r.inFlight.n }

// Ticket is the claim of one request to a place. It must not be copied while it waits.
type Ticket struct {
	// Arrived orders the line. A ticket that claims a second time, here or in another room, keeps it.
	Arrived time.Time
	// Prefer is the key of the replica that served the client before; "" means none.
	Prefer string
	// Value belongs to the room's owner.
	Value any

	tried  []*Replica // that did not accept its connection in this round of tries
	failed time.Time  // when the first of all rounds did not
	pauses int

	counted    *Room // that has counted its arrival
	prev, next *Ticket
	waits      bool
	replica    *Replica
	err        error
}

// New returns an open room without replicas. Integrals of time are measured from epoch.
func New(epoch time.Time) *Room { return &Room{epoch: epoch} }

// Config returns what the room was told last.
func (rm *Room) Config() *Config { return &rm.config }

// Replicas returns the replicas that may be given requests, in order. The caller must not change the slice.
func (rm *Room) Replicas() []*Replica { return rm.replicas }

// Leaving returns the replicas that may not be given requests and still serve some. The caller must not change the slice.
func (rm *Room) Leaving() []*Replica { return rm.leaving }

// Waiting returns the length of the line.
func (rm *Room) Waiting() int { return rm.waiting.n }

// Over says whether the room is closed and serves no request any more.
func (rm *Room) Over() bool { return rm.closed && len(rm.leaving) == 0 }

// Open lets tickets claim places again after Close.
func (rm *Room) Open() { rm.closed = false }

// Claim takes a place for t. If there is none, t joins the line and the error is ErrWaits; any other error means that t may
// not wait either: ErrMoved, ErrTried or a *Refusal.
func (rm *Room) Claim(t *Ticket, now time.Time) (*Replica, error) {
	if rm.closed {
		return nil, ErrMoved
	}
	if t.counted != rm {
		t.counted = rm
		rm.arrivals++
	}
	// A place that is free here is of no use to those in line, or hand would have given it to them.
	if r := rm.pick(t, now); r != nil {
		rm.take(r, now)
		return r, nil
	}
	if len(t.tried) > 0 && rm.triedAll(t) {
		return nil, ErrTried
	}
	if rm.config.Failed != "" && len(rm.replicas) == 0 {
		return nil, &Refusal{Reason: Failed, Detail: rm.config.Failed}
	}
	if rm.waiting.n >= rm.config.QueueLimit {
		return nil, &Refusal{Reason: LineFull, Waiting: rm.waiting.n}
	}
	rm.join(t, now)
	return nil, ErrWaits
}

// Release gives a place back. Drained says that r has left the table and this was its last request.
func (rm *Room) Release(r *Replica, now time.Time) (drained bool) {
	at := rm.at(now)
	r.inFlight.add(-1, at)
	rm.inFlight.add(-1, at)
	if !r.gone {
		rm.hand(now)
		return false
	}
	if r.inFlight.n > 0 {
		return false
	}
	rm.leaving = slices.DeleteFunc(rm.leaving, func(l *Replica) bool { return l == r })
	return true
}

// Leave takes t out of the line. It returns false if t's wait had ended already; then Outcome says how.
func (rm *Room) Leave(t *Ticket, now time.Time) bool {
	if !t.waits {
		return false
	}
	rm.unlink(t, now)
	return true
}

// Shun records that r did not accept a connection for t: t tries the others first, and new tickets do for ShunFor.
func (rm *Room) Shun(t *Ticket, r *Replica, now time.Time) {
	r.shunned = now.Add(ShunFor)
	if t.failed.IsZero() {
		t.failed = now
	}
	if !slices.Contains(t.tried, r) {
		t.tried = append(t.tried, r)
	}
}

// Update replaces what the room knows of its revision, gives places to those who wait, and returns the replicas that are
// no longer among names. Open makes what belongs to the owner for a new replica, which is the i-th of names.
func (rm *Room) Update(c Config, names []string, open func(i int) (key string, value any), now time.Time) (gone []*Replica) {
	old := slices.Concat(rm.replicas, rm.leaving)
	rm.config = c
	rm.replicas, rm.leaving = make([]*Replica, 0, len(names)), nil
	for i, name := range names {
		at := slices.IndexFunc(old, func(r *Replica) bool { return r.Name == name })
		var r *Replica
		if at < 0 {
			r = &Replica{Name: name}
			r.Key, r.Value = open(i)
		} else {
			r = old[at]
			old = slices.Delete(old, at, at+1)
			r.gone = false
		}
		rm.replicas = append(rm.replicas, r)
	}
	rm.retire(old)
	rm.hand(now)
	if c.Failed != "" && len(rm.replicas) == 0 {
		err := &Refusal{Reason: Failed, Detail: c.Failed}
		for rm.first != nil {
			rm.settle(rm.first, nil, err, now)
		}
	}
	return old
}

// Close ends all waits with ErrMoved, and returns the replicas that there were. Requests in flight go on.
func (rm *Room) Close(now time.Time) (gone []*Replica) {
	rm.closed = true
	gone, rm.replicas = rm.replicas, nil
	rm.retire(gone)
	for rm.first != nil {
		rm.settle(rm.first, nil, ErrMoved, now)
	}
	return gone
}

// retire keeps account of replicas that are given no more requests.
func (rm *Room) retire(replicas []*Replica) {
	for _, r := range replicas {
		r.gone = true
		if r.inFlight.n > 0 {
			rm.leaving = append(rm.leaving, r)
		}
	}
}

// take counts a request on r.
func (rm *Room) take(r *Replica, now time.Time) {
	at := rm.at(now)
	r.inFlight.add(1, at)
	rm.inFlight.add(1, at)
}
