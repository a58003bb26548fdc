package scale_test

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"penstock/internal/resource"
	"penstock/internal/scale"
)

// zoned is a schedule in the time zone of the time that it is given.
type zoned struct{ resource.Cron }

func (z zoned) Next(t time.Time) time.Time { return z.NextLocal(t) }

func hours(t *testing.T, start, end, zone string) scale.Hours {
	t.Helper()
	from, err := resource.ParseCron(start)
	if err != nil {
		t.Fatal(err)
	}
	to, err := resource.ParseCron(end)
	if err != nil {
		t.Fatal(err)
	}
	in, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return scale.Hours{Start: zoned{from}, End: zoned{to}, In: in}
}

// A clock is stepped through the minutes. As in KEDA (pkg/scalers/cron_scaler.go), a window is active unless the next start
// comes before the next end. Change must name the minutes at which it begins and ends.
func TestCronWindows(t *testing.T) {
	tests := map[string]struct {
		start, end, zone string
		from             string
		over             time.Duration
		want             string // begins and ends, in UTC
	}{
		"several starts before an end": {
			"11-13 * * * *", "18 * * * *", "UTC", "2026-03-01 09:00", 2 * time.Hour, "01 09:13, 01 09:18, 01 10:13, 01 10:18",
		},
		"the last days of a month": {
			"0 8 28-31 * *", "0 20 1 * *", "UTC", "2026-02-20 00:00", 50 * 24 * time.Hour, "28 08:00, 01 20:00, 31 08:00, 01 20:00",
		},
		"over a weekend": {
			"0 22 * * 5", "0 6 * * 1", "UTC", "2026-03-02 07:00", 14 * 24 * time.Hour, "06 22:00, 09 06:00, 13 22:00, 16 06:00",
		},
		"the clock goes forward": {
			"0 8 * * *", "0 20 * * *", "Europe/Berlin", "2026-03-28 00:00", 48 * time.Hour, "28 07:00, 28 19:00, 29 06:00, 29 18:00",
		},
		"the clock goes back": {
			"0 8 * * *", "0 20 * * *", "Europe/Berlin", "2026-10-24 00:00", 48 * time.Hour, "24 06:00, 24 18:00, 25 07:00, 25 19:00",
		},
		// In Berlin, 02:00 to 03:00 does not exist on 29 March 2026: 01:00 in UTC is 03:00.
		"a start that the clock skips": {
			"30 2 * * *", "0 20 * * *", "Europe/Berlin", "2026-03-28 00:00", 72 * time.Hour, "28 01:30, 28 19:00, 29 01:00, 29 18:00, 30 00:30, 30 18:00",
		},
		"an end that the clock skips": {
			"0 8 * * *", "30 2 * * *", "Europe/Berlin", "2026-03-28 00:00", 72 * time.Hour, "28 01:30, 28 07:00, 29 01:00, 29 06:00, 30 00:30, 30 06:00",
		},
		"a window that the clock skips": {
			"30 2 * * *", "45 2 * * *", "Europe/Berlin", "2026-03-28 00:00", 72 * time.Hour, "28 01:30, 28 01:45, 30 00:30, 30 00:45",
		},
		"an end and a start that the clock skips": {
			"50 * * * *", "20 * * * *", "Europe/Berlin", "2026-03-29 00:30", 2 * time.Hour, "29 00:50, 29 01:20, 29 01:50, 29 02:20",
		},
		"a clock that skips midnight": {
			"0 0 * * *", "0 12 * * *", "Asia/Beirut", "2026-03-28 00:00", 40 * time.Hour, "28 10:00, 28 22:00, 29 09:00",
		},
		"times that the clock shows twice": {
			"30 1 * * *", "30 3 * * *", "Europe/Berlin", "2026-10-24 12:00", 24 * time.Hour, "24 23:30, 25 02:30",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := hours(t, test.start, test.end, test.zone)
			from, err := time.Parse("2006-01-02 15:04", test.from)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			was, next := h.Active(from), h.Change(from)
			for at := from; at.Before(from.Add(test.over)); at = at.Add(time.Minute) {
				is := h.Active(at)
				if is != was {
					got = append(got, at.Format("02 15:04"))
					if !at.Equal(next) {
						t.Errorf("it changes at %v, but Change said %v", at, next)
					}
					was, next = is, h.Change(at)
				}
				if just := h.Active(at.Add(time.Minute - 1)); just != is {
					t.Errorf("it changes within the minute of %v", at)
				}
			}
			if list := strings.Join(got, ", "); list != test.want {
				t.Errorf("got  %s\nwant %s", list, test.want)
			}
		})
	}
}

// A schedule with very many starts is not searched for long.
func TestChangeIsBounded(t *testing.T) {
	h := hours(t, "* * * * *", "0 0 1 1 *", "UTC")
	if got := h.Change(t0); !got.After(t0) || h.Active(got) != h.Active(t0) {
		t.Errorf("got %v, want a time before the change at the end of the year", got)
	}
}
