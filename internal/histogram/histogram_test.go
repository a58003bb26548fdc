package histogram_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"penstock/internal/histogram"
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
			whole, half := histogram.New(histogram.Fine), histogram.New(histogram.Fine)
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
			var sum float64
			for _, v := range values {
				sum += float64(v)
			}
			mean := sum / float64(len(values))
			if n, low, high := whole.Count(), whole.Quantile(0), whole.Quantile(1); n != 20_000 || low != values[0] || high != values[len(values)-1] {
				t.Errorf("got %d from %s to %s, want 20000 from %s to %s", n, low, high, values[0], values[len(values)-1])
			}
			if got := float64(whole.Mean()); math.Abs(got-mean) > 1+mean*1e-9 {
				t.Errorf("got mean %v, want %v", got, mean)
			}
		})
	}
}

func TestHistogramOfExtremes(t *testing.T) {
	h := histogram.New(histogram.Fine)
	if h.Count() != 0 || h.Quantile(0.5) != 0 || h.Quantile(1) != 0 || h.Mean() != 0 {
		t.Error("an empty one has a count, quantiles or a mean")
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
		h := histogram.New(histogram.Fine)
		h.Add(0)
		h.Add(time.Duration(v))
		h.Add(math.MaxInt64)
		got := h.Quantile(0.5) // the middle one of three
		if e := math.Abs(float64(got) - float64(v)); e > 0.004*float64(v)+1 {
			t.Errorf("got %d, want %d", got, v)
		}
	})
}

// The numbers of buckets are part of what ingress and control say to each other.
func TestBuckets(t *testing.T) {
	s := histogram.Scale{Unit: time.Microsecond, Digits: 3}
	for d, want := range map[time.Duration]int{
		-time.Second: 0, 0: 0, 999: 0, 7 * time.Microsecond: 7, 8 * time.Microsecond: 8, 15 * time.Microsecond: 15,
		16 * time.Microsecond: 16, 17 * time.Microsecond: 16, 18 * time.Microsecond: 17, 31 * time.Microsecond: 23,
		32 * time.Microsecond: 24, time.Millisecond: 63, time.Second: 143,
	} {
		if got := s.Bucket(d); got != want {
			t.Errorf("%s: got bucket %d, want %d", d, got, want)
		}
	}
	counts := make([]uint32, 64)
	counts[63] = 4 // 960 to 1023 microseconds
	if got, want := s.Quantile(counts, 0.5), 992*time.Microsecond; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := s.Quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: got %s, want 0", got)
	}
}

func BenchmarkAdd(b *testing.B) {
	h := histogram.New(histogram.Fine)
	for i := 0; b.Loop(); i++ {
		h.Add(time.Duration(i&0xfffff) * time.Microsecond)
	}
}
