// Package leak finds out from the memory that a container uses over time whether it leaks, and when it will reach its limit.
// It takes times as arguments and reads no clock.
//
// The memory of a process that does not leak grows as well: while it starts and warms up, under load, and until its garbage
// collector runs next. So the growth is measured on the lowest use in each of many periods. It counts only if it goes on
// through most of them, does not slow down, and does not stay below what was used and freed again before.
//
//	samples ──► lowest use in periods of 2 s, 8 s, 32 s ... 9 h, 24 of each
//	                │ the longest periods of which enough grow steadily
//	                ▼
//	             Trend: bytes an hour, time to the limit
package leak

import (
	"cmp"
	"slices"
	"time"
)

const (
	// Periods of level n are shortest * 4^n long. The longest are 9 hours, which is nine days of history.
	shortest = 2 * time.Second
	levels   = 8
	kept     = 24 // periods of each level
	// fewest is how many periods a trend needs. With fewer, chance looks like growth too often.
	fewest = 8

	// Settle is for how long after its start a container's growth counts as warming up, unless the app is known to leak.
	Settle = 5 * time.Minute
	// material is the share of the limit by which memory must grow, or be freed, to matter.
	material = 0.05
	// A trend is certain when it has lasted as long as it would take to reach the limit, or for longEnough if the limit is
	// reached within farthest.
	longEnough = 24 * time.Hour // whoever has little to do at night uses less then
	farthest   = 7 * 24 * time.Hour
	// freedFor is how long a use that was freed again is remembered. Growth below it is not a leak.
	freedFor = 24 * time.Hour
)

// Trace is the memory of one process over time. The zero value is ready for use.
type Trace struct {
	began       time.Time // of the process, or when it became ready
	at          time.Time // of the last sample
	used, limit int64
	base        int64 // use when it had settled; 0 before
	peak        int64 // highest use since memory was freed last
	freed       int64 // the use from which memory was freed last
	freedAt     time.Time
	recent      []point // the last samples
	levels      [levels]level
}

type point struct {
	at   time.Time
	used int64
}

// level has the lowest use in each period.
type level struct {
	open   point   // lowest use in the current period; at is its start
	lowest []point // of the complete periods
	slope  float64 // bytes per second, 0 if the memory does not grow steadily
	even   bool    // the growth is not much faster than it was at first
}

// Trend is how a container's memory grows.
type Trend struct {
	Used, Limit int64
	// PerHour is by how many bytes an hour the memory grows. 0 means that it does not grow steadily.
	PerHour int64
	// Left is the time until the limit is reached, if PerHour is more than 0.
	Left time.Duration
	// Over is how long the growth has been observed.
	Over time.Duration
	// Certain is set if the growth has gone on for so long that it is a leak, and not warming up.
	Certain bool
}

// Add adds a sample: what is used of the limit, in bytes. began is when the process became ready. Samples must be in order.
func (t *Trace) Add(began, at time.Time, used, limit int64) {
	if !at.After(t.at) || limit <= 0 {
		return
	}
	if t.at.IsZero() {
		t.began = began
		if at.Sub(began) > Settle {
			t.base = 1 // nobody has observed it before, so what it needs is not known; all of it may have leaked
		}
	}
	t.at, t.used, t.limit = at, used, limit
	if t.base == 0 && at.Sub(t.began) >= Settle {
		t.base = max(used, 1)
	}
	if t.peak-used >= int64(material*float64(limit)) {
		if at.Sub(t.freedAt) > freedFor {
			t.freed = 0
		}
		t.freed, t.freedAt, t.peak = max(t.freed, t.peak), at, used
	}
	t.peak = max(t.peak, used)
	if t.recent = append(t.recent, point{at, used}); len(t.recent) > fewest {
		t.recent = slices.Delete(t.recent, 0, 1)
	}
	width := shortest
	for i := range t.levels {
		t.levels[i].add(at, used, width)
		width *= 4
	}
}

func (l *level) add(at time.Time, used int64, width time.Duration) {
	switch {
	case l.open.at.IsZero():
		l.open = point{at, used}
	case at.Sub(l.open.at) < width:
		l.open.used = min(l.open.used, used)
	default:
		if l.lowest = append(l.lowest, l.open); len(l.lowest) > kept {
			l.lowest = slices.Delete(l.lowest, 0, 1)
		}
		l.open = point{at, used}
		l.slope, l.even = steady(l.lowest)
	}
}

// steady returns the slope of points that grow steadily, in bytes per second, and 0 for others. even is false if they grow much
// faster than they did at first.
func steady(list []point) (perSecond float64, even bool) {
	if len(list) < fewest {
		return 0, false
	}
	up, down := 0, 0
	for i, a := range list {
		for _, b := range list[i+1:] {
			if b.used > a.used {
				up++
			} else if b.used < a.used {
				down++
			}
		}
	}
	pairs := len(list) * (len(list) - 1) / 2
	if float64(up-down) < 0.8*float64(pairs) {
		return 0, false
	}
	whole := slope(list)
	if whole <= 0 {
		return 0, false
	}
	half := len(list) / 2
	before, after := slope(list[:half+1]), slope(list[half:])
	if after < before/2 {
		return 0, false // it slows down
	}
	return whole, after <= 2*before
}

