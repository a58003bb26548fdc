package cli

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"penstock/internal/admin/wire"
)

func newAppExplainCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "explain NAME",
		Short: "Explain the number of replicas of an app",
		Long: `Show for each revision how many replicas are wanted and why: the value, target and count of each scale rule, what
limits the count and until when, how long requests and starts take, how the memory of replicas grows and when it
reaches its limit, and the last changes with their reasons.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			id := s.path("containerApps", args[0])
			if _, err := c.get(cmd.Context(), id, version()); err != nil {
				return err
			}
			doc, err := c.get(cmd.Context(), wire.ScalePath, url.Values{"app": {id}})
			if err != nil {
				return err
			}
			scale, err := decode[wire.Scale](doc)
			if err != nil {
				return err
			}
			return env.show(doc, func(w io.Writer) { printScale(w, *scale, time.Now()) })
		},
	}
}

func printScale(w io.Writer, s wire.Scale, now time.Time) {
	if len(s.Revisions) == 0 {
		fmt.Fprintln(w, "No revision of this app can have replicas: the app is stopped, or all its revisions are inactive.")
	}
	for i, r := range s.Revisions {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "Revision %s: %d wanted, %d present, %d ready (%d to %d, %s)\n", r.Revision, r.Wanted, r.Replicas, r.Ready, r.MinReplicas, r.MaxReplicas, r.Behaviour)
		if r.Reason != "" {
			fmt.Fprintln(w, "  Because "+r.Reason+".")
		}
		if r.Held > 0 {
			fmt.Fprintf(w, "  %d of them cannot start yet: %s.\n", r.Held, r.HeldBy)
		}
		fmt.Fprintf(w, "  Scales in when fewer replicas were enough for %s, and from 1 to 0 after %s without activity.\n", seconds(r.WindowSeconds), seconds(r.CooldownSeconds))
		if r.ServiceMS > 0 || r.StartMS > 0 {
			fmt.Fprintf(w, "  Measured: a request takes %s on a replica, and a start takes %s.\n", learned(r.ServiceMS), learned(r.StartMS))
		}
		if len(r.Rules) > 0 {
			fmt.Fprintln(w)
			printRules(w, r.Rules, now)
		}
		printMemory(w, r)
		fmt.Fprintf(w, "\nReplicas in the last hour: %s\n", chart(r, now))
		if len(r.Changes) > 0 {
			fmt.Fprintln(w)
			var rows [][]string
			for _, c := range r.Changes[max(0, len(r.Changes)-10):] {
				count := fmt.Sprintf("%d to %d", c.From, c.To)
				if c.From == c.To {
					count = fmt.Sprintf("still %d", c.To)
				}
				rows = append(rows, []string{age(c.At, now), count, c.Reason})
			}
			table(w, "AGE REPLICAS REASON", rows)
		}
	}
}

// printMemory prints how the memory of a revision's containers grows.
func printMemory(w io.Writer, r wire.RevisionScale) {
	if len(r.Memory) == 0 {
		return
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, m := range r.Memory {
		growth, left, note := "none", "", ""
		if m.GrowthBytesPerHour > 0 {
			growth = fmt.Sprintf("%s/h for %s", bytesText(m.GrowthBytesPerHour), estimate(m.ObservedSeconds))
			left = "in " + estimate(m.SecondsToLimit)
		}
		switch {
		case m.Recycled != "":
			note = "being replaced"
		case m.Leak:
			note = "leak"
		}
		rows = append(rows, []string{m.Replica, m.Container, bytesText(m.UsedBytes), bytesText(m.LimitBytes), growth, left, note})
	}
	table(w, "REPLICA CONTAINER MEMORY LIMIT GROWTH FULL NOTE", rows)
	if r.RecyclePercent > 0 {
		fmt.Fprintf(w, "A replica whose memory grows is replaced at %d %% of its limit (penstock.recycle).\n", r.RecyclePercent)
	}
}

// estimate formats a number of seconds that is not exact.
func estimate(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	case d >= time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	case d >= 2*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

func printRules(w io.Writer, rules []wire.RuleState, now time.Time) {
	var rows [][]string
	for _, rule := range rules {
		value, target := number(rule.Value), number(rule.Target)
		if rule.Kind == "other" || rule.Failed {
			value, target = "", ""
		}
		rows = append(rows, []string{rule.Name, rule.Kind, value, target, fmt.Sprint(rule.Wanted), yes(rule.Active), ruleNote(rule, now)})
	}
	table(w, "RULE KIND VALUE TARGET WANTED ACTIVE NOTE", rows)
}

// ruleNote returns the remark about a rule, with the window of a cron rule and when it changes.
func ruleNote(rule wire.RuleState, now time.Time) string {
	if rule.Window == "" {
		return rule.Note
	}
	change, note := "begins", rule.Window
	if rule.Active {
		change = "ends"
	}
	if at := rule.WindowChanges; at.IsZero() {
		note += "; never changes again"
	} else {
		note += fmt.Sprintf("; %s %s UTC, in %s", change, at.UTC().Format("2006-01-02 15:04"), estimate(at.Sub(now).Seconds()))
	}
	if rule.Note != "" {
		note += "; " + rule.Note
	}
	return note
}

// chart draws the largest count of each minute of the last hour, as far as the revision existed.
func chart(r wire.RevisionScale, now time.Time) string {
	const minutes = 60
	counts := make([]int, minutes)
	known := make([]bool, minutes)
	// held are the counts in their order, each with the time from which on it held.
	type held struct {
		since time.Time
		n     int
	}
	first := r.Wanted
	if len(r.Changes) > 0 {
		first = r.Changes[0].From
	}
	all := []held{{r.Created, first}}
	for _, c := range r.Changes {
		all = append(all, held{c.At, c.To})
	}
	at := func(m int) time.Time { return now.Add(time.Duration(m-minutes) * time.Minute) }
	for m := range minutes {
		from, to := at(m), at(m+1)
		for i, h := range all {
			end := now
			if i+1 < len(all) {
				end = all[i+1].since
			}
			if h.since.Before(to) && end.After(from) {
				counts[m], known[m] = max(counts[m], h.n), true
			}
		}
	}
	most := slices.Max(counts)
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for m, n := range counts {
		switch {
		case !known[m]:
			b.WriteRune(' ')
		case n == 0:
			b.WriteRune('·')
		default:
			b.WriteRune(bars[(n*len(bars)-1)/most])
		}
	}
	return fmt.Sprintf("%s (at most %d)", b.String(), most)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// number writes a value without digits that say nothing.
func number(v float64) string {
	if v == float64(int64(v)) {
		return fmt.Sprint(int64(v))
	}
	if v > 0 && v < 0.01 {
		return "<0.01"
	}
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func seconds(s float64) string { return time.Duration(s * float64(time.Second)).String() }

func learned(ms float64) string {
	if ms == 0 {
		return "an unknown time"
	}
	d := time.Duration(ms * float64(time.Millisecond))
	if d > time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
