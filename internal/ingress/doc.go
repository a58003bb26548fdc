// Package ingress is the data path. It routes each request to a replica of the app that its host names, holds the request
// while no replica has a place for it, and counts it.
//
//	listener ─► front.Server ────► route ─► guardedRoom ───► exchange ─► upstream.Conn ─► replica
//	            (HTTP/1.1, 2, TLS)  by host  take a place,    head, body, one goroutine,
//	                                         or wait for one  answer      a second for a body
//
// Connections of TCP apps (Doors) are routed by port. They take a place in the same rooms and are joined with a connection
// to the replica; nothing else is done with them.
//
// Routes are an immutable table behind an atomic pointer, which Apply replaces. A room has the replicas of one revision and
// the requests that wait for them. It outlives the table that made it: after its revision has left the last table, it stays
// until its requests have ended. Package room decides who gets a place; this package adds the lock, connections and timers.
package ingress
