package resource_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
)

func at(t testing.TB, s string) time.Time {
	t.Helper()
	moment, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

func TestCronNext(t *testing.T) {
	tests := map[string]struct{ cron, after, want string }{
		"every minute":                        {"* * * * *", "2026-11-24 11:59", "2026-11-24 12:00"},
		"every quarter":                       {"*/15 * * * *", "2026-11-24 11:15", "2026-11-24 11:30"},
		"from a minute on, by steps":          {"5/20 * * * *", "2026-11-24 11:45", "2026-11-24 12:05"},
		"a range by steps":                    {"10-30/10 * * * *", "2026-11-24 11:30", "2026-11-24 12:10"},
		"a list":                              {"0 6,18 * * *", "2026-11-24 06:00", "2026-11-24 18:00"},
		"a list of ranges":                    {"0 1-2,22-23 * * *", "2026-11-24 02:00", "2026-11-24 22:00"},
		"the next day":                        {"30 2 * * *", "2026-11-24 02:30", "2026-11-25 02:30"},
		"over the year":                       {"0 0 1 1 *", "2026-11-24 00:00", "2027-01-01 00:00"},
		"names of months":                     {"0 0 1 jan,JUL *", "2026-02-01 00:00", "2026-07-01 00:00"},
		"names of days":                       {"0 9 * * Mon-Fri", "2026-11-27 09:00", "2026-11-30 09:00"},
		"Sunday is 0":                         {"0 0 * * 0", "2026-11-24 00:00", "2026-11-29 00:00"},
		"from a day of the week on":           {"0 0 * * 3/2", "2026-11-27 00:00", "2026-12-02 00:00"},
		"a list with a star: no day is given": {"0 0 *,5 * 1", "2026-11-24 00:00", "2026-11-30 00:00"},
		"every other day of the week, no Sunday twice": {"0 0 * * */2", "2026-11-28 00:00", "2026-11-29 00:00"},
		"every other day of the week, on":              {"0 0 * * */2", "2026-11-29 00:00", "2026-12-01 00:00"},
		"both days: the day of the month":              {"0 0 26 * 1", "2026-11-24 00:00", "2026-11-26 00:00"},
		"both days: the day of the week":               {"0 0 26 * 1", "2026-11-26 00:00", "2026-11-30 00:00"},
		"a star among the days: the other":             {"0 0 * * 1", "2026-11-24 00:00", "2026-11-30 00:00"},
		"a question mark is a star":                    {"0 0 15 * ?", "2026-11-24 00:00", "2026-12-15 00:00"},
		"a stepped star is a day that is given":        {"0 0 */30 * 3", "2026-11-24 00:00", "2026-11-25 00:00"},
		"the 31st skips shorter months":                {"0 0 31 * *", "2026-08-31 00:00", "2026-10-31 00:00"},
		"29 February":                                  {"0 0 29 2 *", "2026-11-24 00:00", "2028-02-29 00:00"},
		"29 February over a century without one":       {"0 0 29 2 *", "2096-03-01 00:00", "2104-02-29 00:00"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := resource.ParseCron(test.cron)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := c.Next(at(t, test.after).Add(20*time.Second)), at(t, test.want); !got.Equal(want) {
				t.Errorf("%q after %s: got %s, want %s", test.cron, test.after, got, want)
			}
		})
	}
}

func TestCronRefused(t *testing.T) {
	tests := map[string]string{
		"":                        "want 5 fields",
		"* * * *":                 "want 5 fields",
		"0 * * * * *":             "got 6",
		"@daily":                  "got 1",
		"@every 1h * * *":         "minute: want 0 to 59",
		"60 * * * *":              "minute: want 0 to 59, or ranges, steps and lists of them, as in 1-5, */2 and 1,3; got \"60\"",
		"* 24 * * *":              "hour: want 0 to 23",
		"* * 0 * *":               "day of the month: want 1 to 31",
		"* * * 13 *":              "month: want 1 to 12 or jan to dec",
		"* * * * 7":               "day of the week: want 0 (Sunday) to 6 or sun to sat",
		"* * * * 5-7":             "day of the week: want 0 (Sunday) to 6",
		"* * * * monday":          "got \"monday\"",
		"30-10 * * * *":           "got \"30-10\"",
		"*/0 * * * *":             "got \"*/0\"",
		"-5 * * * *":              "got \"-5\"",
		"1-2-3 * * * *":           "got \"1-2-3\"",
		"1/2/3 * * * *":           "got \"1/2/3\"",
		"0 0 31 2 *":              "never comes",
		"0 0 31 4,6,11 *":         "never comes",
		"TZ=Asia/Seoul 0 0 * * *": "without a time zone",
		"TZ=Asia/Seoul 0 0 * *":   "without a time zone",
		"CRON_TZ=Asia/Seoul":      "without a time zone",
	}
	for cron, want := range tests {
		if _, err := resource.ParseCron(cron); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q in it", cron, err, want)
		}
	}
}

