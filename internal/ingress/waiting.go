package ingress

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"time"

	"penstock/internal/access"
)

// waiter is a ticket in the line.
type waiter struct {
	*ticket
	outcome chan outcome // takes one without blocking
}

type outcome struct {
	replica *replica
	err     error
}

// refusal is an answer in place of a place.
type refusal struct {
	flag access.Flags
	text string
	busy bool // worth another try in a second
}

func (r *refusal) Error() string { return r.text }

// claim returns a replica that has a place for the request, waiting for one if need be. The caller releases it.
func (rm *room) claim(ctx context.Context, t *ticket) (*replica, error) {
	rm.mu.Lock()
	if !rm.open {
		rm.mu.Unlock()
		return nil, errMoved
	}
	if first := rm.waiting.Front(); first == nil || t.since.Before(first.Value.(*waiter).since) {
		if r := rm.pickFor(t, t.tried); r != nil {
			rm.give(t, r)
			rm.mu.Unlock()
			return r, nil
		}
	}
	if len(t.tried) > 0 && len(rm.replicas) > 0 && !slices.ContainsFunc(rm.replicas, func(r *replica) bool { return !slices.Contains(t.tried, r) }) {
		rm.mu.Unlock()
		return nil, errTried
	}
	if err := rm.refuse(); err != nil {
		rm.mu.Unlock()
		return nil, err
	}
	w := &waiter{ticket: t, outcome: make(chan outcome, 1)}
	place := rm.line(w)
	left := time.Until(t.since.Add(rm.settings.QueueTimeout))
	rm.mu.Unlock()
	rm.in.stats[0].held.Add(1) // seldom enough
	return rm.wait(ctx, w, place, left)
}

// refuse says why a request may not wait here.
func (rm *room) refuse() error {
	if rm.failed != "" && len(rm.replicas) == 0 {
		return &refusal{flag: access.FlagNoHealthyUpstream, text: fmt.Sprintf("revision %s cannot start: %s", rm.name, rm.failed)}
	}
	if rm.waiting.Len() >= rm.settings.QueueLimit {
		return &refusal{flag: access.FlagOverflow, busy: true,
			text: fmt.Sprintf("%d requests wait for %s already, which is its limit", rm.waiting.Len(), rm.whom())}
	}
	return nil
}

// whom is what a request waits for.
func (rm *room) whom() string {
	if rm.name == "" {
		return "a revision"
	}
	return "a replica of revision " + rm.name
}

// line puts w where its arrival belongs.
func (rm *room) line(w *waiter) *list.Element {
	if rm.waiting.Len() == 0 {
		rm.in.nudge()
	}
	for e := rm.waiting.Back(); e != nil; e = e.Prev() {
		if !w.since.Before(e.Value.(*waiter).since) {
			return rm.waiting.InsertAfter(w, e)
		}
	}
	return rm.waiting.PushFront(w)
}

func (rm *room) wait(ctx context.Context, w *waiter, place *list.Element, left time.Duration) (*replica, error) {
	began := time.Now()
	defer func() { w.held += time.Since(began) }()
	late := time.NewTimer(left)
	defer late.Stop()
	select {
	case o := <-w.outcome:
		if o.replica != nil && ctx.Err() != nil {
			rm.release(o.replica)
			return nil, context.Cause(ctx)
		}
		return o.replica, o.err
	case <-ctx.Done():
		return nil, rm.leave(w, place, context.Cause(ctx))
	case <-late.C:
		return nil, rm.leave(w, place, rm.inVain())
	}
}

// leave takes w out of the line, or gives back what it was handed in the same moment.
func (rm *room) leave(w *waiter, place *list.Element, err error) error {
	rm.mu.Lock()
	select {
	case o := <-w.outcome:
		rm.mu.Unlock()
		if o.replica != nil {
			rm.release(o.replica)
		}
		return err
	default:
	}
	rm.remove(place)
	rm.mu.Unlock()
	return err
}

// remove is called with mu held.
func (rm *room) remove(place *list.Element) {
	rm.waiting.Remove(place)
	if rm.waiting.Len() == 0 {
		rm.in.nudge()
	}
}

// inVain is the answer to a request that waited for as long as it may.
func (rm *room) inVain() error {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	limit := rm.settings.QueueTimeout
	r := &refusal{flag: access.FlagNoHealthyUpstream, busy: true}
	switch {
	case len(rm.replicas) > 0:
		r.flag = access.FlagOverflow
		r.text = fmt.Sprintf("no place became free within %v: each of the %d replicas of revision %s has its %d requests",
			limit, len(rm.replicas), rm.name, rm.settings.MaxConcurrency)
	case rm.blocked != "":
		r.text = fmt.Sprintf("waited %v for %s: %s", limit, rm.whom(), rm.blocked)
	default:
		r.text = fmt.Sprintf("waited %v for %s: none became ready", limit, rm.whom())
	}
	return r
}

// send away those who wait and for whom why has an answer. It is called with mu held.
func (rm *room) send(why func(*waiter) error) {
	var next *list.Element
	for e := rm.waiting.Front(); e != nil; e = next {
		next = e.Next()
		w := e.Value.(*waiter)
		if err := why(w); err != nil {
			rm.remove(e)
			w.outcome <- outcome{err: err}
		}
	}
}

// astray tells who waits here for a host that t leads elsewhere.
func (rm *room) astray(t *table) func(*waiter) error {
	return func(w *waiter) error {
		if !t.leads(w.ticket, rm) {
			return errMoved
		}
		return nil
	}
}

// sendAstray is all that a new table does to a lobby that it still has.
func (rm *room) sendAstray(t *table) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.send(rm.astray(t))
}
