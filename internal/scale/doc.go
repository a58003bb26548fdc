// Package scale decides how many replicas a revision should have. It is pure: time and measurements are arguments, and
// everything that it remembers is in State, a value that can be saved and loaded. The server and the simulator run the
// same code.
//
//	Sample (measurements) ──► Decider.Decide ──► Decision (count, deciding rule, what limits the count, when to decide again)
//	                                │
//	                              State: recent recommendations, last activity, learned service and start times
//
// There are two behaviours. Azure uses the numbers that Azure documents: one decision every 15 s, a limited scale-out
// step, and a scale-in window of 300 s. Fast has the same rules and targets but decides at every change. It scales out
// at once to what the arrivals need, and scales in after a shorter window.
//
// In both, the rule that wants the most replicas wins, a rule whose source fails keeps the count as it is, and the
// count goes from 1 to 0 only after a cool-down period without activity.
package scale
