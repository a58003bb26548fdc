package resource

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Cron is a schedule with five fields: minute, hour, day of the month, month, day of the week. Its parser is the one of
// Kubernetes' CronJobs, by which Container Apps runs scheduled jobs, so an expression means the same here. Sunday is 0.
// When both day fields are restricted, a day that matches either of them counts.
type Cron struct{ schedule cron.Schedule }

// cronFields are the five fields in their order, with the values that each accepts.
func cronFields() []struct{ name, want string } {
	return []struct{ name, want string }{
		{"minute", "0 to 59"},
		{"hour", "0 to 23"},
		{"day of the month", "1 to 31"},
		{"month", "1 to 12 or jan to dec"},
		{"day of the week", "0 (Sunday) to 6 or sun to sat"},
	}
}

// ParseCron parses a schedule. It refuses a schedule that has no time at all, such as 30 February.
func ParseCron(s string) (Cron, error) {
	parts, fields := strings.Fields(s), cronFields()
	if len(parts) > 0 && (strings.HasPrefix(parts[0], "TZ=") || strings.HasPrefix(parts[0], "CRON_TZ=")) {
		return Cron{}, fmt.Errorf("want 5 fields without a time zone in front, got %q", s)
	}
	if len(parts) != len(fields) {
		return Cron{}, fmt.Errorf("want 5 fields (minute, hour, day of the month, month, day of the week), got %d in %q", len(parts), s)
	}
	schedule, err := parseCron(parts)
	if err != nil {
		for i, f := range fields { // the library does not say which field is wrong
			alone := []string{"*", "*", "*", "*", "*"}
			alone[i] = parts[i]
			if _, err := parseCron(alone); err != nil {
				return Cron{}, fmt.Errorf("%s: want %s, or ranges, steps and lists of them, as in 1-5, */2 and 1,3; got %q (%w)", f.name, f.want, parts[i], err)
			}
		}
		return Cron{}, err
	}
	c := Cron{schedule}
	if c.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, fmt.Errorf("%q never comes: no such month has such a day", s)
	}
	return c, nil
}

func parseCron(fields []string) (cron.Schedule, error) {
	return cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(strings.Join(fields, " "))
}

// Next returns the first time of the schedule after t, in UTC, or zero when there is none.
func (c Cron) Next(t time.Time) time.Time {
	t = t.UTC()
	if next := c.schedule.Next(t); !next.IsZero() {
		return next
	}
	// The library looks five years ahead, but around the year 2100 one 29 February comes eight years after another.
	return c.schedule.Next(time.Date(t.Year()+5, 12, 31, 23, 59, 0, 0, time.UTC))
}

// NextLocal returns the first time of the schedule after t, in the time zone of t, or zero when there is none.
func (c Cron) NextLocal(t time.Time) time.Time { return c.schedule.Next(t) }

// Newest returns the last time of the schedule that is after since and not after now, or zero when there is none.
func (c Cron) Newest(since, now time.Time) time.Time {
	// It searches backwards in steps that grow, so that a long time without a run is not walked through minute by minute.
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

// withoutDay7 replaces the day of the week 7, which earlier versions accepted for Sunday, by 0. Everything else is left
// unchanged.
func withoutDay7(s string) string {
	parts := strings.Fields(s)
	if len(parts) != len(cronFields()) || !strings.Contains(parts[4], "7") {
		return s
	}
	var items []string
	for item := range strings.SplitSeq(parts[4], ",") {
		items = append(items, itemWithoutDay7(item))
	}
	parts[4] = strings.Join(items, ",")
	return strings.Join(parts, " ")
}

// itemWithoutDay7 does so for one item of the list: "7", "5-7", "1-7/2".
func itemWithoutDay7(item string) string {
	span, step, stepped := strings.Cut(item, "/")
	first, last, ranged := strings.Cut(span, "-")
	if !ranged {
		last = first
	}
	if last != "7" {
		return item
	}
	by := 1
	if stepped {
		by, _ = strconv.Atoi(step)
	}
	from := slices.Index([]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, strings.ToLower(first))
	if n, err := strconv.Atoi(first); err == nil {
		from = n
	}
	if from < 0 || from > 7 || by < 1 {
		return item
	}
	var days []string
	for day := from; day <= 7; day += by {
		days = append(days, strconv.Itoa(day%7))
	}
	return strings.Join(days, ",")
}
