package room

import (
	"slices"
	"time"

	"penstock/internal/resource"
)

// pick returns a replica with a free place for t, or nil. A replica that t prefers is taken whatever its load.
//
// Azure's behaviour is round robin. Otherwise, if the scale rule sets a target, replicas are filled to it one after the
// other, so that the others become idle. Beyond the target, or without one, the least loaded replica is taken.
func (rm *Room) pick(t *Ticket, now time.Time) *Replica {
	if t.Prefer != "" {
		for _, r := range rm.replicas {
			if r.Key == t.Prefer && rm.free(r, t) {
				return r
			}
		}
	}
	if rm.config.Behaviour == resource.Azure {
		for i := range rm.replicas {
			at := (rm.next + i) % len(rm.replicas)
			if rm.free(rm.replicas[at], t) {
				rm.next = at + 1
				return rm.replicas[at]
			}
		}
		return nil
	}
	var best, shunned *Replica
	for _, r := range rm.replicas {
		switch {
		case !rm.free(r, t):
		case !r.shunned.IsZero() && now.Before(r.shunned):
			if shunned == nil || r.inFlight.n < shunned.inFlight.n {
				shunned = r
			}
		case r.inFlight.n < rm.config.Target:
			return r
		case best == nil || r.inFlight.n < best.inFlight.n:
			best = r
		}
	}
	if best == nil {
		return shunned
	}
	return best
}

// free says whether r has a place for t.
func (rm *Room) free(r *Replica, t *Ticket) bool {
	limit := rm.config.MaxConcurrency
	return (limit == 0 || r.inFlight.n < limit) && (len(t.tried) == 0 || !slices.Contains(t.tried, r))
}

// triedAll says whether there are replicas and none has accepted t's connection.
func (rm *Room) triedAll(t *Ticket) bool {
	return len(rm.replicas) > 0 && !slices.ContainsFunc(rm.replicas, func(r *Replica) bool { return !slices.Contains(t.tried, r) })
}
