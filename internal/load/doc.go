// Package load generates requests and measures the responses in a way that does not hide waiting times.
//
// In the open loop each request is due at a certain time, regardless of the requests before it, and its latency counts from
// then on. If a server stalls for a second, the percentiles show what its users saw. In the closed loop a fixed number of
// clients each wait for a response before their next request, as in wrk.
//
//	Arrivals ──> Run ──> one worker per request ──> HTTP/1.1 | HTTP/2 | WebSocket
//	(a schedule)  │                                   │
//	              └── limit on outstanding            v
//	                                     Record ──> records (JSON lines)
//	                                        └────> Summary (histograms) ──> text, JSON
//	                                        └────> Timeline ──> SVG
//
// Schedules, histograms, summaries and pictures are pure; memory does not grow with the length of a run.
package load
