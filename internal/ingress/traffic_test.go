package ingress_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"penstock/internal/ingress"
)

// Each replica is counted what it answered; what no replica got is counted for the revision.
func TestTraffic(t *testing.T) {
	replica := app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		if r.URL.Path == "/slow" {
			time.Sleep(50 * time.Millisecond)
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
	if p50, most := got.Latency.Quantile(0.5), got.Latency.Quantile(1); p50 <= 0 || p50 > 45*time.Millisecond || most < 45*time.Millisecond {
		t.Errorf("latency p50 %v, maximum %v; want less and more than the slow one's 50 ms", p50, most)
	}

	table.Revisions[0].Replicas, table.Revisions[0].Failed = nil, "its image is gone"
	f.Apply(table)
	f.get(t, "/")
	now := f.Traffic()
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
