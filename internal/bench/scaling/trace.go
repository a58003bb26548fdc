package scaling

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/ingress/room"
	"penstock/internal/load"
	"penstock/internal/resource"
	"penstock/internal/scale"
	"penstock/internal/sim"
)

// What the model of a trace is: a server with four slots that reads 4,000 tokens a second and writes 20.
const (
	traceTarget = 4
	traceMax    = 40
	traceLine   = 1000
	tokensIn    = 4000
	tokensOut   = 20
	// Before they are divided by the speed.
	traceWindow   = resource.FastScaleInWindow
	traceCooldown = time.Minute
	// zeroLimit is how long an app may take to zero once nobody asks.
	zeroLimit = time.Minute + traceCooldown
	// traceServiceUnit is that of the service times which are sent.
	traceServiceUnit = time.Microsecond
)

// TraceOptions choose a trace.
type TraceOptions struct {
	Options
	Name  string // for people
	Trace []load.Arrival
	Speed int           // every duration of the trace and of the rules is divided by it
	Start time.Duration // of a replica; it is not divided
}

// Trace is what a trace showed live and in sim.
type Trace struct {
	Machine  Machine  `json:"machine"`
	Trace    string   `json:"trace"`
	Requests int      `json:"requests"`
	Speed    int      `json:"speed"`
	StartMS  float64  `json:"startMs"` // mean of the replicas' starts, as measured
	Live     TraceRow `json:"live"`
	Sim      TraceRow `json:"sim"`
	LagMS    float64  `json:"generatorLagP99Ms"`
}

// TraceRow is one of the two.
type TraceRow struct {
	outcome
	WaitingMS      Times   `json:"waitingMs"`
	ReplicaSeconds float64 `json:"replicaSeconds"` // of replicas that were wanted
	ColdStarts     int     `json:"coldStarts"`     // from zero
	Starts         int     `json:"starts"`
	Most           int     `json:"mostReplicas"`
}

// RunTrace plays a trace against an app at zero, and through sim.
func RunTrace(ctx context.Context, o TraceOptions) (_ *Trace, err error) {
	out := &Trace{Machine: Here(), Trace: o.Name, Requests: len(o.Trace), Speed: o.Speed}
	speed := time.Duration(o.Speed)
	// The server has whole seconds here.
	cooldown := max(1, int((traceCooldown/speed).Round(time.Second)/time.Second))
	a, remove, err := deploy(ctx, o.Options, spec{
		name: "trace", behaviour: resource.Fast, start: o.Start, target: traceTarget, max: traceMax, line: traceLine,
		cooldown: cooldown, window: traceWindow / speed,
	})
	if err != nil {
		return nil, err
	}
	defer finish(&err, remove)
	atZero := func(s wire.RevisionScale) bool { return s.Wanted == 0 && s.Replicas == 0 }
	if err := a.until(ctx, "at zero", zeroLimit, atZero); err != nil {
		return nil, err
	}
	trace, arrivals := scaled(o.Trace, speed)
	o.Progress(fmt.Sprintf("%d requests over %s", len(trace), trace[len(trace)-1].At.Round(time.Second)))
	stop := a.changes(ctx)
	sum, err := a.send(ctx, requests{plan: load.Plan{
		Arrivals: slices.Values(arrivals), Words: o.Name, Duration: trace[len(trace)-1].At + time.Second, Count: math.MaxInt32, MaxOutstanding: load.MaxOutstanding,
	}})
	if err == nil {
		err = a.until(ctx, "at zero again", zeroLimit, atZero)
	}
	changes, changesErr := stop()
	if err = errors.Join(err, changesErr); err != nil {
		return nil, err
	}
	records, err := a.records(ctx, sum.Started, len(trace))
	if err != nil {
		return nil, err
	}
	ready, err := a.ready(ctx, sum.Started)
	if err != nil {
		return nil, err
	}
	if len(ready) == 0 {
		return nil, errors.New("no replica became ready")
	}
	out.Live = live(sum, changes, records)
	starts := make([]time.Duration, len(ready))
	for i, e := range ready {
		starts[i] = e.Duration
		out.StartMS += ms(e.Duration) / float64(len(ready))
	}
	if out.Sim, err = simulated(a.spec, trace, starts); err != nil {
		return nil, err
	}
	if sum.Lag != nil {
		out.LagMS = sum.Lag.P99
	}
	out.Machine.End()
	return out, nil
}

