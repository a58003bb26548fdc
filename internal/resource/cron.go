package resource

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Cron is a schedule of five fields in UTC: minute, hour, day of the month, month, day of the week. It means what it
// means in Kubernetes, on which Container Apps runs scheduled jobs (kubernetes.io/docs/concepts/workloads/controllers/
// cron-jobs, "Schedule syntax"): * and ?, lists, ranges, steps, names of months and days. Sunday is 0, and 7 too. When
// both days are given, either will do; a day that is * or ? is not given, one that is */2 is.
type Cron struct {
	minute, hour, day, month, weekday uint64 // a bit a value
	eitherDay                         bool   // both days are given
}

// cronField is one place of a schedule.
type cronField struct {
	name        string
	least, most int
	names       []string // those of the values from least on
}

// cronFields are the five places in their order.
func cronFields() []cronField {
	return []cronField{
		{"minute", 0, 59, nil},
		{"hour", 0, 23, nil},
		{"day of the month", 1, 31, nil},
		{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
		{"day of the week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
	}
}

// ParseCron reads a schedule, and refuses one that never comes.
func ParseCron(s string) (Cron, error) {
	parts := strings.Fields(s)
	fields := cronFields()
	if len(parts) != len(fields) {
		return Cron{}, fmt.Errorf("want 5 fields (minute, hour, day of the month, month, day of the week), got %d in %q", len(parts), s)
	}
	var sets [5]uint64
	var given [5]bool
	for i, f := range fields {
		for item := range strings.SplitSeq(parts[i], ",") {
			set, all, err := f.parse(item)
			if err != nil {
				return Cron{}, fmt.Errorf("%s: %w", f.name, err)
			}
			sets[i] |= set
			given[i] = given[i] || !all
		}
	}
	c := Cron{minute: sets[0], hour: sets[1], day: sets[2], month: sets[3], weekday: sets[4], eitherDay: given[2] && given[4]}
	if c.weekday&(1<<7) != 0 {
		c.weekday = c.weekday&^(1<<7) | 1
	}
	if c.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, fmt.Errorf("%q never comes: no such month has such a day", s)
	}
	return c, nil
}

// parse reads one item of a list: "*", "5", "1-5", "*/15", "1-30/2", "5/15" (from 5 on).
func (f cronField) parse(item string) (set uint64, all bool, err error) {
	span, step, stepped := strings.Cut(item, "/")
	by := 1
	if stepped {
		if by, err = strconv.Atoi(step); err != nil || by < 1 || by > f.most || !digits(step) {
			return 0, false, fmt.Errorf("want a step from 1 to %d after '/', got %q", f.most, item)
		}
	}
	from, to := f.least, f.most
	if span != "*" && span != "?" {
		first, last, ranged := strings.Cut(span, "-")
		if from, err = f.value(first); err != nil {
			return 0, false, fmt.Errorf("%w in %q", err, item)
		}
		switch {
		case ranged:
			if to, err = f.value(last); err != nil {
				return 0, false, fmt.Errorf("%w in %q", err, item)
			}
			if to < from {
				return 0, false, fmt.Errorf("want a range from less to more, got %q", item)
			}
		case !stepped:
			to = from
		}
	} else {
		all = by == 1
		to = f.top()
	}
	for n := from; n <= to; n += by {
		set |= 1 << n
	}
	return set, all, nil
}

// top is the last value that * stands for: Sunday is not there twice, or */2 would come on two days in a row.
func (f cronField) top() int {
	if len(f.names) == 7 {
		return 6
	}
	return f.most
}

func (f cronField) value(s string) (int, error) {
	if i := slices.Index(f.names, strings.ToLower(s)); i >= 0 {
		return f.least + i, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || !digits(s) || n < f.least || n > f.most {
		return 0, fmt.Errorf("want %d to %d%s, got %q", f.least, f.most, f.orNames(), s)
	}
	return n, nil
}

func (f cronField) orNames() string {
	if len(f.names) == 0 {
		return ""
	}
	return fmt.Sprintf(" or %s to %s", f.names[0], f.names[len(f.names)-1])
}

// digits keeps out what Atoi takes beside them: signs.
func digits(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// longestGap is more than the longest time between two days of a schedule: 29 February is missing in 1900, 2100 and so on.
const longestGap = 9 * 366

// Next is the first time of the schedule after t; zero when none comes.
func (c Cron) Next(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Minute).Add(time.Minute)
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	hour, minute := t.Hour(), t.Minute()
	for range longestGap {
		if c.on(day) {
			for ; hour < 24; hour, minute = hour+1, 0 {
				if c.hour>>hour&1 == 0 {
					continue
				}
				if rest := c.minute >> minute; rest != 0 {
					return time.Date(day.Year(), day.Month(), day.Day(), hour, minute+bits.TrailingZeros64(rest), 0, 0, time.UTC)
				}
			}
		}
		day, hour, minute = day.AddDate(0, 0, 1), 0, 0
	}
	return time.Time{}
}

// on says whether the schedule comes on a day.
func (c Cron) on(day time.Time) bool {
	ofMonth, ofWeek := c.day>>day.Day()&1 != 0, c.weekday>>day.Weekday()&1 != 0
	switch {
	case c.month>>day.Month()&1 == 0:
		return false
	case c.eitherDay:
		return ofMonth || ofWeek
	}
	return ofMonth && ofWeek
}

// Newest is the last time of the schedule after since and not after now; zero when none was.
func (c Cron) Newest(since, now time.Time) time.Time {
	// Backwards in steps that grow: a job that was away for a year is not walked through minute by minute.
	for back := time.Hour; ; back *= 4 {
		from := now.Add(-back)
		if from.Before(since) {
			from = since
		}
		var newest time.Time
		for at := c.Next(from); !at.IsZero() && !at.After(now); at = c.Next(at) {
			newest = at
		}
		if !newest.IsZero() || !from.After(since) {
			return newest
		}
	}
}
