package cli

import (
	"strings"
	"testing"
	"time"

	"penstock/internal/admin/wire"
)

// The chart shows the count of each minute, also of those before the first change within the hour.
func TestChart(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 30, 0, time.UTC)
	ago := func(minutes float64) time.Time { return now.Add(-time.Duration(minutes * float64(time.Minute))) }
	change := func(minutes float64, from, to int) wire.ScaleChange {
		return wire.ScaleChange{At: ago(minutes), From: from, To: to}
	}
	tests := map[string]struct {
		r    wire.RevisionScale
		want string
	}{
		"a count from before the hour": {
			wire.RevisionScale{Created: ago(600), Wanted: 4, Changes: []wire.ScaleChange{change(30.5, 2, 4)}},
			strings.Repeat("▄", 29) + strings.Repeat("█", 31) + " (at most 4)",
		},
		"nothing has changed": {wire.RevisionScale{Created: ago(600), Wanted: 3}, strings.Repeat("█", 60) + " (at most 3)"},
		"nothing at all":      {wire.RevisionScale{Created: ago(600)}, strings.Repeat("·", 60) + " (at most 0)"},
		"a new revision": {
			wire.RevisionScale{Created: ago(9.5), Wanted: 1, Changes: []wire.ScaleChange{change(4.5, 1, 0), change(2.5, 0, 2)}},
			strings.Repeat(" ", 50) + "▄▄▄▄▄▄·███" + " (at most 2)",
		},
		"a peak within a minute": {
			wire.RevisionScale{Created: ago(600), Wanted: 1, Changes: []wire.ScaleChange{change(10.8, 1, 8), change(10.2, 8, 1)}},
			strings.Repeat("▁", 49) + "█" + strings.Repeat("▁", 10) + " (at most 8)",
		},
	}
	for name, test := range tests {
		if got := chart(test.r, now); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, test.want)
		}
	}
}

func TestRuleNote(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	hours := wire.RuleState{Window: "0 8 * * 1-5 to 0 20 * * 1-5 Asia/Seoul", WindowChanges: now.Add(150 * time.Minute)}
	active, ended := hours, hours
	active.Active, active.Note = true, "within tolerance"
	ended.WindowChanges = time.Time{}
	for want, rule := range map[string]wire.RuleState{
		"0 8 * * 1-5 to 0 20 * * 1-5 Asia/Seoul; begins 2026-03-01 12:30 UTC, in 2.5 h":                 hours,
		"0 8 * * 1-5 to 0 20 * * 1-5 Asia/Seoul; ends 2026-03-01 12:30 UTC, in 2.5 h; within tolerance": active,
		"0 8 * * 1-5 to 0 20 * * 1-5 Asia/Seoul; never changes again":                                   ended,
		"a note": {Note: "a note"},
	} {
		if got := ruleNote(rule, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
