package load

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Summary is the result of a run. Response times are those of successful requests, in milliseconds.
type Summary struct {
	URL      string    `json:"url"`
	Address  string    `json:"address"`  // that was connected to
	Arrivals string    `json:"arrivals"` // in words
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"` // until the last answer

	Requests  int64 `json:"requests"` // that were due
	Sent      int64 `json:"sent"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Left      int64 `json:"left,omitempty"` // of those that succeeded: the client ended them, as told

	Held            int64 `json:"held"` // waited for the bound on outstanding requests
	MaxOutstanding  int   `json:"maxOutstanding"`
	PeakOutstanding int   `json:"peakOutstanding"`
	Connections     int64 `json:"connections"`

	PerSecond float64 `json:"perSecond"` // that succeeded
	Events    int64   `json:"events,omitempty"`
	BytesIn   int64   `json:"bytesIn"`  // of bodies
	BytesOut  int64   `json:"bytesOut"` // of bodies

	Statuses map[int]int64      `json:"statuses"`
	Errors   map[Class]*Failure `json:"errors"`

	Latency       *Quantiles `json:"latencyMs,omitempty"`   // from when it was due to its last byte
	Service       *Quantiles `json:"serviceMs,omitempty"`   // from when it was sent
	FirstByte     *Quantiles `json:"firstByteMs,omitempty"` // from when it was due
	FirstEvent    *Quantiles `json:"firstEventMs,omitempty"`
	BetweenEvents *Quantiles `json:"betweenEventsMs,omitempty"` // of a WebSocket: each echo
	EventDelay    *Quantiles `json:"eventDelayMs,omitempty"`    // from the stamp in it
	FailedAfter   *Quantiles `json:"failedAfterMs,omitempty"`
	Lag           *Quantiles `json:"lagMs,omitempty"` // how late the generator itself was

	GeneratorCPU float64  `json:"generatorCpuSeconds"`
	Notes        []string `json:"notes,omitempty"` // what a reader must know to trust the figures
}

// Failure counts the requests that failed with the same class.
type Failure struct {
	Count   int64  `json:"count"`
	Example string `json:"example"`
}

// lagToTell is the generator's own lateness above which a note warns that it affects the figures.
const lagToTell = 5 * time.Millisecond

// note adds notes that a reader needs to interpret the figures.
func (s *Summary) note() {
	add := func(format string, args ...any) { s.Notes = append(s.Notes, fmt.Sprintf(format, args...)) }
	if s.Held > 0 {
		add("%d requests waited until others had ended, for the bound of %d outstanding ones; their wait is part of their latency", s.Held, s.MaxOutstanding)
	}
	if s.Lag != nil && s.Lag.P99 > ms(lagToTell) {
		add("the generator itself was late: p99 %.1f ms; this machine is too busy for this rate, and latencies have that in them", s.Lag.P99)
	}
	if s.Failed > 0 && s.Succeeded > 0 {
		add("%d failed requests are not in the latencies", s.Failed)
	}
}

// WriteText prints the summary for people.
func (s *Summary) WriteText(w io.Writer) {
	fmt.Fprintf(w, "%s at %s, %s, %.1f s\n\n", s.URL, s.Address, s.Arrivals, s.Seconds)
	fmt.Fprintf(w, "requests     %d due, %d sent, %d succeeded, %d failed", s.Requests, s.Sent, s.Succeeded, s.Failed)
	if s.Left > 0 {
		fmt.Fprintf(w, ", %d left before their end", s.Left)
	}
	fmt.Fprintf(w, "\nrate         %.1f/s succeeded\n", s.PerSecond)
	fmt.Fprintf(w, "outstanding  %d at most, of %d\n", s.PeakOutstanding, s.MaxOutstanding)
	fmt.Fprintf(w, "connections  %d opened\n", s.Connections)
	fmt.Fprintf(w, "bytes        %d in, %d out\n", s.BytesIn, s.BytesOut)
	if s.Events > 0 {
		fmt.Fprintf(w, "events       %d\n", s.Events)
	}
	if len(s.Statuses) > 0 {
		var parts []string
		for _, status := range slices.Sorted(maps.Keys(s.Statuses)) {
			parts = append(parts, fmt.Sprintf("%d: %d", status, s.Statuses[status]))
		}
		fmt.Fprintf(w, "statuses     %s\n", strings.Join(parts, ", "))
	}
	fmt.Fprintf(w, "generator    %.2f s CPU\n", s.GeneratorCPU)

	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "ms\tp50\tp90\tp99\tp99.9\tmax\tmean\tcount\t")
	for _, row := range []struct {
		name string
		q    *Quantiles
	}{
		{"latency", s.Latency}, {"from sending", s.Service}, {"first byte", s.FirstByte}, {"first event", s.FirstEvent},
		{"between events", s.BetweenEvents}, {"event delay", s.EventDelay}, {"failed after", s.FailedAfter}, {"generator late", s.Lag},
	} {
		if q := row.q; q != nil {
			fmt.Fprintf(t, "%s\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%d\t\n", row.name, q.P50, q.P90, q.P99, q.P999, q.Max, q.Mean, q.Count)
		}
	}
	t.Flush()
	classes := slices.SortedFunc(maps.Keys(s.Errors), func(a, b Class) int {
		return cmp.Or(cmp.Compare(s.Errors[b].Count, s.Errors[a].Count), cmp.Compare(a, b))
	})
	if len(classes) > 0 {
		fmt.Fprintln(w, "\nfailed")
	}
	for _, c := range classes {
		fmt.Fprintf(w, "  %-9s %d, such as: %s\n", c, s.Errors[c].Count, s.Errors[c].Example)
	}
	for _, n := range s.Notes {
		fmt.Fprintln(w, "note:", n)
	}
}
