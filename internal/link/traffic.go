package link

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"time"
)

// Traffic is what an ingress has counted since it began. Counts only grow, so that a report that is lost or seen twice
// falsifies nothing; rates are differences of two.
type Traffic struct {
	// Replicas is by name; only those in the table or with requests, and only those that ever had one.
	Replicas map[string]Tally `json:"replicas,omitempty"`
	// Refused counts what the ingress answered itself for want of a replica, by revision ID.
	Refused map[string]uint64 `json:"refused,omitempty"`
	// Heard says how long ago a byte of an answer last came from a replica, of those within HeardFor. It is no time of
	// day, so that a clock that is set does not matter.
	Heard map[string]time.Duration `json:"heard,omitempty"`
}

// HeardFor is beyond what anyone asks.
const HeardFor = 30 * time.Second

// Tally counts requests that a replica has answered, or whose client left it.
type Tally struct {
	Requests uint64 `json:"requests"`
	Errors   uint64 `json:"errors,omitempty"` // answered with a status of 500 or more
	// Latency is from the request's arrival to the end of its answer, waiting included.
	Latency Latency `json:"latency"`
}

// since is what was counted after an earlier tally.
func (t *Tally) since(before *Tally) Tally {
	return Tally{Requests: t.Requests - before.Requests, Errors: t.Errors - before.Errors, Latency: t.Latency.since(&before.Latency)}
}

// Latency counts durations in buckets: one a microsecond below 8 µs, and eight to each doubling above, so that a
// quantile is wrong by 12 % at most. The zero value is empty.
type Latency struct {
	counts [latencyBuckets]uint32 // each starts anew after 2^32, which differences do not mind
}

const (
	latencyParts   = 8  // buckets a doubling
	latencyTop     = 36 // doublings of a microsecond: 19 hours
	latencyBuckets = latencyParts * (latencyTop - 2)
)

// Add counts one duration.
func (l *Latency) Add(d time.Duration) { l.counts[latencyBucket(d)]++ }

func latencyBucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < latencyParts {
		return int(us)
	}
	doubling := bits.Len64(us) - 1 // at least 3
	return min(latencyParts*(doubling-2)+int(us>>(doubling-3))%latencyParts, latencyBuckets-1)
}

// bounds of a bucket in microseconds.
func latencyBounds(bucket int) (from, to uint64) {
	if bucket < latencyParts {
		return uint64(bucket), uint64(bucket) + 1
	}
	shift := bucket/latencyParts - 1
	from = uint64(latencyParts+bucket%latencyParts) << shift
	return from, from + 1<<shift
}

// Merge adds another's counts.
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

// Quantile is the duration that the share q of those counted do not exceed; 0 when there are none.
func (l *Latency) Quantile(q float64) time.Duration {
	var total uint64
	for _, n := range l.counts {
		total += uint64(n)
	}
	rank, below := q*float64(total), 0.0
	for i, n := range l.counts {
		if n == 0 || below+float64(n) < rank {
			below += float64(n)
			continue
		}
		from, to := latencyBounds(i)
		us := float64(from) + float64(to-from)*(rank-below)/float64(n)
		return time.Duration(us * float64(time.Microsecond))
	}
	return 0
}

// MarshalJSON writes [bucket, count, bucket, count, ...] of the buckets that have any.
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
