package scale

import (
	"math"
	"time"
)

// shortest is the shortest time over which a rate is measured. lookEvery is the time between two decisions while there
// is load.
const (
	shortest  = 90 * time.Millisecond
	lookEvery = time.Second
)

// rateWindow is a time over which arrivals are measured. deviations is the number of standard deviations that are
// subtracted from the number of arrivals, so that chance alone does not raise the count. Short windows see a burst as
// it begins, long windows see a slow load. A count stays for a scale-in window, which contains many short windows. The
// largest of n such windows must still not exceed the true rate, which takes sqrt(2 ln n) deviations.
type rateWindow struct {
	length     time.Duration
	deviations float64
}

var rateWindows = [...]rateWindow{
	{shortest, 3.6}, {250 * time.Millisecond, 3.3}, {500 * time.Millisecond, 3.1}, {time.Second, 2.9},
	{2500 * time.Millisecond, 2.5}, {5 * time.Second, 2.2}, {10 * time.Second, 1.9}, {30 * time.Second, 0},
}

const (
	// steadyWindow is the longest rate window, and meanWindow the longest one over which requests on replicas are averaged.
	steadyWindow = 30 * time.Second
	meanWindow   = 10 * time.Second
	// lastWindow is the time whose load limits what longer windows say, so that a load that has ended no longer counts. Chance makes
	// it too low now and then. That does not matter if the scale-in window has room for manyLast of them, since its largest count
	// holds. Ingresses report about once a second, and a window of exactly a second would often take in two reports.
	lastWindow = 750 * time.Millisecond
	manyLast   = 20
	// unlikelyNone is the number of expected arrivals at which a window without any is still possible: 1 case in 50.
	unlikelyNone = 4
)

// The replicas ordered for a backlog are limited to this share of what the arrivals need, or to a little less than one
// replica. More would be too many as soon as the backlog is gone.
const (
	backlogShare = 0.1
	backlogLeast = 0.9
)

// fast decides at every change.
func (d *Decider) fast(s Sample, out *Decision) {
	p, state := d.policy, &d.state
	for _, r := range p.Rules {
		out.Wishes = append(out.Wishes, d.fastWish(r, s))
	}
	state.Wishes = out.Wishes
	if active(out.Wishes, p.Rules) {
		state.LastActive = s.At
	}
	desired, _ := largest(out.Wishes)
	out.Rule = cause(out.Wishes, p.Rules)
	d.hold(s, out, desired)

	out.Next = s.At.Add(lookEvery)
	out.sooner(out.Until)
	if s.Load != (Load{}) || out.Wanted != s.Current {
		return
	}
	out.Next = s.At.Add(asleep)
	out.sooner(out.Until)
	for _, r := range p.Rules {
		switch r.Kind {
		case Cron:
			out.sooner(r.Window.Change(s.At))
		case CPU, Memory, External:
			out.sooner(s.At.Add(SyncEvery))
		}
	}
	if s.Current > 0 {
		out.sooner(s.At.Add(SyncEvery))
	}
}

func (d *Decider) fastWish(r Rule, s Sample) Wish {
	w := Wish{Rule: r.Name, Kind: r.Kind, Target: r.Target}
	l := s.Load
	switch r.Kind {
	case HTTP, TCP:
		w.Active = l.active()
		switch {
		case r.Metric == Documented:
			if n, _, took, ok := d.state.Learned.history.over(SyncEvery); ok {
				w.Value = float64(n) / took.Seconds()
			}
		case r.Metric == Connections:
			w.Value = float64(l.Open)
		case r.Kind == TCP || d.state.Learned.Service == 0:
			// The length of a connection depends on the client and the app, so it says nothing about the next one.
			w.Value = float64(l.InFlight + l.Waiting)
		default:
			w.Value, w.Wanted = d.demand(s, r.Target)
			return w
		}
		w.Wanted = ceil(w.Value / r.Target)
	case Cron:
		// A schedule is a count, not a load. It is applied exactly.
		if w.schedule(r, s.At); w.Active {
			w.Wanted = max(1, int(r.Target))
		}
	case Other:
		return other(r, s)
	default:
		return d.measured(r, s)
	}
	return w
}

// demand returns the expected number of concurrent requests once there are enough replicas, and the replicas needed for
// these and for the requests that are waiting.
func (d *Decider) demand(s Sample, target float64) (value float64, n int) {
	learned, l := &d.state.Learned, s.Load
	service, start := learned.Service.Seconds(), learned.Start.Seconds()
	present := float64(l.InFlight + l.Waiting)
	mean, lately, most := 0.0, math.Inf(1), math.Inf(1)
	for _, w := range rateWindows {
		came, busy, took, ok := learned.history.over(w.length)
		if !ok {
			break
		}
		if w.length <= meanWindow {
			mean = busy.Seconds() / took.Seconds() // over the longest of these windows that is known
		}
		arrived := likely(float64(came), w.deviations)
		// A load that has lasted for a while will probably last as long again. Requests that came all at once will not.
		late, _, _, _ := learned.history.over(w.length / 2)
		more := likely(2*float64(min(late, came-late)), w.deviations)
		// Little's law: arrivals a second x service time.
		needed := math.Min(arrived/took.Seconds()*service, present+2*more)
		value = math.Max(value, math.Min(needed, math.Max(present, most)))
		// The most that a window allows also limits the longer ones, so that a load that has ended no longer counts.
		most = math.Min(most, (float64(came)+w.deviations*math.Sqrt(float64(came))+unlikelyNone)/took.Seconds()*service)
		if w.length >= lastWindow && math.IsInf(lately, 1) {
			if came, busy, took, ok := learned.history.over(lastWindow); ok {
				if lately = math.Max(float64(came)*service, busy.Seconds()) / took.Seconds(); d.policy.ScaleIn < manyLast*lastWindow {
					lately += 2*math.Sqrt(lately) + 1
				}
				most = math.Min(most, lately)
			}
		}
	}
	mean = math.Min(mean, lately)
	// Waiting requests that the arrivals' replicas cannot take must be served within the time that a replica takes to
	// start.
	late := float64(l.Waiting) - math.Max(0, value-float64(l.InFlight))
	waiting := math.Max(0, late) * service / math.Max(start, service)
	extra := math.Max(backlogLeast*target, backlogShare*value)
	n = ceil((value + math.Min(waiting, extra)) / target)
	// If requests become longer, the number on the replicas shows it first. It is not usable while a backlog is being
	// served.
	if !learned.waited(s.At) || mean <= float64(s.Current)*target {
		n = max(n, ceil(mean/target))
		value = math.Max(value, mean)
	}
	return value, n
}

// likely returns n arrivals minus the part that chance can explain, given as a number of standard deviations.
func likely(n, deviations float64) float64 { return math.Max(0, n-deviations*math.Sqrt(n)) }