// scaled is a trace at a speed, for sim and for the generator.
func scaled(trace []load.Arrival, speed time.Duration) (out []sim.Request, arrivals []load.Arrival) {
	for _, r := range trace {
		service := time.Duration(r.ContextTokens)*time.Second/tokensIn + time.Duration(r.GeneratedTokens)*time.Second/tokensOut
		q := sim.Request{At: r.At / speed, Service: (service / speed).Round(traceServiceUnit)}
		out = append(out, q)
		arrivals = append(arrivals, load.Arrival{At: q.At, ContextTokens: int(q.Service / traceServiceUnit)})
	}
	return out, arrivals
}

func live(sum *load.Summary, changes []wire.ScaleChange, records []Request) TraceRow {
	row := TraceRow{outcome: outcomeOf(sum, records), WaitingMS: waits(records)}
	for i, c := range changes {
		if c.At.Before(sum.Started) {
			continue
		}
		row.Most = max(row.Most, c.To)
		row.Starts += max(0, c.To-c.From)
		if c.From == 0 {
			row.ColdStarts++
		}
		if i+1 < len(changes) {
			row.ReplicaSeconds += float64(c.To) * changes[i+1].At.Sub(c.At).Seconds()
		}
	}
	return row
}

// reasonName says why sim refused a request.
var reasonName = map[room.Reason]string{
	room.Failed: "no replica can start", room.LineFull: "too many wait", room.NoPlace: "no place became free", room.NoReplica: "no replica became ready",
}

func simulated(s spec, trace []sim.Request, starts []time.Duration) (row TraceRow, err error) {
	r, err := sim.Run(sim.Config{
		Policy: scale.Policy{
			Behaviour: s.behaviour, Min: s.min, Max: s.max, Cooldown: time.Duration(s.cooldown) * time.Second, ScaleIn: s.window,
			Rules: []scale.Rule{{Name: "users", Kind: scale.HTTP, Target: float64(s.target), Metric: scale.InFlight}},
		},
		Settings: resource.Settings{Behaviour: s.behaviour, MaxConcurrency: s.target, QueueLimit: s.line, QueueTimeout: queueTimeout},
		Learned:  scale.Learned{Start: starts[0]}, // the server had one replica before, to judge the revision by
		Start:    func(n int) time.Duration { return starts[n%len(starts)] },
		Tail:     time.Hour,
	}, trace)
	if err != nil {
		return row, err
	}
	row.outcome = outcome{Answered: r.Served, Refused: map[string]int{}}
	row.Lost = len(trace) - r.Served
	for reason, n := range r.Refused {
		row.Refused[reasonName[reason]] += n
		row.Lost -= n
	}
	row.WaitingMS, row.ColdStarts, row.Starts, row.Most = timesOf(r.Waits), r.ColdStarts, r.Starts, r.MostReplicas
	for i, c := range r.Counts {
		if i+1 < len(r.Counts) {
			row.ReplicaSeconds += float64(c.N) * (r.Counts[i+1].At - c.At).Seconds()
		}
	}
	return row, nil
}

// WriteText prints the table for people.
func (t *Trace) WriteText(w io.Writer) {
	fmt.Fprintf(w, "%s. %s, %d requests at %dx; a replica took %.2f s to start on average.\n\n", t.Machine, t.Trace, t.Requests, t.Speed, t.StartMS/1000)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\twaiting p50\tp95\tp99\tmax\treplica-seconds\tcold starts\tstarts\tmost\t")
	for _, row := range []struct {
		name string
		TraceRow
	}{{"live", t.Live}, {"sim", t.Sim}} {
		q := row.WaitingMS
		fmt.Fprintf(tw, "%s\t%.0f ms\t%.0f ms\t%.0f ms\t%.0f ms\t%.0f\t%d\t%d\t%d\t\n", row.name, q.P50, q.P95, q.P99, q.Max, row.ReplicaSeconds, row.ColdStarts, row.Starts, row.Most)
	}
	over := func(live, sim float64) string {
		if sim == 0 {
			return "-"
		}
		return fmt.Sprintf("%+.0f %%", 100*(live/sim-1))
	}
	l, s := t.Live, t.Sim
	fmt.Fprintf(tw, "live against sim\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", over(l.WaitingMS.P50, s.WaitingMS.P50), over(l.WaitingMS.P95, s.WaitingMS.P95),
		over(l.WaitingMS.P99, s.WaitingMS.P99), over(l.WaitingMS.Max, s.WaitingMS.Max), over(l.ReplicaSeconds, s.ReplicaSeconds),
		over(float64(l.ColdStarts), float64(s.ColdStarts)), over(float64(l.Starts), float64(s.Starts)), over(float64(l.Most), float64(s.Most)))
	tw.Flush()
	fmt.Fprintf(w, "\nlive: %s\nsim: %s\n", l.outcome, s.outcome)
	if t.LagMS > 5 {
		fmt.Fprintf(w, "note: the generator was late: p99 %.0f ms\n", t.LagMS)
	}
}