func TestCronNewest(t *testing.T) {
	tests := map[string]struct{ cron, since, now, want string }{
		"none yet":              {"0 2 * * *", "2026-11-24 02:00", "2026-11-25 01:59", ""},
		"on the minute":         {"0 2 * * *", "2026-11-24 02:00", "2026-11-25 02:00", "2026-11-25 02:00"},
		"the newest of many":    {"*/5 * * * *", "2026-01-01 00:00", "2026-11-24 11:59", "2026-11-24 11:55"},
		"the newest of few":     {"0 0 1 * *", "2020-01-01 00:00", "2026-11-24 11:59", "2026-11-01 00:00"},
		"a time that is behind": {"* * * * *", "2026-11-24 12:00", "2026-11-24 11:00", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := resource.ParseCron(test.cron)
			if err != nil {
				t.Fatal(err)
			}
			got := c.Newest(at(t, test.since), at(t, test.now))
			if test.want == "" && !got.IsZero() || test.want != "" && !got.Equal(at(t, test.want)) {
				t.Errorf("got %s, want %q", got, test.want)
			}
		})
	}
}

// A schedule that was stored when 7 was Sunday too comes on the same days.
func TestStoredScheduleWithDay7(t *testing.T) {
	tests := map[string]string{
		"0 9 * * 7":      "0 9 * * 0",
		"0 9 * * 5-7":    "0 9 * * 5,6,0",
		"0 9 * * fri-7":  "0 9 * * 5,6,0",
		"0 9 * * 1-7/2":  "0 9 * * 1,3,5,0",
		"0 9 * * mon,7":  "0 9 * * mon,0",
		"0 9 * * 7/2":    "0 9 * * 0",
		"7 7 7 7 *":      "7 7 7 7 *",
		"0 9 * * */7":    "0 9 * * */7",
		"0 9 * * 1-5":    "0 9 * * 1-5",
		"":               "",
		"something else": "something else",
		"0 9 * * 9-7":    "0 9 * * 9-7",
		"0 9 * * 1-7/0":  "0 9 * * 1-7/0",
	}
	for stored, want := range tests {
		var c resource.JobConfiguration
		if err := json.Unmarshal([]byte(`{"Trigger":"Schedule","Cron":"`+stored+`"}`), &c); err != nil || c.Cron != want || c.Trigger != resource.TriggerSchedule {
			t.Errorf("%q: got %q, %v, want %q", stored, c.Cron, err, want)
		}
	}
}

// Whatever is taken comes, and no earlier than it says: each field of the next time is one that the text allows, and
// asking from just before it gives it again.
func FuzzCron(f *testing.F) {
	for _, s := range []string{"* * * * *", "*/15 0-6 1,15 jan-jun mon", "5/20 * ? * 6", "0 0 29 2 *", "0 0 31 2 *", "60 * * * *", "1-2-3 / - , *", "TZ= * * * *", ", , , , ,"} {
		f.Add(s, int64(1_800_000_000))
	}
	f.Fuzz(func(t *testing.T, s string, unix int64) {
		c, err := resource.ParseCron(s)
		if err != nil || unix < 0 || unix > 4_000_000_000 {
			return
		}
		now := time.Unix(unix, 0).UTC()
		next := c.Next(now)
		if !next.After(now) || next.Second() != 0 || next.Sub(now) > 9*366*24*time.Hour {
			t.Fatalf("%q after %s: %s", s, now, next)
		}
		if again := c.Next(next.Add(-time.Nanosecond)); !again.Equal(next) {
			t.Errorf("%q: %s comes, but just before it the next is %s", s, next, again)
		}
		// The same words about one moment, without any search.
		moment, err := resource.ParseCron(next.Format("4 15 2 1") + " *")
		if err != nil || !moment.Next(now).Equal(next) && next.Sub(now) < 300*24*time.Hour {
			t.Errorf("%q: %s, but its own words come at %s (%v)", s, next, moment.Next(now), err)
		}
		if newest := c.Newest(now, next); !newest.Equal(next) {
			t.Errorf("%q: the newest from %s to %s is %s", s, now, next, newest)
		}
	})
}
