package scale

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"penstock/internal/resource"
)

// Decider decides for one revision. It is not safe for concurrent use.
type Decider struct {
	policy Policy
	state  State
}

// New returns a decider that continues from s. The zero State is that of a new revision.
func New(p Policy, s State) *Decider {
	p.Polling = cmp.Or(p.Polling, resource.DefaultPolling)
	return &Decider{policy: p, state: s}
}

// Policy returns the policy.
func (d *Decider) Policy() Policy { return d.policy }

// SetPolicy changes the policy and keeps the state.
func (d *Decider) SetPolicy(p Policy) { d.policy = New(p, State{}).policy }

// State returns a copy of the state, which can be saved.
func (d *Decider) State() State {
	s := d.state
	s.Recent = slices.Clone(s.Recent)
	return s
}

// Resume is called with the current count before the first decision after a gap. What happened during the gap is
// unknown, so the count is held for one scale-in window.
func (d *Decider) Resume(at time.Time, current int) {
	d.recommend(at, current)
	if current > 0 || d.state.LastActive.IsZero() {
		d.state.LastActive = at
	}
	d.state.LastSync, d.state.LastPoll, d.state.Arrived, d.state.Rate = at, at, 0, 0
}

// Decide returns how many replicas the revision should have. Samples must come in the order of their time.
func (d *Decider) Decide(s Sample) Decision {
	if d.state.LastActive.IsZero() {
		d.Resume(s.At, s.Current)
	}
	d.state.Learned.learn(s)
	out := Decision{At: s.At, Current: s.Current}
	if d.policy.Behaviour == resource.Azure {
		d.azure(s, &out)
	} else {
		d.fast(s, &out)
	}
	out.Reason = explain(out, d.policy.Cooldown)
	return out
}

// active reports whether a rule is active that can scale from zero.
func active(wishes []Wish, rules []Rule) bool {
	for i, w := range wishes {
		if w.Active && rules[i].zeroable() {
			return true
		}
	}
	return false
}

// failed reports whether the source of any rule gave no value.
func failed(wishes []Wish) bool {
	return slices.ContainsFunc(wishes, func(w Wish) bool { return w.Failed })
}

// largest returns the largest count that a rule wants, and the name of that rule.
func largest(wishes []Wish) (n int, rule string) {
	for _, w := range wishes {
		if w.Wanted > n {
			n, rule = w.Wanted, w.Rule
		}
	}
	return n, rule
}

// cause returns the rule that wins, or one that is active and does not ask for a replica yet.
func cause(wishes []Wish, rules []Rule) string {
	if _, rule := largest(wishes); rule != "" {
		return rule
	}
	for i, w := range wishes {
		if w.Active && rules[i].zeroable() {
			return w.Rule
		}
	}
	return ""
}

// recommend remembers that n replicas were needed at a time.
func (d *Decider) recommend(at time.Time, n int) {
	r := d.state.Recent
	for len(r) > 0 && r[len(r)-1].N <= n {
		r = r[:len(r)-1]
	}
	d.state.Recent = append(r, Recommendation{at, n})
}

// enough returns the largest count that was recommended within the scale-in window, and when a smaller one is possible.
func (d *Decider) enough(at time.Time) (n int, until time.Time) {
	r := d.state.Recent
	for len(r) > 1 && at.Sub(r[0].At) >= d.policy.ScaleIn {
		r = r[1:]
	}
	d.state.Recent = r
	if len(r) == 0 {
		return 0, at
	}
	return r[0].N, r[0].At.Add(d.policy.ScaleIn)
}

