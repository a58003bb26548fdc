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
//
// A time of day that the clock skips counts as the moment at which it does. KEDA has no such time that day, so that
// a window is off for a day when its start is skipped, and from the day before when its end is.
type Hours struct {
	Start, End Schedule
	In         *time.Location
}

// Active implements Window. It evaluates both schedules at the same time, so the answer is consistent.
func (h Hours) Active(at time.Time) bool {
	start, end := h.next(at)
	return !end.IsZero() && (start.IsZero() || end.Before(start))
}

// maxStarts is how many starts before one end Change looks at.
const maxStarts = 100

// Change implements Window. If more than maxStarts starts come before an end, it returns a time before the change.
func (h Hours) Change(at time.Time) time.Time {
	active := h.Active(at)
	for range maxStarts {
		start, end := h.next(at)
		if at = start; start.IsZero() || !end.IsZero() && end.Before(start) {
			at = end
		}
		if at.IsZero() {
			break
		}
		if at.Location() == time.UTC { // as a clock shows it
			at, _ = instant(at, h.In)
		}
		if h.Active(at) != active {
			break
		}
	}
	return at
}

// next returns the next start and end. If the clock skips one of them, both are what the clock would show, in UTC: two
// times that are skipped together are still one after the other.
func (h Hours) next(at time.Time) (start, end time.Time) {
	at = at.In(h.In)
	shown := time.Date(at.Year(), at.Month(), at.Day(), at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), time.UTC)
	start, end = h.Start.Next(shown), h.End.Next(shown)
	_, startSkipped := instant(start, h.In)
	_, endSkipped := instant(end, h.In)
	if startSkipped || endSkipped {
		return start, end
	}
	return h.Start.Next(at), h.End.Next(at)
}

// instant returns when a clock in a time zone shows what shown is in UTC, and whether the clock skips that. The moment is
// then the one at which it does.
func instant(shown time.Time, in *time.Location) (at time.Time, skipped bool) {
	if shown.IsZero() {
		return shown, false
	}
	at = time.Date(shown.Year(), shown.Month(), shown.Day(), shown.Hour(), shown.Minute(), shown.Second(), shown.Nanosecond(), in)
	_, offset := at.Zone()
	off := at.Add(time.Duration(offset) * time.Second).Sub(shown)
	if off == 0 {
		return at, false
	}
	before, after := at.ZoneBounds()
	if off > 0 {
		return before, true
	}
	return after, true
}
