package bench

import (
	"slices"
	"time"
)

// Stats summarizes timed cycles.
type Stats struct {
	Count         int
	Min, P50, P95 time.Duration
	P99, Max      time.Duration
}

func statsOf(times []time.Duration) Stats {
	if len(times) == 0 {
		return Stats{}
	}
	s := slices.Sorted(slices.Values(times))
	at := func(percent int) time.Duration { return s[min(len(s)*percent/100, len(s)-1)] }
	return Stats{Count: len(s), Min: s[0], P50: at(50), P95: at(95), P99: at(99), Max: s[len(s)-1]}
}

func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
