// Package load sends requests by a plan and measures how they were answered, so that waiting is never hidden.
//
// In the open loop each request has a time at which it is due, whatever became of those before it, and its latency counts
// from there: a server that stalls for a second shows in the percentiles as it showed to its users. In the closed loop a
// fixed number of clients wait for each answer before they ask again, as wrk does.
//
//	Arrivals ──> Run ──> one worker a request ──> HTTP/1.1 | HTTP/2 | WebSocket
//	(a schedule)  │                                   │
//	              └── bound on outstanding            v
//	                                     Record ──> records (JSON lines)
//	                                        └────> Summary (histograms) ──> text, JSON
//	                                        └────> Timeline ──> SVG
//
// Schedules, histograms, summaries and pictures are pure; memory does not grow with the length of a run.
package load
