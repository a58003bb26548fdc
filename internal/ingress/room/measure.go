package room

import (
	"cmp"
	"time"
)

// Measure is what a room has counted since its epoch. The difference of two is exact: that of Busy by that of At is the
// average number of requests in flight between the two.
type Measure struct {
	At       time.Duration // since the epoch
	Arrivals uint64        // tickets that have claimed a place here, each once
	Busy     time.Duration // the integral of requests in flight over time
	Waited   time.Duration // the integral of tickets in line over time
}

// Measure returns the counts at now. Busy gives that of one replica at the same moment.
func (rm *Room) Measure(now time.Time) Measure {
	rm.measured = rm.at(now)
	return Measure{At: rm.measured, Arrivals: rm.arrivals, Busy: rm.inFlight.until(rm.measured), Waited: rm.waiting.until(rm.measured)}
}

// Busy is the integral of r's requests in flight over time, up to the last Measure of the room.
func (rm *Room) Busy(r *Replica) time.Duration { return r.inFlight.until(rm.measured) }

// InFlight returns the number of places that are taken, on replicas that have left too.
func (rm *Room) InFlight() int { return rm.inFlight.n }

// unscaled is how many requests a replica should have at a time where no rule says so: Azure's default of an http rule.
const unscaled = 10

// Grown says whether n requests are more than the replicas should have, and a tenth more than the number that control was
// told last, so that it should hear of them now.
func (rm *Room) Grown(n, told int) bool {
	return n > cmp.Or(rm.config.Target, unscaled)*len(rm.replicas) && n > told+told/10
}

// at is now since the epoch. What a caller saw before the last measure, and tells after it, counts as having happened then,
// so that no integral ever shrinks.
func (rm *Room) at(now time.Time) time.Duration { return max(now.Sub(rm.epoch), rm.measured) }

// integral is a number and its integral over time.
type integral struct {
	n int
	// sum is the integral less n times the time: it changes only when n does. It may wrap around, which until undoes.
	sum time.Duration
}

func (i *integral) add(n int, at time.Duration) {
	i.n += n
	i.sum -= time.Duration(n) * at
}

// until is the integral up to a time that is not before the last change.
func (i *integral) until(at time.Duration) time.Duration { return i.sum + time.Duration(i.n)*at }
