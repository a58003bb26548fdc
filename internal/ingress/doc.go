// Package ingress is the data path: it leads each request to a replica of the app that its host names, holds it while
// there is none, and counts it.
//
//	listener ─► front.Server ────► route ─► room ──────────► exchange ─► upstream.Conn ─► replica
//	            (HTTP/1.1, 2, TLS)  by host  claim a place,   head, body, one goroutine,
//	                                         or wait for one  answer      a second for a body
//
// Connections of TCP apps (Doors) are led by their port, get a place in the same rooms, and are joined with one to a
// replica; that is all that is done with them.
//
// Routes are an immutable table behind an atomic pointer; Apply swaps it. A room is a revision's places and waiting
// room; it goes on from table to table, and after the revision has left the last one until its requests have ended.
package ingress
