package room

import "time"

// Settled returns the tickets whose wait has ended since the last call; Outcome says how. The slice is valid until the next
// method that can end a wait.
func (rm *Room) Settled() []*Ticket {
	if len(rm.settled) == 0 {
		return nil
	}
	s := rm.settled
	rm.settled = rm.settled[:0]
	return s
}

// Outcome returns how t's wait ended: with a place, which the caller must release, or with an error.
func (t *Ticket) Outcome() (*Replica, error) { return t.replica, t.err }

// NextDeadline returns when the first ticket in line has waited for too long; not ok if nobody waits.
func (rm *Room) NextDeadline() (at time.Time, ok bool) {
	if rm.first == nil {
		return time.Time{}, false
	}
	return rm.first.Arrived.Add(rm.config.QueueTimeout), true
}

// Expire refuses those in line whose deadline is not after now.
func (rm *Room) Expire(now time.Time) {
	for at, ok := rm.NextDeadline(); ok && !at.After(now); at, ok = rm.NextDeadline() {
		rm.settle(rm.first, nil, rm.late(), now)
	}
}

// late is the refusal of a ticket that has waited for too long.
func (rm *Room) late() *Refusal {
	r := &Refusal{Reason: NoReplica, After: rm.config.QueueTimeout, Detail: rm.config.Blocked}
	if n := len(rm.replicas); n > 0 {
		r.Reason, r.Replicas, r.Limit, r.Detail = NoPlace, n, rm.config.MaxConcurrency, ""
	}
	return r
}

// Dismiss ends the wait of those for whom gone is true with ErrMoved.
func (rm *Room) Dismiss(gone func(*Ticket) bool, now time.Time) {
	for t := rm.first; t != nil; {
		next := t.next
		if gone(t) {
			rm.settle(t, nil, ErrMoved, now)
		}
		t = next
	}
}

// hand gives free places to those in line, in order. Who has tried every replica with a free place is passed over.
func (rm *Room) hand(now time.Time) {
	for t := rm.first; t != nil; {
		next := t.next
		if len(t.tried) > 0 && rm.triedAll(t) {
			t.tried = t.tried[:0] // the replica that it waited for has left
		}
		r := rm.pick(t, now)
		if r == nil && len(t.tried) == 0 {
			return
		}
		if r != nil {
			rm.take(r, now)
			rm.settle(t, r, nil, now)
		}
		t = next
	}
}

// settle ends t's wait.
func (rm *Room) settle(t *Ticket, r *Replica, err error, now time.Time) {
	rm.unlink(t, now)
	t.replica, t.err = r, err
	rm.settled = append(rm.settled, t)
}

// join puts t in line where its arrival belongs.
func (rm *Room) join(t *Ticket, now time.Time) {
	t.waits, t.replica, t.err = true, nil, nil
	after := rm.last
	for after != nil && t.Arrived.Before(after.Arrived) {
		after = after.prev
	}
	t.prev = after
	if after == nil {
		t.next, rm.first = rm.first, t
	} else {
		t.next, after.next = after.next, t
	}
	if t.next == nil {
		rm.last = t
	} else {
		t.next.prev = t
	}
	rm.waiting.add(1, rm.at(now))
}

func (rm *Room) unlink(t *Ticket, now time.Time) {
	if t.prev == nil {
		rm.first = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		rm.last = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.prev, t.next, t.waits = nil, nil, false
	rm.waiting.add(-1, rm.at(now))
}
