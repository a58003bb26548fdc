package load

import (
	"time"

	"penstock/internal/histogram"
)

// Quantiles summarizes a histogram, in milliseconds.
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

// quantiles returns nil if nothing was counted.
func quantiles(h *histogram.Histogram) *Quantiles {
	if h.Count() == 0 {
		return nil
	}
	at := func(q float64) float64 { return ms(h.Quantile(q)) }
	return &Quantiles{
		Count: h.Count(), Min: at(0), Mean: ms(h.Mean()), Max: at(1),
		P50: at(0.5), P90: at(0.9), P99: at(0.99), P999: at(0.999),
	}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
