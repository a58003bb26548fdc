package room

import "time"

const (
	// refusedFor is how long an app that accepts no connection is tried before the answer is 503. Azure's ingress was
	// measured to answer after 0.25 to 0.5 s. A replica that has just died leaves the table well within it.
	refusedFor = 500 * time.Millisecond

	firstPause = 10 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// Pause begins another round of tries after ErrTried, and returns how long to wait before it. It is not ok when the
// replicas have been tried for long enough.
func (t *Ticket) Pause(now time.Time) (d time.Duration, ok bool) {
	if now.Sub(t.failed) >= refusedFor {
		return 0, false
	}
	t.tried = t.tried[:0]
	d = min(firstPause<<t.pauses, lastPause)
	t.pauses++
	return d, true
}
