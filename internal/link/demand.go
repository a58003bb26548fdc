package link

import (
	"context"
	"time"
)

// Demand is the load of a revision over all ingresses. Arrivals, Ended, Served and Busy are counted since the previous
// call of Hub.Demand; Now, Queued and Open are current values.
type Demand struct {
	Arrivals, Ended int
	Served          time.Duration // by the requests that have ended, on their replicas
	Busy            time.Duration // the integral of requests on replicas over time
	Now, Queued     int
	Open            int // clients' connections, if a rule counts them
	// Measured is when the newest of the counts was taken, at the ingress. A report may arrive later than that on a busy machine.
	Measured time.Time
}

// demands adds up the loads reported by ingresses until somebody takes them.
type demands struct {
	last  map[int]map[string]Load // by ingress and revision ID
	began map[int]time.Time       // when each ingress began to count, by the report that was quickest
	news  map[string]Demand       // by revision ID, since they were taken; Now, Queued and Open are not set
	ready chan struct{}           // has an element while there is news
}

func newDemands() demands {
	return demands{last: map[int]map[string]Load{}, began: map[int]time.Time{}, news: map[string]Demand{}, ready: make(chan struct{}, 1)}
}

// current is 0 if there is nothing at this moment.
func (l Load) current() int { return l.Now + l.Queued + l.Open }

// hear adds a report of an ingress that has arrived now.
func (d *demands) hear(id int, r Report, now time.Time) {
	last := d.last[id]
	if last == nil {
		last = map[string]Load{}
		d.last[id] = last
	}
	if r.Traffic != nil {
		for revision := range last {
			if _, ok := r.Traffic.Revisions[revision]; !ok {
				d.note(id, revision, Load{}, now) // it has left the table and serves nothing
				delete(last, revision)
			}
		}
		for revision, load := range r.Traffic.Revisions {
			d.note(id, revision, load, now)
		}
	}
	for revision, load := range r.Loads {
		// An ingress measures a revision twice for a report with both, a moment apart. The older one must not look like a new count.
		if r.Traffic != nil && load.InFlight.At < r.Traffic.Revisions[revision].InFlight.At {
			continue
		}
		d.note(id, revision, load, now)
	}
}

// leave subtracts the last known load of an ingress that has disconnected.
func (d *demands) leave(id int, now time.Time) {
	for revision := range d.last[id] {
		d.note(id, revision, Load{}, now)
	}
	delete(d.last, id)
	delete(d.began, id)
}

func (d *demands) note(id int, revision string, now Load, at time.Time) {
	last := d.last[id]
	before := last[revision]
	if now.InFlight.At < before.InFlight.At || now.Arrivals < before.Arrivals {
		before = Load{Now: before.Now, Queued: before.Queued, Open: before.Open} // it started counting from zero
	}
	last[revision] = now
	if now.Arrivals == before.Arrivals && now.Ended == before.Ended && now.current() == 0 && before.current() == 0 {
		return
	}
	sum := d.news[revision]
	sum.Arrivals += int(now.Arrivals - min(before.Arrivals, now.Arrivals))
	sum.Ended += int(now.Ended - min(before.Ended, now.Ended))
	sum.Served += max(0, now.Served-before.Served)
	sum.Busy += max(0, now.InFlight.Sum-before.InFlight.Sum)
	if now.InFlight.At > 0 {
		began := at.Add(-now.InFlight.At)
		if known, ok := d.began[id]; !ok || began.Before(known) {
			d.began[id] = began
		}
		at = d.began[id].Add(now.InFlight.At)
	}
	if at.After(sum.Measured) {
		sum.Measured = at
	}
	d.news[revision] = sum
	select {
	case d.ready <- struct{}{}:
	default:
	}
}

// Demand waits for new load of revisions, takes it and returns it by revision ID. Only one caller at a time is allowed.
// It ends with ctx.
func (h *Hub) Demand(ctx context.Context) (map[string]Demand, error) {
	select {
	case <-h.demand.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	news := h.demand.news
	h.demand.news = map[string]Demand{}
	for revision, sum := range news {
		for _, last := range h.demand.last {
			sum.Now += last[revision].Now
			sum.Queued += last[revision].Queued
			sum.Open += last[revision].Open
		}
		news[revision] = sum
	}
	return news, nil
}
