package scale

import "time"

// Schedule returns the times of a cron expression.
type Schedule interface {
	// Next returns the first time after t, or the zero time if there is none.
	Next(t time.Time) time.Time
}

// Hours is the window of a cron rule: from each time of Start to the next time of End, in a time zone.
//
// As in KEDA (pkg/scalers/cron_scaler.go), the window is active unless the next start comes before the next end. If
// several starts come before an end, the window is active from the last of them.
type Hours struct {
	Start, End Schedule
	In         *time.Location
}

// Active implements Window. It evaluates both schedules at the same time, so the answer is consistent.
func (h Hours) Active(at time.Time) bool {
	start, end := h.Start.Next(at.In(h.In)), h.End.Next(at.In(h.In))
	return !end.IsZero() && (start.IsZero() || end.Before(start))
}

// maxStarts is how many starts before one end Change looks at.
const maxStarts = 100

// Change implements Window. If more than maxStarts starts come before an end, it returns a time before the change.
func (h Hours) Change(at time.Time) time.Time {
	active := h.Active(at)
	for range maxStarts {
		start, end := h.Start.Next(at.In(h.In)), h.End.Next(at.In(h.In))
		if at = start; start.IsZero() || !end.IsZero() && end.Before(start) {
			at = end
		}
		if at.IsZero() || h.Active(at) != active {
			break
		}
	}
	return at
}
