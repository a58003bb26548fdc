package ingress_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/internal/ingress"
	"penstock/internal/link"
)

// Each replica is counted what it answered; what no replica got is counted for the revision.
func TestTraffic(t *testing.T) {
	replica := app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		if r.URL.Path == "/slow" {
			time.Sleep(500 * time.Millisecond)
		}
	})
	f := serve(t, ingress.Config{})
	table := replicas(replica)
	f.Apply(table)
	for _, path := range []string{"/", "/", "/bad", "/missing", "/slow"} {
		f.get(t, path)
	}
	name := table.Revisions[0].Replicas[0].Name
	// It is counted when the answer is out.
	until(t, "five requests are counted", func() bool { return f.Traffic().Replicas[name].Requests == 5 })
	got := f.Traffic().Replicas[name]
	if got.Errors != 1 {
		t.Errorf("replica %s: %d errors, want 1", name, got.Errors)
	}
	if p50, most := got.Latency.Quantile(0.5), got.Latency.Quantile(1); p50 <= 0 || p50 > 450*time.Millisecond || most < 450*time.Millisecond {
		t.Errorf("latency p50 %v, maximum %v; want less and more than the slow one's 500 ms", p50, most)
	}

	table.Revisions[0].Replicas, table.Revisions[0].Failed = nil, "its image is gone"
	f.Apply(table)
	f.get(t, "/")
	now := f.Traffic()
	if load := now.Revisions[table.Revisions[0].ID]; load.Arrivals != 6 || load.InFlight.Sum < 50*time.Millisecond || load.Waiting.Sum != 0 {
		t.Errorf("got %+v, want 6 arrivals, the slow one's 50 ms in flight at least, and no wait", load)
	}
	if refused := now.Refused[table.Revisions[0].ID]; refused != 1 || len(now.Replicas) != 0 {
		t.Errorf("refused %d, replicas %v; want 1 and none", refused, now.Replicas)
	}
}

// What has come from a replica is known while the answer goes on, and what was only sent to it does not count.
func TestAReplicaIsHeardWhileItAnswers(t *testing.T) {
	end := make(chan struct{})
	answering := app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			<-end
			return
		}
		for i := 0; ; i++ {
			if _, err := w.Write([]byte("token")); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-end:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	defer close(end)
	f := serve(t, ingress.Config{})
	table := replicas(answering)
	f.Apply(table)
	name := table.Revisions[0].Replicas[0].Name
	ask := func(path string) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+path, strings.NewReader(strings.Repeat("x", 1<<16)))
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := f.client.Do(r); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}()
		return func() { cancel(); <-done }
	}
	stop := ask("/silent")
	until(t, "the silent request is with the replica", func() bool { return f.Report().InFlight[name] == 1 })
	if ago, ok := f.Traffic().Heard[name]; ok {
		t.Errorf("heard %s ago from a replica that is silent", ago)
	}
	stop()
	stop = ask("/")
	defer stop()
	until(t, "the replica is heard", func() bool { _, ok := f.Traffic().Heard[name]; return ok })
	began := time.Now()
	until(t, "it is heard again, in the same answer", func() bool {
		ago, ok := f.Traffic().Heard[name]
		return ok && time.Now().Add(-ago).After(began.Add(200*time.Millisecond))
	})
}

// While a number of requests stays in flight, the average between two reports is that number exactly.
func TestAverageInFlightIsExact(t *testing.T) {
	hold := make(chan struct{})
	f := serve(t, ingress.Config{})
	table := replicas(app(t, func(http.ResponseWriter, *http.Request) { <-hold }), app(t, func(http.ResponseWriter, *http.Request) { <-hold }))
	f.Apply(table)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(hold)
	for n := range 5 {
		wg.Go(func() { f.get(t, "/") })
		until(t, "it has its place", func() bool { return busy(f) == n+1 })
	}
	first := f.Traffic()
	time.Sleep(20 * time.Millisecond) // any time does
	second := f.Traffic()
	revision := table.Revisions[0].ID
	for what, pair := range map[string][2]link.Integral{
		"5": {first.Revisions[revision].InFlight, second.Revisions[revision].InFlight},
		"3": {first.Replicas["r0"].InFlight, second.Replicas["r0"].InFlight},
		"2": {first.Replicas["r1"].InFlight, second.Replicas["r1"].InFlight},
		"0": {first.Revisions[revision].Waiting, second.Revisions[revision].Waiting},
	} {
		if got, ok := pair[1].Average(pair[0]); !ok || fmt.Sprint(got) != what {
			t.Errorf("got %v, %t on average, want exactly %s", got, ok, what)
		}
	}
}

// Time that requests spend waiting is exact too, to the nanosecond.
func TestWaitingTimeIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := ingress.New(ingress.Config{})
		in.Apply(replicas())
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			time.Sleep(time.Second)
			wg.Go(func() {
				defer func() { _ = recover() }() // a client that has left gets no answer
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/", nil)
				in.Handler("http").ServeHTTP(httptest.NewRecorder(), r)
			})
			synctest.Wait()
		}
		time.Sleep(time.Second)
		before := in.Traffic().Revisions["app--1"]
		if want := (link.Integral{At: 4 * time.Second, Sum: 6 * time.Second}); before.Waiting != want || before.Arrivals != 3 {
			t.Errorf("after 3, 2 and 1 s: got %+v, want %+v and 3 arrivals", before, want)
		}
		time.Sleep(500 * time.Millisecond)
		leave()
		wg.Wait()
		time.Sleep(500 * time.Millisecond)
		after := in.Traffic().Revisions["app--1"]
		if got, ok := after.Waiting.Average(before.Waiting); !ok || got != 1.5 {
			t.Errorf("three for half a second and none for another: got %v, %t on average, want 1.5", got, ok)
		}
	})
}
