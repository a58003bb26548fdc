package probe

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"penstock/internal/resource"
)

// Target is the container to probe.
type Target struct {
	Address netip.Addr
	// Started is when its process started. Initial delays count from then.
	Started time.Time
	// Ready says that the process has been ready before. Then its liveness probe counts from the start.
	Ready     bool
	Checks    []Check
	Behaviour resource.Behaviour
	// Port returns the port that Detected stands for. It may be called concurrently.
	Port func(context.Context) (int, error)
	// Answered reports whether the container has sent response data to any request since then. It may be nil.
	Answered func(since time.Time) bool
}

type answer struct {
	check       int
	asked, came time.Time
	err         error
}

// Run probes the container until ctx ends or a verdict says that it must be killed. It reports every change and every failure,
// one after another. A container without checks is reported ready at once. When Run returns, no probe is running.
func Run(ctx context.Context, t Target, report func(Verdict)) {
	core := NewCore(t.Checks, t.Started, t.Ready, t.Behaviour)
	if core.Started() {
		report(Verdict{Changed: true, Started: true, Ready: core.Ready()})
	}
	if len(t.Checks) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()

	ask := newAsker(t.Address, t.Port)
	answers := make(chan answer, len(t.Checks)) // each check runs at most once at a time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, wait := core.Due(time.Now())
		for _, i := range due {
			asked := time.Now()
			wait, err := ask.ask(ctx, core.Check(i).Probe)
			if wait == nil {
				answers <- answer{i, asked, time.Now(), err} // there is room for it
				continue
			}
			asking.Go(func() {
				err := wait()
				answers <- answer{i, asked, time.Now(), err}
			})
		}
		timer.Stop()
		if wait >= 0 {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case a := <-answers:
			if ctx.Err() != nil {
				return
			}
			if errors.Is(a.err, errTimeout) && t.Answered != nil && t.Answered(a.asked) {
				a.err = ErrBusy
			}
			v := core.Answer(a.check, a.asked, a.came, a.err)
			if v.Changed || v.Counted || v.Busy > 0 || v.Loading > 0 || v.Open > 0 {
				report(v)
			}
			if v.Kill {
				return
			}
		}
	}
}
