package scale

import (
	"time"

	"penstock/internal/resource"
)

// Azure's documented numbers. Source: learn.microsoft.com/azure/container-apps/scale-app, "Scale behavior".
const (
	// SyncEvery is how often Azure computes the count from the rules, and the window of its http and tcp metrics.
	SyncEvery = 15 * time.Second
	// firstStep is the minimum for a scale-out step: a step goes to at most max(firstStep, 2 x current).
	firstStep = 4
	// Tolerance is how far a metric may be from its target before the count changes. It is the default of the
	// Kubernetes autoscaler, which Azure runs (--horizontal-pod-autoscaler-tolerance).
	Tolerance = 0.1
)

// Kind says where a rule's value comes from.
type Kind string

const (
	HTTP     Kind = "http"
	TCP      Kind = "tcp"
	CPU      Kind = "cpu"
	Memory   Kind = "memory"
	Cron     Kind = "cron"
	External Kind = "external" // a value from an external source, with a target per replica
	// Other is a type that is not evaluated here. It keeps at least one replica.
	Other Kind = "other"
)

// Metric is what an http rule counts.
type Metric string

const (
	InFlight   Metric = "inflight"   // requests on replicas or waiting for one
	Documented Metric = "documented" // requests a second over the last 15 s, as Azure documents it

	Connections Metric = "connections" // clients' open connections, idle ones too
)

// Window tells when a cron rule is active.
type Window interface {
	// Active reports whether at is inside the window.
	Active(at time.Time) bool
	// Change returns the next time after at when Active changes.
	Change(at time.Time) time.Time
}

// Rule is one scale rule.
type Rule struct {
	Name string
	Kind Kind
	// Target is the value per replica: requests, connections, or percent of cpu or memory. For cron it is the number of
	// replicas inside Window. An external source reports its target with its value.
	Target float64
	// Amount says that a cpu or memory rule is not about percent but about vCPUs or MiB.
	Amount bool
	Metric Metric // of an http rule
	Window Window // of a cron rule
	// Hours is the window of a cron rule for people, as in "0 8 * * 1-5 to 0 20 * * 1-5 Asia/Seoul".
	Hours string
	// Type is the KEDA type of a rule of kind Other.
	Type string
}

// zeroable reports whether the rule can scale to and from zero.
func (r Rule) zeroable() bool { return r.Kind != CPU && r.Kind != Memory && r.Kind != Other }

// Policy is what decides a revision's count.
type Policy struct {
	Behaviour resource.Behaviour
	Min, Max  int
	Cooldown  time.Duration // before the count goes from 1 to 0
	Polling   time.Duration // how often cron rules are checked with Azure's behaviour; external sources are polled elsewhere
	// ScaleIn is how long a smaller count must have been enough before replicas are removed.
	ScaleIn time.Duration
	Rules   []Rule
	// Unjudged is set until the revision has had a ready replica. It needs one to show that it becomes ready.
	Unjudged bool
}

// least returns the smallest count above zero.
func (p Policy) least() int { return max(1, p.Min) }

// floor returns the smallest count that the rules allow.
func (p Policy) floor() int {
	if p.Unjudged {
		return p.least()
	}
	if p.Min > 0 || len(p.Rules) == 0 {
		return p.Min
	}
	for _, r := range p.Rules {
		if r.zeroable() {
			return 0
		}
	}
	return 1
}

// Load is what the ingresses counted for a revision. Counts are since the previous sample.
type Load struct {
	Arrived   int           // requests, or connections of a TCP app
	Completed int           // requests that ended on a replica
	Served    time.Duration // total time that the completed requests spent on replicas
	// Busy is the number of requests on replicas integrated over time: 2 requests for 3 s are 6 s.
	Busy time.Duration
	// Measured is when the counts were taken, if earlier than the sample. Reports that arrive late must not look like a burst.
	Measured time.Time
	InFlight int // requests on replicas now
	Waiting  int // requests that wait for a replica now
	Open     int // clients' open connections now, if a rule counts them
}

