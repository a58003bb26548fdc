package scaling

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"text/tabwriter"
	"time"

	"penstock/internal/load"
	"penstock/internal/resource"
)

// What a step is: from a load that one replica serves with little room left.
const (
	stepService = time.Second
	stepTarget  = 5
	stepBase    = 4.5 // requests a second before the step
	stepMax     = 60
	stepLine    = 20_000
)

// StepOptions choose the steps.
type StepOptions struct {
	Options
	Factors []int           // by how much the rate grows
	Starts  []time.Duration // of a replica; apps of one factor run side by side
}

// Step is the result of all steps.
type Step struct {
	Machine Machine   `json:"machine"`
	Rows    []StepRow `json:"rows"`
}

// StepRow is one step.
type StepRow struct {
	Behaviour resource.Behaviour `json:"behaviour"`
	Factor    int                `json:"factor"`
	StartMS   float64            `json:"startMs"`
	PerSecond float64            `json:"perSecond"` // after the step
	Needed    int                `json:"needed"`    // replicas
	Goal      int                `json:"goal"`      // at most so many
	Most      int                `json:"mostReplicas"`
	// OrderedMS and ReadyMS are from the step until as many as needed were ordered and ready; none if they never were.
	OrderedMS *float64 `json:"orderedMs,omitempty"`
	ReadyMS   *float64 `json:"readyMs,omitempty"`
	outcome
	WaitingMS Times `json:"waitingMs"` // of all requests after the step
}

// goal is how many replicas there may be at most.
func goal(needed int) int { return max(needed+1, int(math.Floor(1.2*float64(needed)))) }

// RunStep raises the rate of requests at once.
func RunStep(ctx context.Context, o StepOptions) (*Step, error) {
	out := &Step{Machine: Here()}
	for _, factor := range o.Factors {
		o.Progress(fmt.Sprintf("%dx, start times %v, both behaviours", factor, o.Starts))
		var rows []StepRow
		for _, start := range o.Starts {
			for _, b := range []resource.Behaviour{resource.Fast, resource.Azure} {
				rows = append(rows, newStep(b, factor, start))
			}
		}
		var wg sync.WaitGroup
		failed := make([]error, len(rows))
		for i := range rows {
			wg.Go(func() { failed[i] = o.step(ctx, &rows[i], len(out.Rows)+i) })
		}
		wg.Wait()
		if err := errors.Join(failed...); err != nil {
			return nil, err
		}
		out.Rows = append(out.Rows, rows...)
	}
	out.Machine.End()
	return out, nil
}

func newStep(b resource.Behaviour, factor int, start time.Duration) StepRow {
	row := StepRow{Behaviour: b, Factor: factor, StartMS: ms(start), PerSecond: stepBase * float64(factor)}
	row.Needed = needed(row.PerSecond, stepService, stepTarget)
	row.Goal = goal(row.Needed)
	return row
}

func (o StepOptions) step(ctx context.Context, row *StepRow, number int) (err error) {
	start := time.Duration(row.StartMS * float64(time.Millisecond))
	// Azure looks each 15 s, and its rate is over 15 s.
	before, after := 10*time.Second, 40*time.Second+2*start
	if o.Quick {
		before, after = 3*time.Second, 8*time.Second+2*start
	}
	a, remove, err := deploy(ctx, o.Options, spec{
		name: fmt.Sprintf("step-%d", number), behaviour: row.Behaviour, start: start, target: stepTarget, min: 1, max: stepMax, line: stepLine, cooldown: 300,
	})
	if err != nil {
		return err
	}
	defer finish(&err, remove)
	stop := a.changes(ctx)
	steps := []load.Step{{PerSecond: stepBase, For: before}, {PerSecond: row.PerSecond, For: after}}
	sum, err := a.send(ctx, requests{plan: load.Plan{
		Arrivals: load.Stepped(steps), Words: "a step", Duration: before + after, Count: math.MaxInt32, MaxOutstanding: load.MaxOutstanding,
	}, service: stepService})
	changes, changesErr := stop()
	if err = errors.Join(err, changesErr); err != nil {
		return err
	}
	records, err := a.records(ctx, sum.Started, int(sum.Requests))
	if err != nil {
		return err
	}
	ready, err := a.ready(ctx, sum.Started)
	if err != nil {
		return err
	}
	at := sum.Started.Add(before)
	row.outcome = outcomeOf(sum, records)
	row.Most = max(1, most(changes, sum.Started))
	if when, ok := ordered(changes, sum.Started, row.Needed); ok {
		took := ms(max(0, when.Sub(at)))
		row.OrderedMS = &took
	}
	// One is there from the beginning, and none goes while the load lasts.
	if n := row.Needed - 1; n <= len(ready) && n > 0 {
		took := ms(max(0, ready[n-1].At.Sub(at)))
		row.ReadyMS = &took
	}
	later := records[:0]
	for _, r := range records {
		if !r.Start.Before(at) {
			later = append(later, r)
		}
	}
	row.WaitingMS = waits(later)
	return nil
}

// WriteText prints the table for people.
func (s *Step) WriteText(w io.Writer) {
	fmt.Fprintf(w, "%s. From %g requests a second to a multiple at once; a request takes %s, target %d.\n\n", s.Machine, stepBase, stepService, stepTarget)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "step\tstart\tbehaviour\tneeded\tgoal\tmost\tenough ordered\tenough ready\twaiting p50\tp99\t")
	took := func(v *float64) string {
		if v == nil {
			return "never"
		}
		return fmt.Sprintf("%.1f s", *v/1000)
	}
	for _, r := range s.Rows {
		fmt.Fprintf(t, "%dx\t%.1f s\t%s\t%d\t%d\t%d\t%s\t%s\t%.1f s\t%.1f s\t\n",
			r.Factor, r.StartMS/1000, r.Behaviour, r.Needed, r.Goal, r.Most, took(r.OrderedMS), took(r.ReadyMS), r.WaitingMS.P50/1000, r.WaitingMS.P99/1000)
	}
	t.Flush()
	total := outcome{Refused: map[string]int{}}
	for _, r := range s.Rows {
		total.Answered += r.Answered
		total.Lost += r.Lost
		for name, n := range r.Refused {
			total.Refused[name] += n
		}
	}
	fmt.Fprintf(w, "\n%s\n", total)
}
