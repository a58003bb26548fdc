package sim_test

import (
	"encoding/csv"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"penstock/internal/ingress/room"
	"penstock/internal/resource"
	"penstock/internal/scale"
	"penstock/internal/sim"
)

func policy(least, most int, target float64) scale.Policy {
	return scale.Policy{
		Behaviour: resource.Fast, Min: least, Max: most, Cooldown: 300 * time.Second, ScaleIn: resource.FastScaleInWindow,
		Rules: []scale.Rule{{Name: "users", Kind: scale.HTTP, Target: target, Metric: scale.InFlight}},
	}
}

func settings() resource.Settings {
	return resource.Settings{Behaviour: resource.Fast, QueueLimit: 1000, QueueTimeout: 240 * time.Second}
}

func fixed(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// steady returns n evenly spaced requests.
func steady(n int, every, service time.Duration) (trace []sim.Request) {
	for i := range n {
		trace = append(trace, sim.Request{At: time.Duration(i) * every, Service: service})
	}
	return trace
}

func quantile(d []time.Duration, q float64) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

// A request to an app at zero waits for one start and is served. The replica is removed after the cool-down period.
func TestFromZeroAndBack(t *testing.T) {
	r, err := sim.Run(sim.Config{Policy: policy(0, 10, 10), Settings: settings(), Start: fixed(2 * time.Second), Tail: 10 * time.Minute}, steady(1, 0, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if r.Served != 1 || r.ColdStarts != 1 || r.Waits[0] != 2*time.Second || r.Times[0] != 3*time.Second {
		t.Errorf("got %+v, want one served after a cold start of 2 s", r)
	}
	// The replica is ordered at 0, last active at 3 s, and removed 300 s later.
	if want := 303 * time.Second; r.ReplicaTime != want {
		t.Errorf("replica time %v, want %v", r.ReplicaTime, want)
	}
}

// 1,200 requests in a second go to an app at zero with a queue of 1,000. None is lost, and refused ones are counted by
// reason.
func TestBurstAboveTheLine(t *testing.T) {
	p := policy(0, 20, 10)
	s := settings()
	s.MaxConcurrency = 10
	r, err := sim.Run(sim.Config{Policy: p, Settings: s, Start: fixed(5 * time.Second)}, steady(1200, time.Second/1200, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if r.Served != 1000 || r.Refused[room.LineFull] != 200 || r.MostReplicas != 20 {
		t.Errorf("%d served, refused %v, %d replicas; want 1000, 200 because the line was full, 20", r.Served, r.Refused, r.MostReplicas)
	}
}

// Requests that wait longer than the limit are refused.
func TestLineHasATimeLimit(t *testing.T) {
	s := settings()
	s.QueueTimeout = 3 * time.Second
	r, err := sim.Run(sim.Config{Policy: policy(0, 1, 10), Settings: s, Start: fixed(10 * time.Second)}, steady(5, 100*time.Millisecond, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if r.Served != 0 || r.Refused[room.NoReplica] != 5 {
		t.Errorf("%d served, refused %v; want all 5 refused because no replica was ready", r.Served, r.Refused)
	}
}

// A replica with one slot serves one request after the other.
func TestSlots(t *testing.T) {
	r, err := sim.Run(sim.Config{Policy: policy(1, 1, 10), Settings: settings(), Replicas: 1, Slots: 1, Start: fixed(0)}, steady(4, 0, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if want := []time.Duration{1e9, 2e9, 3e9, 4e9}; !slices.Equal(r.Times, want) {
		t.Errorf("times %v, want %v", r.Times, want)
	}
}

func TestTracesThatAreRefused(t *testing.T) {
	for name, trace := range map[string][]sim.Request{
		"out of order":     {{At: time.Second}, {At: 0}},
		"before the start": {{At: -1}},
		"negative service": {{Service: -1}},
	} {
		if _, err := sim.Run(sim.Config{Policy: policy(0, 1, 1), Settings: settings(), Start: fixed(0)}, trace); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// code returns the trace of Azure's coding service, with prompt and token times of one of our model servers.
func code(t testing.TB) (trace []sim.Request) {
	f, err := os.Open("../load/testdata/AzureLLMInferenceTrace_code.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var first time.Time
	for i, row := range rows[1:] {
		at, err := time.Parse("2006-01-02 15:04:05.0000000", row[0])
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = at
		}
		in, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		out, err := strconv.Atoi(row[2])
		if err != nil {
			t.Fatal(err)
		}
		trace = append(trace, sim.Request{At: at.Sub(first), Service: time.Duration(in)*time.Second/4000 + time.Duration(out)*time.Second/20})
	}
	return trace
}

// In an hour of real requests none is lost, and the app is at zero in each gap that is longer than the cool-down
// period.
func TestCodeTrace(t *testing.T) {
	trace := code(t)
	p := policy(0, 40, 4)
	p.Cooldown = time.Minute
	s := settings()
	s.MaxConcurrency = 4
	r, err := sim.Run(sim.Config{Policy: p, Settings: s, Start: fixed(2 * time.Second), Tail: 3 * time.Minute}, trace)
	if err != nil {
		t.Fatal(err)
	}
	gaps := 0
	busy := trace[0].At
	for i, q := range trace {
		if i > 0 && q.At-busy > p.Cooldown+resource.FastScaleInWindow+time.Second {
			gaps++
		}
		busy = max(busy, q.At+q.Service)
	}
	if r.Served != len(trace) || len(r.Refused) > 0 {
		t.Errorf("%d of %d served, refused %v", r.Served, len(trace), r.Refused)
	}
	if r.ColdStarts < 1+gaps || gaps == 0 {
		t.Errorf("%d cold starts, want at least %d: the first and one after each long gap", r.ColdStarts, 1+gaps)
	}
	t.Logf("cold starts %d, starts %d, most %d, replica time %v; waiting p50 %v p95 %v p99 %v", r.ColdStarts, r.Starts, r.MostReplicas,
		r.ReplicaTime, quantile(r.Waits, .5), quantile(r.Waits, .95), quantile(r.Waits, .99))
}

// BenchmarkCodeTrace simulates one hour of real requests with one policy.
func BenchmarkCodeTrace(b *testing.B) {
	trace := code(b)
	for name, behaviour := range map[string]resource.Behaviour{"fast": resource.Fast, "azure": resource.Azure} {
		b.Run(name, func(b *testing.B) {
			p := policy(0, 40, 4)
			p.Behaviour = behaviour
			if behaviour == resource.Azure {
				p.ScaleIn = resource.AzureScaleInWindow
			}
			s := settings()
			s.Behaviour = behaviour
			for b.Loop() {
				if _, err := sim.Run(sim.Config{Policy: p, Settings: s, Start: fixed(2 * time.Second)}, trace); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