// active reports whether there was a request since the previous sample, or is a connection.
func (l Load) active() bool {
	return l.Arrived > 0 || l.Completed > 0 || l.InFlight > 0 || l.Waiting > 0 || l.Open > 0
}

// Reading is the value of a rule that is measured elsewhere: cpu, memory, external.
type Reading struct {
	// Value is the mean over the ready replicas for cpu and memory, in the unit of the rule, and the source's total for
	// external rules.
	Value float64
	// Target is the value that an external source wants for each replica. It can change at any time.
	Target float64
	// Replicas is the number of replicas that the mean covers. The count is computed from it and not from the replicas
	// that are ready now, so that one reading orders replicas only once.
	Replicas int
	// Active is what an external source reports. It may have been true only for a time between two polls.
	Active bool
	// Note is a remark for people, if there is a value.
	Note string
	// Err says why there is no value. It is empty if there is one.
	Err string
}

// Sample is everything that is known about a revision at one time.
type Sample struct {
	At       time.Time
	Current  int // replicas that run or were ordered, without those that are leaving
	Load     Load
	Readings map[string]Reading // by the rule's name
	// Starts are the times from order to ready of the replicas that became ready since the previous sample.
	Starts []time.Duration
}

// Bound says what limits a count to something else than the rules want.
type Bound string

const (
	NoBound       Bound = ""
	BoundMin      Bound = "minReplicas"
	BoundMax      Bound = "maxReplicas"
	BoundStep     Bound = "step"     // Azure's limit of a scale-out step
	BoundScaleIn  Bound = "window"   // a larger count was needed within the scale-in window
	BoundCooldown Bound = "cooldown" // the last replica stays until the cool-down period is over
	BoundBacklog  Bound = "waiting"  // requests wait, so no replica goes
	BoundSource   Bound = "source"   // a source failed, so no replica goes
	BoundJudged   Bound = "judged"   // a new revision has one replica to be judged by
)

// Wish is what one rule wants.
type Wish struct {
	Rule   string
	Kind   Kind
	Value  float64
	Target float64
	Wanted int
	Active bool
	// Note is a remark for people: why there is no value, or what the rule cannot do.
	Note string
	// Hours is the window of a cron rule for people. Changes is when it begins or ends next; zero if never.
	Hours   string
	Changes time.Time
	// Failed is set if the rule's source gave no value.
	Failed bool
}

// Decision is the number of replicas that a revision should have, and why.
type Decision struct {
	At      time.Time
	Current int
	Wanted  int
	Rule    string // the rule that decided; empty if none did
	Desired int    // what the rules wanted before limits were applied
	Bound   Bound
	Until   time.Time // when the bound ends, if known
	Reason  string    // one sentence for people
	Wishes  []Wish
	// Next is when to decide again if nothing changes before.
	Next time.Time
}

// Recommendation is a count that was needed at a time.
type Recommendation struct {
	At time.Time
	N  int
}

// State is everything that a Decider remembers.
type State struct {
	// Recent has the recommendations within the scale-in window. One is dropped when a later one is at least as large,
	// so N decreases.
	Recent []Recommendation
	// LastActive is when something was last active.
	LastActive time.Time
	// Learned aside, the rest is for Azure's behaviour: when the count was last computed, when custom rules were last
	// polled, what has arrived since LastSync, and the rate per second that the last sync found.
	LastSync time.Time
	LastPoll time.Time
	Arrived  int
	Rate     float64
	// Wishes are those of the last decision.
	Wishes  []Wish
	Learned Learned
}

// Count is the number of replicas that a revision should have, and why.
type Count struct {
	Revision resource.ID
	Wanted   int
	Reason   string
}

// Explanation says why a revision has its number of replicas.
type Explanation struct {
	Policy         Policy
	Wanted         int
	Current, Ready int // replicas at the last decision
	// Held replicas were ordered and cannot start yet, because the machine has no room for them. HeldBy says what is missing.
	Held    int
	HeldBy  string
	Last    Decision
	Learned Learned
}
