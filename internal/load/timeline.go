package load

import (
	"time"

	"penstock/internal/histogram"
)

// maxBins bounds a timeline: wider than a picture needs.
const maxBins = 256

// Timeline is how a run went, in bins of equal width. When a run goes on for longer than they reach, they are joined two
// by two.
type Timeline struct {
	width time.Duration
	bins  []bin
}

type bin struct {
	due, done, failed int64
	latency           *histogram.Histogram // of those that were due in it
}

func newTimeline(planned time.Duration) *Timeline {
	return &Timeline{width: max(time.Millisecond, planned/(maxBins/2))}
}

func (t *Timeline) at(when time.Duration) *bin {
	for when >= t.width*maxBins {
		for i := range (len(t.bins) + 1) / 2 {
			b := t.bins[2*i]
			if 2*i+1 < len(t.bins) {
				c := t.bins[2*i+1]
				b.due, b.done, b.failed = b.due+c.due, b.done+c.done, b.failed+c.failed
				b.latency.Merge(c.latency)
			}
			t.bins[i] = b
		}
		t.bins = t.bins[:(len(t.bins)+1)/2]
		t.width *= 2
	}
	i := int(when / t.width)
	for len(t.bins) <= i {
		t.bins = append(t.bins, bin{latency: histogram.New(histogram.Coarse)})
	}
	return &t.bins[i]
}

func (t *Timeline) due(scheduled time.Duration) { t.at(scheduled).due++ }

func (t *Timeline) done(scheduled, ended, latency time.Duration, ok bool) {
	b := t.at(ended)
	if !ok {
		b.failed++
		return
	}
	b.done++
	t.at(scheduled).latency.Add(latency)
}
