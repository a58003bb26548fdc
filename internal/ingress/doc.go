// Package ingress is the data path: it leads each request to a replica of the app that its host names, holds it while
// there is none, and counts it.
//
//	listener ─► front.Server ────► route ─► room ──────────► exchange ─► upstream.Conn ─► replica
//	            (HTTP/1.1, 2, TLS)  by host  claim a place,   head, body, one goroutine,
//	                                         or wait for one  answer      a second for a body
//
// Routes are an immutable table behind an atomic pointer; Apply swaps it. A room is a revision's places and waiting
// room; it goes on from table to table, and after the revision has left the last one until its requests have ended.
package ingress
