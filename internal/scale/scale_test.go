package scale_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/scale"
)

var t0 = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func http(target float64, m scale.Metric) []scale.Rule {
	return []scale.Rule{{Name: "users", Kind: scale.HTTP, Target: target, Metric: m}}
}

func queue() []scale.Rule { return []scale.Rule{{Name: "queue", Kind: scale.External}} }

func azure(rules []scale.Rule, least, most int) scale.Policy {
	return scale.Policy{Behaviour: resource.Azure, Min: least, Max: most, Cooldown: 300 * time.Second, Polling: 30 * time.Second, ScaleIn: resource.AzureScaleInWindow, Rules: rules}
}

func fast(rules []scale.Rule, least, most int) scale.Policy {
	return scale.Policy{Behaviour: resource.Fast, Min: least, Max: most, Cooldown: 300 * time.Second, ScaleIn: resource.FastScaleInWindow, Rules: rules}
}

// world applies decisions at once and records when the count changes.
type world struct {
	*scale.Decider
	current int
	log     []string
}

func (w *world) at(after time.Duration, l scale.Load, readings map[string]scale.Reading) scale.Decision {
	d := w.Decide(scale.Sample{At: t0.Add(after), Current: w.current, Load: l, Readings: readings})
	if d.Wanted != w.current {
		w.log = append(w.log, fmt.Sprintf("%v %d", after, d.Wanted))
		w.current = d.Wanted
	}
	return d
}

// each decides at every step from from to to.
func (w *world) each(from, to, step time.Duration, l scale.Load, readings map[string]scale.Reading) (d scale.Decision) {
	for at := from; at <= to; at += step {
		d = w.at(at, l, readings)
	}
	return d
}

func (w *world) want(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(w.log, ", "); got != want {
		t.Errorf("counts over time: got %s\nwant %s", got, want)
	}
}

func TestAzureStepsUp(t *testing.T) {
	// 50 messages, target 5, from 0, maximum 20: 0, 1, 4, 8, 10.
	w := &world{Decider: scale.New(azure(queue(), 0, 20), scale.State{})}
	w.each(0, 2*time.Minute, time.Second, scale.Load{}, map[string]scale.Reading{"queue": {Value: 50, Target: 5, Active: true}})
	w.want(t, "0s 1, 15s 4, 30s 8, 45s 10")
}

func TestAzureWakesAtOnceForRequests(t *testing.T) {
	w := &world{Decider: scale.New(azure(http(10, scale.Documented), 0, 10), scale.State{})}
	w.at(0, scale.Load{}, nil)
	w.at(7*time.Second, scale.Load{Arrived: 1, Waiting: 1}, nil)
	w.want(t, "7s 1")
}

// Azure's http metric is requests per second over 15 s, so a few long requests never scale out.
func TestAzureHTTPIsARate(t *testing.T) {
	w := &world{Decider: scale.New(azure(http(1, scale.Documented), 0, 10), scale.State{})}
	for at := time.Duration(0); at < 5*time.Minute; at += 3 * time.Second { // 0.33 a second
		w.at(at, scale.Load{Arrived: 1, InFlight: 5}, nil)
	}
	w.want(t, "0s 1")
	w = &world{Decider: scale.New(azure(http(1, scale.InFlight), 0, 10), scale.State{})}
	for at := time.Duration(0); at < 5*time.Minute; at += 3 * time.Second {
		w.at(at, scale.Load{Arrived: 1, InFlight: 5}, nil)
	}
	w.want(t, "0s 1, 15s 4, 30s 5")
}