// slope returns the median of the slopes between all points, in bytes per second (Theil and Sen). Single points that are far
// from the others do not change it.
func slope(list []point) float64 {
	var all []float64
	for i, a := range list {
		for _, b := range list[i+1:] {
			all = append(all, float64(b.used-a.used)/b.at.Sub(a.at).Seconds())
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// Memory is what is known about the memory of a container.
type Memory struct {
	Replica, Container string
	Trend
	// Worn says why the replica is being replaced, and is empty otherwise.
	Worn string
}

// Trend returns the growth over the longest time in which it was steady, and even if possible. If it has become faster, and the
// limit is reached within less time than that has been observed, it returns the faster growth.
func (t *Trace) Trend() Trend {
	trend := Trend{Used: t.used, Limit: t.limit}
	even := false
	for i := levels - 1; i >= 0; i-- {
		now, ok := t.growth(&t.levels[i])
		switch {
		case !ok:
		case trend.PerHour == 0, t.levels[i].even && !even && !trend.lasting(), now.lasting() && now.Left < trend.Left/2:
			trend, even = now, t.levels[i].even
		}
	}
	return trend
}

// growth returns the growth in the periods of a level. ok is false if it is none.
func (t *Trace) growth(l *level) (trend Trend, ok bool) {
	if l.slope <= 0 {
		return trend, false
	}
	first, last := l.lowest[0], l.lowest[len(l.lowest)-1]
	freed := !t.freedAt.IsZero() && t.at.Sub(t.freedAt) <= freedFor
	if freed && first.at.After(t.freedAt) && t.used <= t.freed {
		return trend, false // so much was in use before, and was freed
	}
	grown := l.slope * last.at.Sub(first.at).Seconds()
	if grown < float64(t.limit)/100 {
		return trend, false // too little to tell from nothing
	}
	top := t.used
	if freed && !first.at.After(t.freedAt) {
		top = max(top, t.freed) // the limit is reached by the highest use, not by the lowest
	}
	trend = Trend{Used: t.used, Limit: t.limit, PerHour: int64(l.slope * 3600), Left: left(t.limit-top, l.slope), Over: last.at.Sub(first.at)}
	trend.Certain = t.at.Sub(t.began) >= Settle && grown >= material*float64(t.limit) && trend.lasting()
	return trend, true
}

// lasting reports whether a growth has gone on for long, compared with the time to the limit.
func (r Trend) lasting() bool {
	return r.PerHour > 0 && (r.Over >= r.Left || r.Over >= longEnough && r.Left <= farthest)
}

// left returns how long a growth takes. It is at most a hundred years.
func left(bytes int64, perSecond float64) time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	return time.Duration(min(float64(max(bytes, 0))/perSecond, most.Seconds()) * float64(time.Second))
}

// now returns the time to the limit at the speed of the last samples, or false if the memory does not grow.
func (t *Trace) now() (time.Duration, bool) {
	if len(t.recent) < 3 {
		return 0, false
	}
	s := slope(t.recent)
	if s <= 0 {
		return 0, false
	}
	return left(t.limit-t.used, s), true
}

// Policy says when a replica must be replaced.
type Policy struct {
	// Share is the share of the limit from which on a replica is replaced, in percent.
	Share int
	// Lead is how long it takes until a new replica has taken the place of an old one.
	Lead time.Duration
	// Known is set if the revision has reached its limit before, so that its growth is not warming up.
	Known bool
	// Again is set if a replica of the revision was replaced while it may have been warming up. The next one may use more
	// before it is replaced, since a new one would otherwise be replaced for ever where the share is too low.
	Again bool
}

// Worn says why a replica must be replaced now, before it reaches its limit.
type Worn string

const (
	Fits      Worn = ""          // it need not be replaced
	OverShare Worn = "share"     // it uses more than the share
	Warming   Worn = "warming"   // so does it, and it may still be warming up, but it would reach the limit soon
	LimitNear Worn = "limitNear" // at its growth it reaches the limit before another could take its place
)

// Worn reports whether the replica must be replaced.
func (t *Trace) Worn(p Policy) Worn {
	settled := t.base > 0
	trend := t.Trend()
	if (settled || p.Known) && trend.lasting() && trend.Left <= p.Lead && t.used >= t.limit/2 {
		return LimitNear
	}
	share := t.limit * int64(p.Share) / 100
	if settled {
		if t.used >= share && t.used-t.base >= int64(material*float64(t.limit)) {
			return OverShare
		}
		return Fits
	}
	if p.Again {
		share += (t.limit - share) / 2
	}
	if soon, growing := t.now(); growing && t.used >= share && soon <= p.Lead {
		return Warming
	}
	return Fits
}

// Above reports whether a replica used more than a share of its limit, in percent, as soon as it had settled. Another one
// would do so too.
func (t *Trace) Above(share int) bool { return t.base > 0 && t.base >= t.limit*int64(share)/100 }

// Next returns when to take the next sample: soon after the start and when the memory grows fast, and at most so much later.
func (t *Trace) Next(most time.Duration) time.Duration {
	const least = 500 * time.Millisecond
	wait := t.at.Sub(t.began) / 2
	if soon, growing := t.now(); growing {
		wait = min(cmp.Or(wait, most), soon/20)
	} else if t.base > 0 {
		wait = most
	}
	return min(max(wait, least), most)
}
