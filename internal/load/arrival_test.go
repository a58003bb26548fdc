package load_test

import (
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"penstock/internal/load"
)

// before are the arrivals of the first so many.
func before(arrivals iter.Seq[load.Arrival], end time.Duration) []time.Duration {
	var all []time.Duration
	for a := range arrivals {
		if a.At >= end {
			break
		}
		all = append(all, a.At)
	}
	return all
}

func TestConstantIsEvenToTheEnd(t *testing.T) {
	at := before(load.Constant(3), 1000*time.Second)
	if len(at) != 3000 {
		t.Fatalf("3/s for 1000 s: got %d arrivals, want 3000", len(at))
	}
	for n, d := range at {
		if want := time.Duration(n) * time.Second / 3; (d - want).Abs() > time.Nanosecond {
			t.Fatalf("arrival %d: got %s, want %s", n, d, want)
		}
	}
}

func TestStepsCarryWhatIsLeft(t *testing.T) {
	tests := map[string]struct {
		steps string
		want  []time.Duration
	}{
		"a step ends before its last request's whole time": {"2/s for 1s, 4/s for 500ms", []time.Duration{0, 500e6, 1000e6, 1250e6}},
		"silence":                         {"1/s for 1s, 0/s for 10s, 1/s for 2s", []time.Duration{0, 11e9, 12e9}},
		"half a request is carried":       {"1/s for 1500ms, 2/s for 1s", []time.Duration{0, 1e9, 1750e6, 2250e6}},
		"a rate a minute":                 {"60/m for 2s", []time.Duration{0, 1e9}},
		"decimal fractions end on time":   {"0.1/s for 10s, 0.1/s for 10s", []time.Duration{0, 10e9}},
		"a step too short for one at all": {"1/s for 100ms, 1/s for 100ms", []time.Duration{0}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			steps, err := load.ParseSteps(test.steps)
			if err != nil {
				t.Fatal(err)
			}
			if got := before(load.Stepped(steps), math.MaxInt64); !slices.Equal(got, test.want) {
				t.Errorf("%s: got %v, want %v", test.steps, got, test.want)
			}
		})
	}
}

func TestPoisson(t *testing.T) {
	const rate, length = 200.0, 500 * time.Second
	at := before(load.Poisson(rate, 7), length)
	n := rate * length.Seconds()
	if got := float64(len(at)); math.Abs(got-n) > 4*math.Sqrt(n) {
		t.Errorf("got %.0f arrivals, want about %.0f", got, n)
	}
	// Of independent arrivals the gaps' deviation equals their mean; of even ones it is 0.
	var sum, squares float64
	for i := 1; i < len(at); i++ {
		gap := (at[i] - at[i-1]).Seconds()
		sum, squares = sum+gap, squares+gap*gap
	}
	mean := sum / float64(len(at)-1)
	if cv := math.Sqrt(squares/float64(len(at)-1)-mean*mean) / mean; cv < 0.97 || cv > 1.03 {
		t.Errorf("deviation of the gaps over their mean: got %.3f, want about 1", cv)
	}
	if !slices.Equal(at, before(load.Poisson(rate, 7), length)) {
		t.Error("the same seed gave other arrivals")
	}
	if slices.Equal(at, before(load.Poisson(rate, 8), length)) {
		t.Error("another seed gave the same arrivals")
	}
}

func readTrace(t testing.TB, name string) []load.Arrival {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trace, err := load.ReadTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

func TestTracesOfAzure(t *testing.T) {
	tests := map[string]struct {
		rows, span, busiest, context, generated int
		gap                                     time.Duration
	}{
		"AzureLLMInferenceTrace_code.csv": {8819, 3436, 327, 7437, 1899, 217 * time.Second},
		"AzureLLMInferenceTrace_conv.csv": {19366, 3502, 98, 14050, 1000, 4300 * time.Millisecond},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			trace := readTrace(t, name)
			var context, generated, busiest int
			windows := map[time.Duration]int{}
			var gap time.Duration
			for i, a := range trace {
				context, generated = max(context, a.ContextTokens), max(generated, a.GeneratedTokens)
				if i > 0 {
					gap = max(gap, a.At-trace[i-1].At)
				}
				windows[a.At/(10*time.Second)]++
				busiest = max(busiest, windows[a.At/(10*time.Second)])
			}
			if len(trace) != want.rows || int(math.Round(trace[len(trace)-1].At.Seconds())) != want.span || context != want.context || generated != want.generated {
				t.Errorf("got %d rows over %s, tokens up to %d and %d, want %+v", len(trace), trace[len(trace)-1].At, context, generated, want)
			}
			if (gap-want.gap).Abs() > time.Second || busiest != want.busiest {
				t.Errorf("got a longest gap of %s and %d in 10 s, want %s and %d", gap, busiest, want.gap, want.busiest)
			}
		})
	}
	trace := readTrace(t, "AzureLLMInferenceTrace_code.csv")
	if got, want := trace[1].At, 52*time.Millisecond; (got - want).Abs() > 100*time.Nanosecond {
		t.Errorf("second arrival: got %s, want %s", got, want)
	}
	fast := before(load.Replay(trace, 10), math.MaxInt64)
	if got, want := fast[len(fast)-1], trace[len(trace)-1].At/10; len(fast) != len(trace) || (got-want).Abs() > time.Microsecond {
		t.Errorf("at 10x: got %d ending at %s, want %d at %s", len(fast), got, len(trace), want)
	}
}