// Open connections count whether they are used or not, and keep the app awake.
func TestConnections(t *testing.T) {
	for name, tt := range map[string]struct {
		policy scale.Policy
		want   string
	}{
		"azure": {azure(http(10, scale.Connections), 0, 10), "0s 1, 15s 3, 7m0s 1, 7m1s 0"},
		"fast":  {fast(http(10, scale.Connections), 0, 10), "0s 3, 3m0s 1, 7m0s 0"},
	} {
		tt.policy.Cooldown = 2 * time.Minute
		w := &world{Decider: scale.New(tt.policy, scale.State{})}
		w.at(0, scale.Load{Arrived: 25, InFlight: 25, Open: 25}, nil)
		w.each(time.Second, 2*time.Minute, time.Second, scale.Load{Open: 25}, nil)
		w.each(2*time.Minute+time.Second, 5*time.Minute, time.Second, scale.Load{Open: 1}, nil)
		w.each(5*time.Minute+time.Second, 10*time.Minute, time.Second, scale.Load{}, nil)
		if got := strings.Join(w.log, ", "); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func TestAzureGoesToZeroAfterTheCooldown(t *testing.T) {
	w := &world{Decider: scale.New(azure(http(10, scale.Documented), 0, 10), scale.State{})}
	w.at(0, scale.Load{Arrived: 1, InFlight: 1}, nil)
	w.each(time.Second, 310*time.Second, time.Second, scale.Load{}, nil)
	w.want(t, "0s 1, 5m0s 0")
}

// With a cool-down of 0 the last replica goes as soon as nothing is active, and not while a request waits or runs.
func TestNoCooldown(t *testing.T) {
	for name, p := range map[string]scale.Policy{"azure": azure(http(10, scale.InFlight), 0, 10), "fast": fast(http(10, scale.InFlight), 0, 10)} {
		p.Cooldown, p.ScaleIn = 0, time.Second
		w := &world{Decider: scale.New(p, scale.State{})}
		w.at(0, scale.Load{Arrived: 1, Waiting: 1}, nil)
		w.each(time.Second, time.Minute, time.Second, scale.Load{Waiting: 1}, nil)
		w.each(time.Minute+time.Second, 2*time.Minute, time.Second, scale.Load{InFlight: 1}, nil)
		w.each(2*time.Minute+time.Second, 3*time.Minute, time.Second, scale.Load{}, nil)
		if got := strings.Join(w.log, ", "); got != "0s 1, 2m1s 0" {
			t.Errorf("%s: got %s, want 1 replica until the request has ended", name, got)
		}
	}
}

func TestAzureKeepsFiveForTheWindow(t *testing.T) {
	w := &world{Decider: scale.New(azure(http(10, scale.Documented), 2, 10), scale.State{}), current: 5}
	w.each(0, 10*time.Minute, time.Second, scale.Load{}, nil)
	w.want(t, "5m0s 2")
}

func TestAzureKeepsReplicasForOpenStreams(t *testing.T) {
	w := &world{Decider: scale.New(azure(http(1, scale.Documented), 0, 10), scale.State{}), current: 10}
	w.each(0, 20*time.Minute, time.Second, scale.Load{InFlight: 5}, nil)
	w.want(t, "")
	w.each(20*time.Minute+time.Second, 31*time.Minute, time.Second, scale.Load{}, nil)
	w.want(t, "25m0s 1, 25m1s 0")
}

// always is a window that is always active.
type always struct{}

func (always) Active(time.Time) bool         { return true }
func (always) Change(at time.Time) time.Time { return at.Add(24 * time.Hour) }

// between is a window between two times since t0.
type between struct{ from, to time.Duration }

func (b between) Active(at time.Time) bool {
	since := at.Sub(t0)
	return since >= b.from && since < b.to
}

func (b between) Change(at time.Time) time.Time {
	for _, edge := range []time.Duration{b.from, b.to} {
		if next := t0.Add(edge); next.After(at) {
			return next
		}
	}
	return at.Add(24 * time.Hour)
}

// After a peak, a schedule wants 45 replicas. Azure keeps a count within 10 % of it; fast applies the schedule exactly.
func TestCronAfterAPeak(t *testing.T) {
	for current, want := range map[int]struct{ azure, fast string }{
		49: {"", "5m0s 45"},
		50: {"", "5m0s 45"},
		51: {"5m0s 45", "5m0s 45"},
		56: {"5m0s 45", "5m0s 45"},
	} {
		rules := []scale.Rule{{Name: "hours", Kind: scale.Cron, Target: 45, Window: always{}}, http(10, scale.InFlight)[0]}
		w := &world{Decider: scale.New(azure(rules, 0, 56), scale.State{}), current: current}
		d := w.each(0, 6*time.Minute, time.Second, scale.Load{}, nil)
		w.want(t, want.azure)
		if current == 50 && d.Wishes[0].Note != "within tolerance" {
			t.Errorf("50 for 45: the rule's note is %q, want it to say that this is within tolerance", d.Wishes[0].Note)
		}
		p := fast(rules, 0, 56)
		p.ScaleIn = 300 * time.Second
		w = &world{Decider: scale.New(p, scale.State{}), current: current}
		w.each(0, 6*time.Minute, time.Second, scale.Load{}, nil)
		w.want(t, want.fast)
	}
}

// Only rules that count work scale to and from zero. A cpu rule alone keeps one replica, but does not stop another rule
// from scaling to zero.
func TestCPUAndCron(t *testing.T) {
	cpu := scale.Rule{Name: "cpu", Kind: scale.CPU, Target: 70}
	cron := scale.Rule{Name: "hours", Kind: scale.Cron, Target: 1, Window: between{0, 25 * time.Minute}}
	busy := map[string]scale.Reading{}
	for name, p := range map[string]scale.Policy{"azure": azure([]scale.Rule{cpu, cron}, 0, 3), "fast": fast([]scale.Rule{cpu, cron}, 0, 3)} {
		w := &world{Decider: scale.New(p, scale.State{}), current: 1}
		for at := time.Duration(0); at <= 20*time.Minute; at += 15 * time.Second {
			busy["cpu"] = scale.Reading{Value: 100, Replicas: w.current}
			w.at(at, scale.Load{}, busy)
		}
		if w.current != 3 {
			t.Errorf("%s: %d replicas at 100 %% cpu, want 3", name, w.current)
		}
		d := w.each(20*time.Minute+15*time.Second, 60*time.Minute, 15*time.Second, scale.Load{}, map[string]scale.Reading{"cpu": {Value: 10, Replicas: 3}})
		if w.current != 0 {
			t.Errorf("%s: %d replicas after the window of cron (%s), want 0", name, w.current, d.Reason)
		}
	}
	for name, p := range map[string]scale.Policy{"azure": azure([]scale.Rule{cpu}, 0, 3), "fast": fast([]scale.Rule{cpu}, 0, 3)} {
		w := &world{Decider: scale.New(p, scale.State{}), current: 3}
		w.each(0, time.Hour, 15*time.Second, scale.Load{}, map[string]scale.Reading{"cpu": {Value: 0, Replicas: 3}})
		if w.current != 1 {
			t.Errorf("%s: cpu alone leads to %d, want 1", name, w.current)
		}
	}
}

// A rule about an amount is computed as the Kubernetes autoscaler computes it (GetRawResourceReplicas): the mean over the
// ready replicas by the target, times their number; within a tenth of the target nothing changes; never zero.
func TestAmounts(t *testing.T) {
	tests := map[string]struct {
		rule    scale.Rule
		value   float64
		current int
		want    int // after an hour
	}{
		"cpu above":        {scale.Rule{Kind: scale.CPU, Target: 0.5, Amount: true}, 0.8, 2, 4}, // ceil(2 x 0.8 / 0.5)
		"cpu in tolerance": {scale.Rule{Kind: scale.CPU, Target: 0.5, Amount: true}, 0.55, 2, 2},
		"cpu below":        {scale.Rule{Kind: scale.CPU, Target: 0.5, Amount: true}, 0.2, 5, 2},
		"cpu idle":         {scale.Rule{Kind: scale.CPU, Target: 0.5, Amount: true}, 0, 5, 1},
		"memory above":     {scale.Rule{Kind: scale.Memory, Target: 600, Amount: true}, 700, 2, 3},
		"memory below":     {scale.Rule{Kind: scale.Memory, Target: 600, Amount: true}, 100, 3, 1},
	}
	for name, test := range tests {
		test.rule.Name = "r"
		for behaviour, p := range map[string]scale.Policy{"azure": azure([]scale.Rule{test.rule}, 0, 10), "fast": fast([]scale.Rule{test.rule}, 0, 10)} {
			w := &world{Decider: scale.New(p, scale.State{}), current: test.current}
			load := test.value * float64(test.current) // stays the same in all
			for at := time.Duration(0); at <= time.Hour; at += 15 * time.Second {
				w.at(at, scale.Load{}, map[string]scale.Reading{"r": {Value: load / float64(w.current), Replicas: w.current}})
			}
			if w.current != test.want {
				t.Errorf("%s, %s: got %d replicas, want %d", name, behaviour, w.current, test.want)
			}
		}
	}
}

func TestFailedSourceKeepsTheCount(t *testing.T) {
	for name, p := range map[string]scale.Policy{"azure": azure(queue(), 0, 10), "fast": fast(queue(), 0, 10)} {
		for what, r := range map[string]map[string]scale.Reading{
			"away":     {"queue": {Err: "connection refused"}},
			"no value": nil,
			"NaN":      {"queue": {Value: nan(), Target: 5}},
			"negative": {"queue": {Value: -1, Target: 5}},
			"target 0": {"queue": {Value: 7}},
		} {
			w := &world{Decider: scale.New(p, scale.State{}), current: 4}
			d := w.each(0, time.Hour, 15*time.Second, scale.Load{}, r)
			if w.current != 4 || !d.Wishes[0].Failed || d.Wishes[0].Note == "" {
				t.Errorf("%s, %s: %d replicas (%+v), want the 4 that there were and a note", name, what, w.current, d.Wishes)
			}
		}
	}
}

func nan() float64 { z := 0.0; return z / z }

// As KEDA does, a source that is not active is scaled to zero whatever its value is, and wakes nothing.
func TestTheValueOfASourceCountsWhileItIsActive(t *testing.T) {
	for name, p := range map[string]scale.Policy{"azure": azure(queue(), 0, 10), "fast": fast(queue(), 0, 10)} {
		w := &world{Decider: scale.New(p, scale.State{})}
		busy := scale.Reading{Value: 20, Target: 5, Active: true}
		w.each(0, 15*time.Second, time.Second, scale.Load{}, map[string]scale.Reading{"queue": busy})
		busy.Active = false
		w.each(16*time.Second, 5*time.Minute, time.Second, scale.Load{}, map[string]scale.Reading{"queue": busy})
		if w.current != 4 {
			t.Errorf("%s: %d replicas within the cool-down period, want 4", name, w.current)
		}
		d := w.each(5*time.Minute, 20*time.Minute, time.Second, scale.Load{}, map[string]scale.Reading{"queue": busy})
		if w.current != 0 || !strings.Contains(d.Wishes[0].Note, "not active") {
			t.Errorf("%s: %d replicas after the cool-down period, want 0; note %q", name, w.current, d.Wishes[0].Note)
		}
	}
}

// A push says that there is work although its amount cannot be read.
func TestAPushWakesAlthoughTheValueFails(t *testing.T) {
	for name, p := range map[string]scale.Policy{"azure": azure(queue(), 0, 10), "fast": fast(queue(), 0, 10)} {
		w := &world{Decider: scale.New(p, scale.State{})}
		w.each(0, time.Minute, time.Second, scale.Load{}, map[string]scale.Reading{"queue": {Err: "away", Active: true}})
		w.want(t, "0s 1")
		t.Log(name)
	}
}

func TestHugeValuesStayWithinMax(t *testing.T) {
	for name, p := range map[string]scale.Policy{"azure": azure(queue(), 0, 10), "fast": fast(queue(), 0, 10)} {
		w := &world{Decider: scale.New(p, scale.State{})}
		w.each(0, 10*time.Minute, 15*time.Second, scale.Load{}, map[string]scale.Reading{"queue": {Value: 1 << 63, Target: 5, Active: true}})
		if w.current != 10 {
			t.Errorf("%s: %d replicas for 2^63, want 10", name, w.current)
		}
	}
}

func TestUnknownRulesKeepOne(t *testing.T) {
	rule := scale.Rule{Name: "bus", Kind: scale.Other, Type: "azure-servicebus"}
	for name, p := range map[string]scale.Policy{"azure": azure([]scale.Rule{rule}, 0, 10), "fast": fast([]scale.Rule{rule}, 0, 10)} {
		w := &world{Decider: scale.New(p, scale.State{})}
		d := w.each(0, time.Hour, 15*time.Second, scale.Load{}, nil)
		if w.current != 1 || d.Wishes[0].Note != "not evaluated here: azure-servicebus" {
			t.Errorf("%s: %d replicas, note %q", name, w.current, d.Wishes[0].Note)
		}
	}
}

func TestNoRuleGoesToZero(t *testing.T) {
	for _, p := range []scale.Policy{azure(nil, 0, 10), fast(nil, 0, 10)} {
		w := &world{Decider: scale.New(p, scale.State{}), current: 1}
		w.each(0, 310*time.Second, time.Second, scale.Load{}, nil)
		w.want(t, "5m0s 0")
	}
}

// BenchmarkDecide is one decision under load.
func BenchmarkDecide(b *testing.B) {
	d := scale.New(fast(http(10, scale.InFlight), 0, 100), scale.State{})
	at := t0
	for b.Loop() {
		at = at.Add(10 * time.Millisecond)
		d.Decide(scale.Sample{At: at, Current: 5, Load: scale.Load{Arrived: 3, Completed: 3, Served: time.Second, Busy: 300 * time.Millisecond, InFlight: 30}})
	}
}
