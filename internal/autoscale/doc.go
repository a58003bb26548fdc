// Package autoscale passes measurements to the deciders of package scale, and passes their decisions to reconcile. It
// is the only package that knows both. It decides nothing itself.
//
//	ingresses ──► link.Hub.Demand ──┐
//	engine ──► reconcile.Wanted ────┼──► scale.Decider ──► Touch(app) ──► reconcile calls Wanted again and applies the count
//	engine ──► Usage (cpu, memory) ─┤          │
//	external scalers ──► source ────┘          └──► events, records, Explain
//
// Reconcile registers a revision when it asks for its count. Touch tells it about a new count. A revision is therefore
// known here as long as it can have replicas, and there is no second list of revisions.
//
// A source is a goroutine that asks the external scaler of one rule. The sources that run follow the rules of the known
// revisions, and of the jobs that events start. Jobs are known in the same way: reconcile asks for their Demand.
package autoscale