// hold turns the count that the rules want into the decided count. It applies minReplicas and maxReplicas, scales in
// only after the scale-in window, and scales to zero only after the cool-down period.
func (d *Decider) hold(s Sample, out *Decision, desired int) {
	p := d.policy
	out.Desired = desired
	n := desired
	if least := p.least(); n < least {
		n = least
		switch {
		case p.Min > 0:
			out.Bound = BoundMin
		case p.Unjudged:
			out.Bound = BoundJudged
		}
	}
	if n > p.Max {
		n, out.Bound = p.Max, BoundMax
	}
	d.recommend(s.At, n)
	if current := min(s.Current, p.Max); n < current {
		kept, until := d.enough(s.At)
		switch {
		case s.Load.Waiting > 0 && p.Behaviour != resource.Azure:
			n, out.Bound = current, BoundBacklog
		case kept > n:
			n, out.Bound, out.Until = min(kept, current), BoundScaleIn, until
		}
	}
	if n == 1 && p.floor() == 0 {
		n = d.last(s, out)
	}
	out.Wanted = n
}

// last returns 1 if the last replica must stay, and 0 if not.
func (d *Decider) last(s Sample, out *Decision) int {
	off := d.state.LastActive.Add(d.policy.Cooldown)
	switch {
	case active(out.Wishes, d.policy.Rules):
		return 1
	case s.Current == 0:
		return 0
	case failed(out.Wishes):
		out.Bound, out.Until = BoundSource, time.Time{}
		return 1
	case s.At.Before(off):
		out.Bound, out.Until = BoundCooldown, off
		return 1
	case s.Current > 1:
		return 1 // scaling to zero is a separate step, so a larger count goes to 1 first
	}
	out.Bound, out.Until = NoBound, time.Time{}
	return 0
}

// perReplica returns the count for a total value with a target per replica, as the Kubernetes autoscaler computes it.
func perReplica(value, target float64, current int) (n int, tolerated bool) {
	if target <= 0 || math.IsNaN(value) || value <= 0 {
		return 0, false
	}
	if current > 0 && math.Abs(value/(target*float64(current))-1) <= Tolerance+1e-9 {
		return current, true
	}
	return ceil(value / target), false
}

// utilization returns the count for a mean value over the replicas.
func utilization(r Reading, target float64, current int) (n int, tolerated bool) {
	ratio := r.Value / target
	switch {
	case target <= 0 || r.Replicas == 0:
		return current, false
	case math.Abs(ratio-1) <= Tolerance+1e-9:
		return r.Replicas, true
	}
	return ceil(ratio * float64(r.Replicas)), false
}

// ceil rounds up, but ignores floating-point error. The result fits into an int32, so sums do not overflow.
func ceil(x float64) int {
	return int(math.Min(math.Ceil(x-1e-9), math.MaxInt32))
}

// measured returns the wish of a rule whose value is a reading.
func (d *Decider) measured(r Rule, s Sample) Wish {
	w := Wish{Rule: r.Name, Kind: r.Kind, Target: r.Target}
	reading, ok := s.Readings[r.Name]
	if w.Note = invalid(r, reading, ok); w.Note != "" {
		w.Failed, w.Wanted = true, s.Current
		w.Active = r.Kind == External && reading.Active // a source can push its activity although its value cannot be read
		return w
	}
	w.Value = reading.Value
	var tolerated bool
	switch r.Kind {
	case CPU, Memory:
		w.Note = "cannot scale to or from zero"
		if r.Amount {
			w.Note = unit(r.Kind) + "; " + w.Note
		}
		w.Wanted, tolerated = utilization(reading, r.Target, s.Current)
	default:
		w.Target, w.Active, w.Note = reading.Target, reading.Active, reading.Note
		if !w.Active && (s.Current == 0 || !s.At.Before(d.state.LastActive.Add(d.policy.Cooldown))) {
			// As in KEDA, the value counts while the source is active, and for the cool-down period after that.
			if reading.Value > 0 {
				w.note("not active, so its value does not count")
			}
			return w
		}
		w.Wanted, tolerated = perReplica(reading.Value, w.Target, s.Current)
	}
	if tolerated {
		w.note("within tolerance")
	}
	return w
}

// unit returns the unit of a rule about an amount.
func unit(k Kind) string {
	if k == CPU {
		return "in vCPUs"
	}
	return "in MiB"
}

