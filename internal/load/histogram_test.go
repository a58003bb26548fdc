package load_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"penstock/internal/load"
)

// exact is the smallest value that a share q of all do not exceed.
func exact(sorted []time.Duration, q float64) time.Duration {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func TestQuantilesAreWithinOnePercent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	tests := map[string]func() time.Duration{
		"from a nanosecond to a day": func() time.Duration { return time.Duration(math.Exp(random.Float64() * math.Log(86400e9))) },
		"around a millisecond":       func() time.Duration { return time.Duration(1e6 * (1 + random.Float64())) },
		"few values":                 func() time.Duration { return time.Duration(random.IntN(300)) },
		"all one":                    func() time.Duration { return 123456789 },
	}
	for name, draw := range tests {
		t.Run(name, func(t *testing.T) {
			whole, half := load.NewHistogram(), load.NewHistogram()
			var values []time.Duration
			for i := range 20_000 {
				v := draw()
				values = append(values, v)
				if i%2 == 0 {
					whole.Add(v)
				} else {
					half.Add(v)
				}
			}
			whole.Merge(half)
			slices.Sort(values)
			for _, q := range []float64{0.0001, 0.1, 0.5, 0.9, 0.99, 0.999, 1} {
				got, want := whole.Quantile(q), exact(values, q)
				if e := math.Abs(float64(got - want)); e > 0.004*float64(want)+1 {
					t.Errorf("quantile %v: got %s, want %s (error %.2f %%)", q, got, want, 100*e/float64(want))
				}
			}
			if q := whole.Quantiles(); q.Count != 20_000 || q.Max != float64(values[len(values)-1])/1e6 || q.Min != float64(values[0])/1e6 {
				t.Errorf("got %+v, want exact count, min and max", q)
			}
		})
	}
}

func TestHistogramOfExtremes(t *testing.T) {
	h := load.NewHistogram()
	if h.Quantiles() != nil || h.Quantile(0.5) != 0 {
		t.Error("an empty one has quantiles")
	}
	for _, v := range []time.Duration{-5, 0, math.MaxInt64} {
		h.Add(v)
	}
	if h.Quantile(0.3) != 0 || h.Quantile(1) != math.MaxInt64 {
		t.Errorf("got %d and %d", h.Quantile(0.3), h.Quantile(1))
	}
}

func FuzzHistogramError(f *testing.F) {
	for _, v := range []int64{0, 1, 127, 128, 255, 256, 257, 1e6, math.MaxInt64} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v int64) {
		if v < 0 || v == math.MaxInt64 {
			return
		}
		h := load.NewHistogram()
		h.Add(0)
		h.Add(time.Duration(v))
		h.Add(math.MaxInt64)
		got := h.Quantile(0.5) // the middle one of three
		if e := math.Abs(float64(got) - float64(v)); e > 0.004*float64(v)+1 {
			t.Errorf("got %d, want %d", got, v)
		}
	})
}
