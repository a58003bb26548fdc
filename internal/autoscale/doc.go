// Package autoscale passes measurements to the deciders of package scale, and passes their decisions to reconcile. It
// is the only package that knows both. It decides nothing itself.
//
//	ingresses ──► link.Hub.Demand ──┐
//	engine ──► reconcile.Wanted ────┼──► scale.Decider ──► Touch(app) ──► reconcile calls Wanted again and applies the count
//	engine ──► Usage (cpu, memory) ─┘          │
//	                                           └──► events, records, Explain
//
// Reconcile registers a revision when it asks for its count. Touch tells it about a new count. A revision is therefore
// known here as long as it can have replicas, and there is no second list of revisions.
package autoscale
