package load

import (
	"math/bits"
	"time"
)

// A value's bucket is its leading binary digits: this many after the first. Half a bucket is the error.
const (
	fine   = 7 // at most 0.4 %
	coarse = 5 // at most 1.6 %, for the many histograms of a timeline
)

// Histogram counts durations in buckets whose width grows with the value, so that percentiles from a microsecond to an hour
// have the same small relative error, and its size does not grow with what is counted.
type Histogram struct {
	digits   int
	counts   []uint32
	n        int64
	sum      float64
	min, max time.Duration
}

// NewHistogram makes one whose values are wrong by at most 0.4 %.
func NewHistogram() *Histogram { return newHistogram(fine) }

func newHistogram(digits int) *Histogram { return &Histogram{digits: digits} }

func (h *Histogram) bucket(d time.Duration) int {
	shift := max(0, bits.Len64(uint64(d))-1-h.digits)
	return shift<<h.digits + int(d>>shift)
}

// middle is the value in the middle of a bucket.
func (h *Histogram) middle(bucket int) time.Duration {
	shift := max(0, bucket>>h.digits-1)
	low := time.Duration(bucket-shift<<h.digits) << shift
	return low + (1<<shift)/2
}

// Add counts a duration; below 0 is 0.
func (h *Histogram) Add(d time.Duration) {
	d = max(0, d)
	b := h.bucket(d)
	h.grow(b + 1)
	h.counts[b]++
	if h.n == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.sum += float64(d)
	h.n++
}

func (h *Histogram) grow(n int) {
	if n > len(h.counts) {
		h.counts = append(h.counts, make([]uint32, n-len(h.counts))...)
	}
}

// Merge adds what another histogram of the same error has counted.
func (h *Histogram) Merge(other *Histogram) {
	if other.n == 0 {
		return
	}
	h.grow(len(other.counts))
	for b, n := range other.counts {
		h.counts[b] += n
	}
	if h.n == 0 || other.min < h.min {
		h.min = other.min
	}
	h.max = max(h.max, other.max)
	h.sum += other.sum
	h.n += other.n
}

// Count is how many durations have been counted.
func (h *Histogram) Count() int64 { return h.n }

// Quantile is the smallest value that a share q of all do not exceed. Those of 0 and 1 are exact.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := int64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) {
		rank++
	}
	rank = max(1, rank)
	if rank >= h.n {
		return h.max
	}
	var seen int64
	for b, n := range h.counts {
		if seen += int64(n); seen >= rank {
			return min(max(h.middle(b), h.min), h.max)
		}
	}
	return h.max
}

// Quantiles is what a histogram has to say, in milliseconds.
type Quantiles struct {
	Count int64   `json:"count"`
	Min   float64 `json:"min"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

// Quantiles sums the histogram up; nil when nothing was counted.
func (h *Histogram) Quantiles() *Quantiles {
	if h.n == 0 {
		return nil
	}
	return &Quantiles{
		Count: h.n, Min: ms(h.min), Mean: h.sum / float64(h.n) / 1e6, Max: ms(h.max),
		P50: ms(h.Quantile(0.5)), P90: ms(h.Quantile(0.9)), P99: ms(h.Quantile(0.99)), P999: ms(h.Quantile(0.999)),
	}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
