package load

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"penstock/internal/histogram"
)

// tally gathers records into what a summary needs.
type tally struct {
	timeline *Timeline // guarded by mu too

	mu          sync.Mutex
	sum         Summary
	latency     *histogram.Histogram
	service     *histogram.Histogram
	lag         *histogram.Histogram
	firstByte   *histogram.Histogram
	firstEvent  *histogram.Histogram
	gaps        *histogram.Histogram
	delays      *histogram.Histogram
	failed      *histogram.Histogram
	outstanding int
	records     *bufio.Writer // nil: none
	encode      *json.Encoder
	recordsErr  error
}

func newHistogram() *histogram.Histogram { return histogram.New(histogram.Fine) }

func newTally(records io.Writer, planned time.Duration) *tally {
	t := &tally{
		timeline: newTimeline(planned),
		sum:      Summary{Statuses: map[int]int64{}, Errors: map[Class]*Failure{}},
		latency:  newHistogram(), service: newHistogram(), lag: newHistogram(), firstByte: newHistogram(),
		firstEvent: newHistogram(), gaps: newHistogram(), delays: newHistogram(), failed: newHistogram(),
	}
	if records != nil {
		t.records = bufio.NewWriterSize(records, 64<<10)
		t.encode = json.NewEncoder(t.records)
	}
	return t
}

// begin counts a request that is about to be sent, or is given up unsent.
func (t *tally) begin(scheduled time.Duration, held bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Requests++
	if held {
		t.sum.Held++
	}
	t.outstanding++
	t.sum.PeakOutstanding = max(t.sum.PeakOutstanding, t.outstanding)
	t.timeline.due(scheduled)
}

// end counts what became of it.
func (t *tally) end(r *Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outstanding--
	if r.Status != 0 {
		t.sum.Statuses[r.Status]++
	}
	t.sum.BytesIn += r.Bytes
	t.sum.BytesOut += r.BytesOut
	t.sum.Events += r.Events
	if r.Error != Unsent {
		t.sum.Sent++
		if !r.Held {
			t.lag.Add(r.Sent - r.Scheduled)
		}
	}
	latency := r.LastByte - r.Scheduled
	t.timeline.done(r.Scheduled, r.LastByte, latency, r.Error == "")
	if r.Error == "" {
		t.sum.Succeeded++
		t.latency.Add(latency)
		t.service.Add(r.LastByte - r.Sent)
		t.firstByte.Add(r.FirstByte - r.Scheduled)
		if r.Left {
			t.sum.Left++
		}
		if r.Events > 0 {
			t.firstEvent.Add(r.FirstEvent - r.Scheduled)
		}
	} else {
		t.sum.Failed++
		t.failed.Add(latency)
		f := t.sum.Errors[r.Error]
		if f == nil {
			f = &Failure{}
			t.sum.Errors[r.Error] = f
		}
		f.Count++
		if f.Example == "" {
			f.Example = r.Detail
			if r.Error == Status {
				f.Example = fmt.Sprint("status ", r.Status)
			}
		}
	}
	if t.encode != nil && t.recordsErr == nil {
		t.recordsErr = t.encode.Encode(r)
	}
}

// flushAt is how many times of events a worker keeps before it counts them.
const flushAt = 128

func (s *scratch) gap(d time.Duration) {
	if s.gaps = append(s.gaps, d); len(s.gaps) == flushAt {
		s.flush()
	}
}

func (s *scratch) delay(d time.Duration) {
	if s.delays = append(s.delays, d); len(s.delays) == flushAt {
		s.flush()
	}
}

// flush counts the times of events that the worker has kept.
func (s *scratch) flush() {
	if len(s.gaps)+len(s.delays) == 0 {
		return
	}
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	for _, d := range s.gaps {
		s.tally.gaps.Add(d)
	}
	for _, d := range s.delays {
		s.tally.delays.Add(d)
	}
	s.gaps, s.delays = s.gaps[:0], s.delays[:0]
}

// summary closes the count.
func (t *tally) summary(elapsed time.Duration) (*Summary, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.sum
	s.Seconds = elapsed.Seconds()
	if elapsed > 0 {
		s.PerSecond = float64(s.Succeeded) / elapsed.Seconds()
	}
	s.Latency, s.Service, s.Lag = quantiles(t.latency), quantiles(t.service), quantiles(t.lag)
	s.FirstByte, s.FirstEvent = quantiles(t.firstByte), quantiles(t.firstEvent)
	s.BetweenEvents, s.EventDelay, s.FailedAfter = quantiles(t.gaps), quantiles(t.delays), quantiles(t.failed)
	if t.records != nil && t.recordsErr == nil {
		t.recordsErr = t.records.Flush()
	}
	if t.recordsErr != nil {
		return s, fmt.Errorf("write records: %w", t.recordsErr)
	}
	return s, nil
}