// invalid says why a reading has no value, or returns "".
func invalid(r Rule, reading Reading, ok bool) string {
	v := reading.Value
	switch {
	case !ok || reading.Err != "":
		return cmp.Or(reading.Err, "no value yet")
	case math.IsNaN(v) || math.IsInf(v, 0) || v < 0:
		return fmt.Sprintf("want a value of at least 0, got %v", v)
	case r.Kind == External && !(reading.Target > 0):
		return fmt.Sprintf("want a target above 0, got %v", reading.Target)
	}
	return ""
}

// schedule fills in whether the window of a cron rule is active.
func (w *Wish) schedule(r Rule, at time.Time) {
	w.Active, w.Hours, w.Changes = r.Window.Active(at), r.Hours, r.Window.Change(at)
}

// note adds a remark to a wish.
func (w *Wish) note(what string) {
	if w.Note != "" {
		what = w.Note + "; " + what
	}
	w.Note = what
}

// other returns the wish of a rule that is not evaluated here.
func other(r Rule, s Sample) Wish {
	return Wish{Rule: r.Name, Kind: r.Kind, Wanted: max(1, s.Current), Note: "not evaluated here: " + r.Type}
}

// explain returns a sentence that says why the count is what it is.
func explain(d Decision, cooldown time.Duration) string {
	var why string
	i := slices.IndexFunc(d.Wishes, func(w Wish) bool { return w.Rule == d.Rule })
	switch {
	case d.Wanted == 0 && d.Current > 0:
		return fmt.Sprintf("there was no activity for the cool-down period of %v", cooldown)
	case i >= 0 && d.Wishes[i].Failed:
		why = fmt.Sprintf("rule %q has no value (%s)", d.Rule, d.Wishes[i].Note)
	case i >= 0 && d.Wishes[i].Kind == Other:
		why = fmt.Sprintf("rule %q is not evaluated here and keeps %s", d.Rule, replicas(d.Wishes[i].Wanted))
	case i >= 0 && d.Current == 0 && d.Wishes[i].Wanted == 0:
		why = fmt.Sprintf("rule %q is active", d.Rule)
	case i >= 0 && d.Wishes[i].Kind == Cron:
		why = fmt.Sprintf("rule %q is in its time window and wants %s", d.Rule, replicas(d.Wishes[i].Wanted))
	case i >= 0:
		w := d.Wishes[i]
		why = fmt.Sprintf("rule %q has a value of %s and a target of %s, and wants %s", d.Rule, figure(w.Value), figure(w.Target), replicas(w.Wanted))
	case len(d.Wishes) == 0:
		why = "there is no scale rule"
	default:
		why = "no rule asks for a replica"
	}
	switch d.Bound {
	case BoundMin:
		why += fmt.Sprintf("; minReplicas raises it to %d", d.Wanted)
	case BoundMax:
		why += fmt.Sprintf("; maxReplicas limits it to %d", d.Wanted)
	case BoundStep:
		why += fmt.Sprintf("; one scale-out step goes to %d at most", d.Wanted)
	case BoundScaleIn:
		why += fmt.Sprintf("; %d were needed within the scale-in window, so the count does not go below that until %s", d.Wanted, clock(d.Until))
	case BoundCooldown:
		why += fmt.Sprintf("; the last replica stays for the cool-down period, until %s", clock(d.Until))
	case BoundBacklog:
		why += "; requests are waiting, so no replica is removed"
	case BoundJudged:
		why += "; a new revision needs one replica to show that it becomes ready"
	case BoundSource:
		why += "; a rule has no value, so no replica is removed"
	}
	return why
}

func replicas(n int) string {
	if n == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", n)
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "it changes"
	}
	return t.UTC().Format(time.TimeOnly) + " UTC"
}

// figure formats a number with at most three significant digits if it is not whole.
func figure(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return fmt.Sprintf("%.0f", v)
	}
	switch {
	case v > 0 && v < 0.01:
		return "less than 0.01"
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
