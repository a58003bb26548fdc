package ingress_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"penstock/internal/ingress"
	"penstock/internal/resource"
)

// Requests that stay come one after the other to three replicas.
func TestPlacing(t *testing.T) {
	tests := map[string]struct {
		behaviour   resource.Behaviour
		target, max int
		requests    int
		want        [3]int // in flight
		waiting     int
	}{
		"without a rule the least loaded is next":      {resource.Fast, 0, 0, 5, [3]int{2, 2, 1}, 0},
		"a replica is filled before the next":          {resource.Fast, 4, 0, 6, [3]int{4, 2, 0}, 0},
		"one client keeps to one replica":              {resource.Fast, 4, 0, 1, [3]int{1, 0, 0}, 0},
		"all are filled":                               {resource.Fast, 2, 0, 6, [3]int{2, 2, 2}, 0},
		"beyond that they are loaded evenly":           {resource.Fast, 2, 0, 10, [3]int{4, 3, 3}, 0},
		"a limit holds what is beyond it":              {resource.Fast, 0, 1, 5, [3]int{1, 1, 1}, 2},
		"a limit above the target: filled, then even":  {resource.Fast, 1, 2, 5, [3]int{2, 2, 1}, 0},
		"a limit below the target is what is filled":   {resource.Fast, 5, 2, 5, [3]int{2, 2, 1}, 0},
		"azure: in turn, whatever the rule":            {resource.Azure, 4, 0, 5, [3]int{2, 2, 1}, 0},
		"azure: in turn, one after the other, round":   {resource.Azure, 0, 0, 3, [3]int{1, 1, 1}, 0},
		"azure: a limit holds what is beyond it there": {resource.Azure, 0, 2, 8, [3]int{2, 2, 2}, 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := serve(t, ingress.Config{})
			hold := make(chan struct{})
			var addrs []string
			for range test.want {
				addrs = append(addrs, app(t, func(http.ResponseWriter, *http.Request) { <-hold }))
			}
			table := replicas(addrs...)
			table.Revisions[0].Target = test.target
			f.Apply(set(table, func(s *resource.Settings) { s.Behaviour, s.MaxConcurrency = test.behaviour, test.max }))
			var wg sync.WaitGroup
			defer wg.Wait()
			defer close(hold)
			for n := range test.requests {
				wg.Go(func() { f.get(t, "/") })
				until(t, "it has its place", func() bool { return busy(f) == n+1 })
			}
			r := f.Report()
			got := [3]int{r.InFlight["r0"], r.InFlight["r1"], r.InFlight["r2"]}
			if got != test.want || r.Waiting["app--1"] != test.waiting {
				t.Errorf("got %v in flight and %d waiting, want %v and %d", got, r.Waiting["app--1"], test.want, test.waiting)
			}
		})
	}
}

// busy counts what is in flight or waits.
func busy(f *front) (n int) {
	r := f.Report()
	for _, counts := range []map[string]int{r.InFlight, r.Waiting} {
		for _, c := range counts {
			n += c
		}
	}
	return n
}

// What ends makes room at the front again.
func TestPlacingFillsTheFirstAgain(t *testing.T) {
	f := serve(t, ingress.Config{})
	ends := make(map[string]chan struct{})
	var addrs []string
	for n := range 2 {
		end := make(chan struct{})
		ends[fmt.Sprint("r", n)] = end
		addrs = append(addrs, app(t, func(http.ResponseWriter, *http.Request) { <-end }))
	}
	table := replicas(addrs...)
	table.Revisions[0].Target = 2
	f.Apply(table)
	var wg sync.WaitGroup
	defer wg.Wait()
	for n := range 3 {
		wg.Go(func() { f.get(t, "/") })
		until(t, "it has its place", func() bool { return busy(f) == n+1 })
	}
	ends["r0"] <- struct{}{}
	until(t, "one has ended", func() bool { return busy(f) == 2 })
	wg.Go(func() { f.get(t, "/") })
	until(t, "the next has its place", func() bool { return busy(f) == 3 })
	if r := f.Report(); r.InFlight["r0"] != 2 || r.InFlight["r1"] != 1 {
		t.Errorf("got %v, want 2 on r0 and 1 on r1", r.InFlight)
	}
	for _, end := range ends {
		close(end)
	}
}
