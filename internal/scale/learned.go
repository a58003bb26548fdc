package scale

import (
	"math"
	"time"
)

// Learned is what was measured on a revision's requests and starts.
type Learned struct {
	// Service is the mean time of a request on a replica, over about the last serviceMemory requests. 0 means unknown.
	Service time.Duration
	// Start is the mean time from the order of a replica until it is ready, over about the last startMemory starts. 0
	// means unknown.
	Start time.Duration

	// history is used to compute rates over the last historyFor. It is not saved, so it is empty after a restart.
	history     history
	lastWaiting time.Time
}

const (
	serviceMemory = 50
	startMemory   = 3
)

func (l *Learned) learn(s Sample) {
	if n := float64(s.Load.Completed); n > 0 {
		mean := float64(s.Load.Served) / n
		if l.Service == 0 {
			l.Service = time.Duration(mean)
		} else {
			share := 1 - math.Exp(-n/serviceMemory)
			l.Service += time.Duration(share * (mean - float64(l.Service)))
		}
	}
	for _, took := range s.Starts {
		if l.Start == 0 {
			l.Start = took
		} else {
			l.Start += (took - l.Start) / startMemory
		}
	}
	if s.Load.Waiting > 0 {
		l.lastWaiting = s.At
	}
	l.history.add(s.At, s.Load)
}

// waited reports whether requests waited so recently that they may still be on the replicas.
func (l *Learned) waited(at time.Time) bool {
	return !l.lastWaiting.IsZero() && at.Sub(l.lastWaiting) < steadyWindow+l.Service
}

// history holds the total arrivals and busy time at several moments. Recent moments are closer together than old ones.
type history struct {
	moments []moment // oldest first
}

type moment struct {
	at      time.Time
	arrived int
	busy    time.Duration
}

// quietAfter is the time without news after which there really are no requests. Ingresses report each second while they have
// some.
const quietAfter = 2 * time.Second

// historyFor is the longest time over which rates are computed.
const historyFor = 30 * time.Second

func (h *history) add(at time.Time, l Load) {
	if l.Measured.IsZero() && l.Arrived == 0 && l.Busy == 0 && len(h.moments) > 0 && at.Sub(h.moments[len(h.moments)-1].at) < quietAfter {
		return // news may still be on its way
	}
	if !l.Measured.IsZero() && l.Measured.Before(at) {
		at = l.Measured
	}
	now := moment{at: at, arrived: l.Arrived, busy: l.Busy}
	if n := len(h.moments); n > 0 {
		last := h.moments[n-1]
		now.arrived += last.arrived
		now.busy += last.busy
		if at.Before(last.at) {
			at, now.at = last.at, last.at
		}
	} else {
		// The requests before the first sample came at an unknown time. They count as having come just now.
		h.moments = append(h.moments, moment{at: at.Add(-shortest)})
	}
	h.moments = append(h.moments, now)
	// Drop a moment if its two neighbours are close together for their age.
	kept := h.moments[:0]
	for i, m := range h.moments {
		age := at.Sub(m.at)
		if i+1 < len(h.moments) && at.Sub(h.moments[i+1].at) >= historyFor {
			continue // the next moment is old enough to measure from
		}
		if len(kept) > 0 && i+1 < len(h.moments) && h.moments[i+1].at.Sub(kept[len(kept)-1].at) < age/8 {
			continue
		}
		kept = append(kept, m)
	}
	h.moments = kept
}

// over returns the arrivals and busy time of about the last w, and the exact length of that time. ok is false if the
// history is shorter than w.
func (h *history) over(w time.Duration) (arrived int, busy, took time.Duration, ok bool) {
	if len(h.moments) < 2 {
		return 0, 0, 0, false
	}
	last := h.moments[len(h.moments)-1]
	for i := len(h.moments) - 2; i >= 0; i-- {
		m := h.moments[i]
		if took = last.at.Sub(m.at); took >= w {
			return last.arrived - m.arrived, last.busy - m.busy, took, true
		}
	}
	return 0, 0, 0, false
}
