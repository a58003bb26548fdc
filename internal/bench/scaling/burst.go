package scaling

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/load"
	"penstock/internal/resource"
)

// What a burst is. The line is as long as the default of penstock.queue-limit.
const (
	burstService = time.Second
	burstTarget  = 10
	burstMax     = 20
	burstLine    = 1000
)

// Goals of a burst with the fast behaviour.
const (
	GoalOrdered = 100 * time.Millisecond // from the first request until enough replicas are ordered
	GoalFilled  = 60 * time.Millisecond  // from a replica that is ready until its places are filled
)

// BurstOptions choose the bursts.
type BurstOptions struct {
	Options
	Requests []int         // of each burst, within a second
	Start    time.Duration // of a replica
}

// Burst is the result of all bursts.
type Burst struct {
	Machine Machine    `json:"machine"`
	StartMS float64    `json:"startMs"` // of a replica, as given
	Rows    []BurstRow `json:"rows"`
}

// BurstRow is one burst.
type BurstRow struct {
	Behaviour resource.Behaviour `json:"behaviour"`
	Requests  int                `json:"requests"`
	// Known says whether the server knew the service time, from earlier requests.
	Known bool `json:"serviceKnown"`
	outcome
	Enough    int      `json:"enough"`              // replicas, at most maxReplicas
	OrderedMS *float64 `json:"orderedMs,omitempty"` // from the first request until enough were ordered; none if they never were
	Most      int      `json:"mostReplicas"`
	Changes   int      `json:"changes"`  // of the count, until all were answered
	FilledMS  Times    `json:"filledMs"` // from a replica that is ready until its places are filled
	WaitingMS Times    `json:"waitingMs"`
	LagMS     float64  `json:"generatorLagP99Ms"`
}

// RunBurst sends bursts to an app at zero.
func RunBurst(ctx context.Context, o BurstOptions) (*Burst, error) {
	out := &Burst{Machine: Here(), StartMS: ms(o.Start)}
	type what struct {
		behaviour resource.Behaviour
		known     bool
	}
	all := []what{{resource.Fast, true}, {resource.Fast, false}, {resource.Azure, true}}
	if o.Quick {
		all = all[:1]
	}
	for _, n := range o.Requests {
		for _, w := range all {
			o.Progress(fmt.Sprintf("%d requests, %s", n, w.behaviour))
			row, err := burst(ctx, o, n, w.behaviour, w.known, len(out.Rows))
			if err != nil {
				return nil, err
			}
			out.Rows = append(out.Rows, row)
		}
	}
	out.Machine.End()
	return out, nil
}

func burst(ctx context.Context, o BurstOptions, n int, b resource.Behaviour, known bool, number int) (row BurstRow, err error) {
	row = BurstRow{Behaviour: b, Requests: n, Known: known, Enough: min(burstMax, needed(float64(n), burstService, burstTarget))}
	a, remove, err := deploy(ctx, o.Options, spec{
		name: fmt.Sprintf("burst-%d", number), behaviour: b, start: o.Start, target: burstTarget, max: burstMax, line: burstLine, cooldown: 1,
	})
	if err != nil {
		return row, err
	}
	defer finish(&err, remove)
	if known {
		err = a.warm(ctx, burstService, 0)
	} else {
		err = a.until(ctx, "at zero", time.Minute, func(s wire.RevisionScale) bool { return s.Wanted == 0 && s.Replicas == 0 })
	}
	if err != nil {
		return row, err
	}
	stop := a.changes(ctx)
	sum, err := a.send(ctx, requests{plan: load.Plan{
		Arrivals: load.Constant(float64(n)), Endless: true, Words: fmt.Sprintf("%d in a second", n), Duration: time.Second, Count: int64(n), MaxOutstanding: load.MaxOutstanding,
	}, service: burstService})
	changes, changesErr := stop()
	if err != nil {
		return row, err
	}
	if changesErr != nil {
		return row, changesErr
	}
	records, err := a.records(ctx, sum.Started, n)
	if err != nil {
		return row, err
	}
	ready, err := a.ready(ctx, sum.Started)
	if err != nil {
		return row, err
	}
	row.outcome = outcomeOf(sum, records)
	if at, ok := ordered(changes, sum.Started, row.Enough); ok {
		took := ms(at.Sub(sum.Started))
		row.OrderedMS = &took
	}
	row.Most = most(changes, sum.Started)
	for _, c := range changes {
		if !c.At.Before(sum.Started) {
			row.Changes++
		}
	}
	row.FilledMS = timesOf(filled(ready, records, burstTarget))
	row.WaitingMS = waits(records)
	if sum.Lag != nil {
		row.LagMS = sum.Lag.P99
	}
	return row, nil
}

// filled is for each replica how long after it was ready its last place was taken.
func filled(ready []Event, records []Request, places int) (list []time.Duration) {
	begun := map[string][]time.Time{}
	for _, r := range records {
		if r.Replica != "" {
			begun[r.Replica] = append(begun[r.Replica], r.Start.Add(r.Held))
		}
	}
	for _, e := range ready {
		times := begun[e.Replica]
		if len(times) < places {
			continue
		}
		slices.SortFunc(times, time.Time.Compare)
		list = append(list, max(0, times[places-1].Sub(e.At)))
	}
	return list
}

// waits are the times that requests waited for a place.
func waits(records []Request) Times {
	var list []time.Duration
	for _, r := range records {
		if r.Replica != "" {
			list = append(list, r.Held)
		}
	}
	return timesOf(list)
}

// WriteText prints the table for people.
func (b *Burst) WriteText(w io.Writer) {
	fmt.Fprintf(w, "%s. An app at zero; a request takes %s, target %d, at most %d replicas, %d may wait, a start takes %.1f s.\n\n",
		b.Machine, burstService, burstTarget, burstMax, burstLine, b.StartMS/1000)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "requests in 1 s\tbehaviour\tservice time\tenough ordered\treplicas\tchanges\tplaces filled p50\tmax\twaiting p50\tp99\t")
	for _, r := range b.Rows {
		known, took := "known", fmt.Sprintf("never (%d)", r.Enough)
		if !r.Known {
			known = "not known"
		}
		if r.OrderedMS != nil {
			took = fmt.Sprintf("%.0f ms", *r.OrderedMS)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\t%d\t%.0f ms\t%.0f ms\t%.1f s\t%.1f s\t\n",
			r.Requests, r.Behaviour, known, took, r.Most, r.Changes, r.FilledMS.P50, r.FilledMS.Max, r.WaitingMS.P50/1000, r.WaitingMS.P99/1000)
	}
	t.Flush()
	fmt.Fprintln(w)
	for _, r := range b.Rows {
		fmt.Fprintf(w, "%d, %s: %s\n", r.Requests, r.Behaviour, r.outcome)
	}
	fmt.Fprintf(w, "goals (fast, service time known): enough ordered within %s, places filled within %s, none lost\n", GoalOrdered, GoalFilled)
	for _, r := range b.Rows {
		if r.LagMS > 5 {
			fmt.Fprintf(w, "note: the generator was late in the burst of %d, %s: p99 %.0f ms\n", r.Requests, r.Behaviour, r.LagMS)
		}
	}
}
