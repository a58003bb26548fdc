package ingress_test

import (
	"net/http"
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
