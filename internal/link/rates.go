package link

import (
	"time"
)

// rateWindow is the time over which rates and quantiles are computed: long enough for a steady value with few requests,
// short enough to show a change quickly.
const rateWindow = 10 * time.Second

// Rates are the recent request rates of replicas over all ingresses.
type Rates struct {
	Replicas map[string]Rate    // by name
	Refused  map[string]float64 // per second, by revision ID
}

// Rate is a replica's traffic.
type Rate struct {
	Requests, Errors float64 // per second
	Latency          Latency
}

// history is the traffic of one ingress in the last rateWindow, oldest first.
type history []moment

type moment struct {
	at time.Time
	Traffic
}

// add also keeps one moment that is at least as old as the window, as the start of the measurement.
func (h history) add(at time.Time, t Traffic) history {
	h = append(h, moment{at, t})
	for len(h) > 2 && at.Sub(h[1].at) >= rateWindow {
		h = h[1:]
	}
	return h
}

func (h history) addTo(r *Rates) {
	if len(h) < 2 {
		return
	}
	first, last := h[0], h[len(h)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds <= 0 {
		return
	}
	for name, tally := range last.Replicas {
		before := first.Replicas[name]
		if tally.Requests < before.Requests {
			before = Tally{} // it left the table and came back
		}
		d := tally.since(&before)
		rate := r.Replicas[name]
		rate.Requests += float64(d.Requests) / seconds
		rate.Errors += float64(d.Errors) / seconds
		rate.Latency.Merge(&d.Latency)
		r.Replicas[name] = rate
	}
	for name, n := range last.Refused {
		r.Refused[name] += float64(n-min(n, first.Refused[name])) / seconds
	}
}
