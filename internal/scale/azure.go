package scale

import (
	"fmt"
	"slices"
	"time"
)

// azure decides as Azure documents it. It computes the count every SyncEvery and checks every Polling whether custom
// rules are active. A request wakes an app at once.
func (d *Decider) azure(s Sample, out *Decision) {
	p, state := d.policy, &d.state
	if s.At.Sub(state.LastSync) >= 2*SyncEvery {
		// No decision was made for a while, because nothing happened. Count requests from now on.
		state.LastSync = s.At.Add(-s.At.Sub(state.LastSync) % SyncEvery)
		state.Arrived, state.Rate = 0, 0
	}
	state.Arrived += s.Load.Arrived
	sync := s.At.Sub(state.LastSync) >= SyncEvery
	poll := s.At.Sub(state.LastPoll) >= p.Polling
	if sync {
		since := s.At.Sub(state.LastSync)
		state.Rate = float64(state.Arrived) / since.Seconds()
		state.LastSync, state.Arrived = state.LastSync.Add(since.Truncate(SyncEvery)), 0
	}
	if poll {
		state.LastPoll = state.LastPoll.Add(s.At.Sub(state.LastPoll).Truncate(p.Polling))
	}
	for i, r := range p.Rules {
		w := d.azureWish(r, s)
		if r.Kind != HTTP && r.Kind != TCP && r.Kind != External && !poll {
			// Between two polls a custom rule stays as active as it was. External sources are polled elsewhere.
			w.Active = i < len(state.Wishes) && state.Wishes[i].Rule == r.Name && state.Wishes[i].Active
		}
		out.Wishes = append(out.Wishes, w)
	}
	state.Wishes = slices.Clone(out.Wishes)
	awake := active(out.Wishes, p.Rules)
	out.Rule = cause(out.Wishes, p.Rules)
	if awake {
		state.LastActive = s.At
	}
	switch {
	case s.Current == 0 && p.floor() == 0 && !awake:
		out.Wanted = 0
	case s.Current == 0:
		// From zero the count goes to 1 or to the minimum. The next sync continues from there.
		out.Wanted = p.least()
		d.recommend(s.At, out.Wanted)
	case sync:
		desired, _ := largest(out.Wishes)
		d.hold(s, out, desired)
		if step := max(firstStep, 2*s.Current); out.Wanted > step {
			out.Wanted, out.Bound = step, BoundStep
		}
	case s.Current == 1 && p.floor() == 0:
		out.Wanted = d.last(s, out)
	default:
		out.Wanted = min(max(s.Current, p.floor()), p.Max)
	}
	out.Next = state.LastSync.Add(SyncEvery)
	if out.Wanted == 0 && s.Current == 0 {
		out.Next = s.At.Add(asleep)
	}
	if slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Kind != HTTP && r.Kind != TCP }) {
		out.sooner(state.LastPoll.Add(p.Polling))
	}
	if s.Current == 1 && p.floor() == 0 {
		out.sooner(state.LastActive.Add(p.Cooldown))
	}
}

// asleep is the time between two decisions for a revision that only a request can wake. Such a request triggers a
// decision itself.
const asleep = time.Hour

// sooner moves the next decision forward to at, if at is earlier.
func (d *Decision) sooner(at time.Time) {
	if at.After(d.At) && at.Before(d.Next) {
		d.Next = at
	}
}

func (d *Decider) azureWish(r Rule, s Sample) Wish {
	w := Wish{Rule: r.Name, Kind: r.Kind, Target: r.Target}
	tolerated := false
	switch r.Kind {
	case HTTP, TCP:
		switch r.Metric {
		case InFlight:
			w.Value = float64(s.Load.InFlight + s.Load.Waiting)
		case Connections:
			w.Value = float64(s.Load.Open)
		default:
			w.Value = d.state.Rate
		}
		w.Wanted, tolerated = perReplica(w.Value, r.Target, s.Current)
		w.Active = s.Load.active()
		if w.Value == 0 && s.Load.InFlight > 0 && s.Current > 0 {
			// Observed in Azure: open streams keep the current replicas even when no new request arrives.
			w.Wanted, w.Note = s.Current, fmt.Sprintf("requests still open: %d", s.Load.InFlight)
		}
	case Cron:
		// KEDA's cron scaler reports desiredReplicas as a value with a target of 1.
		w.schedule(r, s.At)
		if w.Target = 1; w.Active {
			w.Value = r.Target
		}
		w.Wanted, tolerated = perReplica(w.Value, 1, s.Current)
	case Other:
		return other(r, s)
	default:
		return d.measured(r, s)
	}
	if tolerated {
		w.note("within tolerance")
	}
	return w
}
