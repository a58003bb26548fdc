package link

import (
	"encoding/json"
	"fmt"
	"time"

	"penstock/internal/histogram"
)

// Traffic is what an ingress has counted since it started. Counts and integrals only grow, so a report that is lost or
// seen twice does no harm. Rates and averages are differences of two reports of one ingress.
type Traffic struct {
	// Replicas is by name. It contains replicas that are in the table or serve requests, once they have been given one.
	Replicas map[string]Tally `json:"replicas,omitempty"`
	// Revisions is by revision ID. It contains revisions that are in the table or serve requests. An ingress that does
	// not measure omits it.
	Revisions map[string]Load `json:"revisions,omitempty"`
	// Refused counts the requests that the ingress answered itself because no replica could take them, by revision ID.
	Refused map[string]uint64 `json:"refused,omitempty"`
	// Heard is how long ago a byte of a response last came from a replica, if that is within HeardFor. It is a duration
	// and not a time, so changing the clock does not matter.
	Heard map[string]time.Duration `json:"heard,omitempty"`
	// Loops is how long ago a request was ended because it had come to the same app too often, by the app's resource ID, if
	// that is within HeardFor.
	Loops map[string]time.Duration `json:"loops,omitempty"`
}

// HeardFor is longer than any caller asks about.
const HeardFor = 30 * time.Second

// Load is the load of a revision. It starts again from zero if the revision leaves the table and comes back.
type Load struct {
	// Arrivals counts all requests that arrived. A request that waited at another revision first is counted here too.
	Arrivals uint64 `json:"arrivals"`
	// Ended counts the requests that were on a replica and have ended, and Served is the sum of their times on it.
	Ended  uint64        `json:"ended,omitempty"`
	Served time.Duration `json:"served,omitempty"`
	// Now is the number of requests on replicas at this moment, and Queued of those waiting for one.
	Now    int `json:"now,omitempty"`
	Queued int `json:"queued,omitempty"`
	// Open is the number of clients' open connections whose last request was for the revision. It is counted only if a rule
	// of the revision asks for it.
	Open int `json:"open,omitempty"`
	// InFlight measures the requests on all replicas, including replicas that are gone.
	InFlight Integral `json:"inFlight"`
	// Waiting measures the requests that wait for a replica.
	Waiting Integral `json:"waiting"`
}

// Tally counts the requests that a replica has answered or whose client left.
type Tally struct {
	Requests uint64 `json:"requests"`
	Errors   uint64 `json:"errors,omitempty"` // answered with a status of 500 or more
	// Latency is measured from the arrival of a request to the end of its response, including the wait.
	Latency Latency `json:"latency"`
	// InFlight measures the requests on the replica. It is zero if the ingress does not measure.
	InFlight Integral `json:"inFlight,omitzero"`
}

// Integral is a number of requests integrated over time: two requests for three seconds are six seconds. The zero value
// means that nothing was measured; a measured sum of zero has an At.
type Integral struct {
	At  time.Duration `json:"at"`  // time since the ingress started
	Sum time.Duration `json:"sum"` // until At
}

// Average returns the average number of requests between an earlier report of the same ingress and this one. It is
// exact. ok is false if the ingress does not measure, if both are from the same moment, or if counting started again in
// between.
func (i Integral) Average(before Integral) (n float64, ok bool) {
	if i.At <= before.At || i.Sum < before.Sum {
		return 0, false
	}
	return float64(i.Sum-before.Sum) / float64(i.At-before.At), true
}

// since returns what was counted after an earlier tally.
func (t *Tally) since(before *Tally) Tally {
	return Tally{Requests: t.Requests - before.Requests, Errors: t.Errors - before.Errors, Latency: t.Latency.since(&before.Latency)}
}

// Latency counts durations in buckets. The error of a quantile is at most 6 %, or half a microsecond. The zero value is
// empty.
type Latency struct {
	counts [latencyBuckets]uint32 // each wraps around at 2^32, which does not affect differences
}

// latencyScale has a bucket per microsecond below 16 µs, and eight per doubling above.
var latencyScale = histogram.Scale{Unit: time.Microsecond, Digits: 3}

// latencyBuckets reach up to 19 hours; the last bucket contains everything longer.
const latencyBuckets = 272

// Add counts one duration.
func (l *Latency) Add(d time.Duration) {
	l.counts[min(latencyScale.Bucket(d), latencyBuckets-1)]++
}

// Merge adds the counts of other.
func (l *Latency) Merge(other *Latency) {
	for i, n := range other.counts {
		l.counts[i] += n
	}
}

func (l *Latency) since(before *Latency) (d Latency) {
	for i, n := range l.counts {
		d.counts[i] = n - before.counts[i]
	}
	return d
}

// Quantile returns the duration that the share q of the counted ones do not exceed, or 0 if there are none.
func (l *Latency) Quantile(q float64) time.Duration { return latencyScale.Quantile(l.counts[:], q) }

// MarshalJSON writes [bucket, count, bucket, count, ...] for the buckets that are not empty.
func (l Latency) MarshalJSON() ([]byte, error) {
	pairs := []uint32{}
	for i, n := range l.counts {
		if n > 0 {
			pairs = append(pairs, uint32(i), n)
		}
	}
	return json.Marshal(pairs)
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *Latency) UnmarshalJSON(b []byte) error {
	var pairs []uint32
	if err := json.Unmarshal(b, &pairs); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	*l = Latency{}
	if len(pairs)%2 != 0 {
		return fmt.Errorf("latency: want pairs of bucket and count, got %d numbers", len(pairs))
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] >= latencyBuckets {
			return fmt.Errorf("latency: want a bucket below %d, got %d", latencyBuckets, pairs[i])
		}
		l.counts[pairs[i]] = pairs[i+1]
	}
	return nil
}
