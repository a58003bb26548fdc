package ingress

import (
	"context"
	"errors"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress/room"
)

// verdict is what became of one try.
type verdict int

const (
	over  verdict = iota // answered
	again                // another try, by the newest table
	cut                  // the connection to the client must end, as the response is not whole
)

// visit is what a request and a connection of a TCP app have in common: each takes a place, tries the replica, and takes
// another place if that did not work.
type visit struct {
	in     *Ingress
	client *client
	rec    accesslog.Record
	ticket ticket
	// gone says whether the client has left. It is nil where the context ends when that happens.
	gone func() bool
}

// visitor is what a request and a connection of a TCP app do differently.
type visitor interface {
	// try makes one try on r, on which it has a place.
	try(ctx context.Context, rm *guardedRoom, r *replica) verdict
	// refuse ends a visit that gets no place.
	refuse(rm *guardedRoom, why *room.Refusal) verdict
	// unreachable ends a visit for which no replica has accepted a connection.
	unreachable() verdict
	// left ends a visit whose client has left or whose time is over.
	left(err error) verdict
}

// place takes a place in the room and makes one try.
func (v *visit) place(ctx context.Context, rm *guardedRoom, who visitor) verdict {
	r, err := rm.claim(ctx, &v.ticket, v.gone)
	if err == nil {
		return v.use(ctx, rm, r, who)
	}
	if why, ok := errors.AsType[*room.Refusal](err); ok {
		v.rec.Revision = rm.name
		rm.countRefused()
		return who.refuse(rm, why)
	}
	switch {
	case errors.Is(err, room.ErrMoved):
		return again
	case errors.Is(err, room.ErrTried):
		return v.pause(ctx, who)
	default:
		return who.left(err)
	}
}

// use makes one try on r, and gives the place back.
func (v *visit) use(ctx context.Context, rm *guardedRoom, r *replica, who visitor) (verdict verdict) {
	v.rec.Revision, v.rec.Replica, v.rec.Upstream = rm.name, r.Name, v.ticket.addr
	if v.rec.Attempts > 0 {
		v.in.count(v.client).retried.Add(1)
	}
	v.rec.Attempts++
	verdict = again // if try panics
	defer func() {
		now := time.Now()
		if verdict == again {
			rm.release(r, nil, now)
			return
		}
		v.rec.Duration, v.rec.Held = now.Sub(v.rec.Start), v.ticket.held
		rm.release(r, &v.rec, now)
	}()
	return who.try(ctx, rm, r)
}

// pause waits before another round of tries, or gives up.
func (v *visit) pause(ctx context.Context, who visitor) verdict {
	d, ok := v.ticket.Pause(time.Now())
	if !ok {
		return who.unreachable()
	}
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return again
	case <-ctx.Done():
		return who.left(context.Cause(ctx))
	}
}

// finish accounts for the visit, which is over.
func (v *visit) finish() {
	v.rec.Held = v.ticket.held
	v.rec.Duration = time.Since(v.rec.Start)
	v.in.count(v.client).requests.Add(1)
	if v.in.cfg.Observe != nil {
		v.in.cfg.Observe(&v.rec)
	}
}
