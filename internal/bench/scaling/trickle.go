package scaling

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/load"
	"penstock/internal/resource"
)

// What a trickle is, before its durations are divided by the speed.
const (
	trickleEvery    = time.Minute
	trickleFor      = 30 * time.Minute
	trickleCooldown = 5 * time.Minute
	trickleService  = 50 * time.Millisecond // not divided
)

// What the many are of whom one client is left.
const (
	fewerReplicas = 10
	fewerTarget   = 2
	fewerService  = 200 * time.Millisecond
	fewerFor      = 5 * time.Second
	// GoalFewer is how long after the scale-in window one replica may be left.
	GoalFewer = 2 * time.Second
)

// TrickleOptions choose a trickle.
type TrickleOptions struct {
	Options
	Speed int // every duration of the trickle and the cool-down period are divided by it
	// Window is the scale-in window of the app whose clients leave.
	Window time.Duration
}

// Trickle is the result.
type Trickle struct {
	Machine  Machine `json:"machine"`
	Speed    int     `json:"speed"`
	Requests int     `json:"requests"`
	outcome
	Starts int     `json:"starts"` // of replicas for all requests; 1 is right
	P50MS  float64 `json:"p50Ms"`  // from when a request was due until it was answered
	P99MS  float64 `json:"p99Ms"`

	WindowMS float64  `json:"windowMs"`
	Most     int      `json:"mostReplicas"`     // with many clients
	OneMS    *float64 `json:"oneMs,omitempty"`  // from when one client was left until one replica was wanted; none if it never was
	Fewer    outcome  `json:"oneClient"`        // of the one client
	Limit    float64  `json:"oneClientSeconds"` // how long it went on
}

// RunTrickle sends a request now and then to an app at zero, and lets all clients of another app but one leave.
func RunTrickle(ctx context.Context, o TrickleOptions) (*Trickle, error) {
	out := &Trickle{Machine: Here(), Speed: o.Speed, WindowMS: ms(o.Window)}
	o.Progress(fmt.Sprintf("a request each %s for %s", trickleEvery/time.Duration(o.Speed), trickleFor/time.Duration(o.Speed)))
	if err := o.trickle(ctx, out); err != nil {
		return nil, err
	}
	o.Progress("ten replicas, one client")
	if err := o.fewer(ctx, out); err != nil {
		return nil, err
	}
	out.Machine.End()
	return out, nil
}

func (o TrickleOptions) trickle(ctx context.Context, out *Trickle) (err error) {
	speed := time.Duration(o.Speed)
	a, remove, err := deploy(ctx, o.Options, spec{
		name: "trickle", behaviour: resource.Fast, target: 10, max: 10, line: 1000, cooldown: max(1, int(trickleCooldown/speed/time.Second)),
	})
	if err != nil {
		return err
	}
	defer finish(&err, remove)
	if err := a.until(ctx, "at zero", time.Minute+trickleCooldown/speed, func(s wire.RevisionScale) bool { return s.Wanted == 0 && s.Replicas == 0 }); err != nil {
		return err
	}
	every := trickleEvery / speed
	sum, err := a.send(ctx, requests{plan: load.Plan{
		Arrivals: load.Constant(1 / every.Seconds()), Endless: true, Words: "a trickle", Duration: trickleFor / speed, Count: math.MaxInt32, MaxOutstanding: 10,
	}, service: trickleService})
	if err != nil {
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
	out.Requests, out.Starts, out.outcome = int(sum.Requests), len(ready), outcomeOf(sum, records)
	if q := sum.Latency; q != nil {
		out.P50MS, out.P99MS = q.P50, q.P99
	}
	return nil
}

func (o TrickleOptions) fewer(ctx context.Context, out *Trickle) (err error) {
	a, remove, err := deploy(ctx, o.Options, spec{
		name: "fewer", behaviour: resource.Fast, target: fewerTarget, max: fewerReplicas, line: 1000, cooldown: 300, window: o.Window,
	})
	if err != nil {
		return err
	}
	defer finish(&err, remove)
	stop := a.changes(ctx)
	_, err = a.send(ctx, requests{plan: load.Plan{Clients: fewerReplicas * fewerTarget, Words: "many clients", Duration: fewerFor, Count: math.MaxInt32}, service: fewerService})
	var since time.Time
	if err == nil {
		// Longer than the goal, to see by how much it is missed.
		limit := 2*o.Window + 40*time.Second
		since = time.Now()
		one, done := context.WithCancel(ctx)
		wait := make(chan error, 1)
		go func() {
			wait <- a.until(one, "at one replica", limit, func(s wire.RevisionScale) bool { return s.Wanted == 1 })
			done()
		}()
		var sum *load.Summary
		sum, err = a.sendUntil(ctx, one, requests{plan: load.Plan{Clients: 1, Words: "one client", Duration: limit, Count: math.MaxInt32}, service: fewerService})
		done()
		<-wait // its error says that the limit was reached, which the missing OneMS says too
		if err == nil {
			out.Fewer = outcome{Answered: int(sum.Succeeded), Lost: int(sum.Failed - stopped(sum)), Refused: map[string]int{}}
			out.Limit = sum.Seconds
		}
	}
	changes, changesErr := stop()
	if err = errors.Join(err, changesErr); err != nil {
		return err
	}
	out.Most = most(changes, time.Time{})
	for _, c := range changes {
		if c.To == 1 && !c.At.Before(since) {
			took := ms(c.At.Sub(since))
			out.OneMS = &took
			break
		}
	}
	return nil
}

// stopped counts requests that were under way when the run was stopped.
func stopped(sum *load.Summary) int64 {
	if f := sum.Errors[load.Stopped]; f != nil {
		return f.Count
	}
	return 0
}

// WriteText prints the figures for people.
func (t *Trickle) WriteText(w io.Writer) {
	speed := time.Duration(t.Speed)
	fmt.Fprintf(w, "%s.\n\n", t.Machine)
	fmt.Fprintf(w, "a request each %s for %s, cool-down period %s: %d starts (goal 1), %s\n",
		trickleEvery/speed, trickleFor/speed, trickleCooldown/speed, t.Starts, t.outcome)
	fmt.Fprintf(w, "  from due to answered: p50 %.0f ms, p99 %.0f ms\n", t.P50MS, t.P99MS)
	took := fmt.Sprintf("not within %.0f s", t.Limit)
	if t.OneMS != nil {
		took = fmt.Sprintf("after %.1f s", *t.OneMS/1000)
	}
	fmt.Fprintf(w, "%d replicas, of whose clients one is left: one replica %s (goal %.1f s, the scale-in window and %s)\n",
		t.Most, took, t.WindowMS/1000+GoalFewer.Seconds(), GoalFewer)
	fmt.Fprintf(w, "  the one client: %s\n", t.Fewer)
}
