package link

import (
	"context"
	"testing"
	"time"
)

// load is what an ingress has counted after so long.
func load(at time.Duration, arrivals, ended, now, queued int) Load {
	return Load{
		Arrivals: uint64(arrivals), Ended: uint64(ended), Served: time.Duration(ended) * time.Second, Now: now, Queued: queued,
		InFlight: Integral{At: at, Sum: at}, Waiting: Integral{At: at},
	}
}

func TestDemandAddsUpIngresses(t *testing.T) {
	h := NewHub("a", nil)
	take := func() map[string]Demand {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		d, err := h.Demand(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for revision, one := range d {
			if since := time.Since(one.Measured); since < 0 || since > time.Minute {
				t.Errorf("measured %v ago, want just now", since)
			}
			one.Measured = time.Time{}
			d[revision] = one
		}
		return d
	}
	hear := func(id int, r Report) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.hear(id, r)
	}
	hear(1, Report{Loads: map[string]Load{"r": load(time.Second, 3, 1, 2, 0)}})
	hear(2, Report{Loads: map[string]Load{"r": load(time.Second, 5, 0, 1, 4)}})
	if got, want := take()["r"], (Demand{Arrivals: 8, Ended: 1, Served: time.Second, Busy: 2 * time.Second, Now: 3, Queued: 4}); got != want {
		t.Errorf("two ingresses: got %+v, want %+v", got, want)
	}
	// A report that says the same again, as traffic and as a load, counts nothing twice.
	again := load(3*time.Second, 4, 3, 1, 0)
	hear(1, Report{Loads: map[string]Load{"r": again}, Traffic: &Traffic{Revisions: map[string]Load{"r": again}}})
	if got, want := take()["r"], (Demand{Arrivals: 1, Ended: 2, Served: 2 * time.Second, Busy: 2 * time.Second, Now: 2, Queued: 4}); got != want {
		t.Errorf("the difference: got %+v, want %+v", got, want)
	}
	// The two of a report are measured a moment apart. The older one counts nothing again.
	hear(1, Report{
		Loads:   map[string]Load{"r": load(4*time.Second, 5, 4, 1, 0)},
		Traffic: &Traffic{Revisions: map[string]Load{"r": load(4*time.Second+time.Microsecond, 5, 4, 1, 0)}},
	})
	if got, want := take()["r"], (Demand{Arrivals: 1, Ended: 1, Served: time.Second, Busy: time.Second + time.Microsecond, Now: 2, Queued: 4}); got != want {
		t.Errorf("measured twice: got %+v, want %+v", got, want)
	}
	// Open connections are as many as there are now, also where nothing else happens.
	open := load(5*time.Second, 5, 4, 0, 0)
	open.Open = 3
	hear(1, Report{Loads: map[string]Load{"r": open}})
	if got := take()["r"]; got.Open != 3 || got.Now != 1 {
		t.Errorf("open connections: got %+v, want 3 of them", got)
	}
	hear(1, Report{Loads: map[string]Load{"r": load(6*time.Second, 5, 4, 0, 0)}})
	if got := take()["r"]; got.Open != 0 {
		t.Errorf("they have ended: got %+v, want none", got)
	}
	// One that begins again counts from zero.
	hear(1, Report{Loads: map[string]Load{"r": load(time.Second, 2, 0, 2, 0)}})
	if got, want := take()["r"], (Demand{Arrivals: 2, Busy: time.Second, Now: 3, Queued: 4}); got != want {
		t.Errorf("after the revision returned: got %+v, want %+v", got, want)
	}
	// What an ingress had is gone with it.
	h.mu.Lock()
	h.demand.leave(2, time.Now())
	h.mu.Unlock()
	if got, want := take()["r"], (Demand{Now: 2}); got != want {
		t.Errorf("after an ingress left: got %+v, want %+v", got, want)
	}
	hear(1, Report{Traffic: &Traffic{}})
	if got, want := take()["r"], (Demand{}); got != want {
		t.Errorf("after the revision left: got %+v, want %+v", got, want)
	}
	// While there is nothing, nothing is told.
	hear(1, Report{Traffic: &Traffic{Revisions: map[string]Load{"quiet": load(time.Hour, 0, 0, 0, 0)}}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if d, err := h.Demand(ctx); err == nil {
		t.Errorf("got %v of a revision without requests, want nothing", d)
	}
}

// A report that arrives late says when it was made.
func TestDemandSaysWhenItWasMeasured(t *testing.T) {
	d, began := newDemands(), time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	d.hear(1, Report{Loads: map[string]Load{"r": load(time.Second, 1, 0, 1, 0)}}, began.Add(1100*time.Millisecond))
	d.hear(1, Report{Loads: map[string]Load{"r": load(2*time.Second, 2, 0, 1, 0)}}, began.Add(2*time.Second))
	d.hear(1, Report{Loads: map[string]Load{"r": load(3*time.Second, 3, 0, 1, 0)}}, began.Add(9*time.Second))
	if got, want := d.news["r"].Measured, began.Add(3*time.Second); !got.Equal(want) {
		t.Errorf("got %v, want %v: by the clock of the report that was quickest", got, want)
	}
}
