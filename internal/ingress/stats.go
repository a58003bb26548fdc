package ingress

import "sync/atomic"

// Stats are counts since the ingress was made.
type Stats struct {
	Requests  int64 // that are over
	Held      int64 // that had to wait for a place
	Refused   int64 // answered by the ingress in place of a replica, with an error
	Retried   int64 // tries beyond the first
	Dialled   int64 // connections opened to replicas
	Reused    int64 // requests on a connection that was open
	Tunnelled int64 // upgraded connections
}

type counters struct {
	requests, held, refused, retried, dialled, reused, tunnelled atomic.Int64
}

// Stats reads the counters, one after another.
func (in *Ingress) Stats() Stats {
	c := &in.stats
	return Stats{
		Requests: c.requests.Load(), Held: c.held.Load(), Refused: c.refused.Load(), Retried: c.retried.Load(),
		Dialled: c.dialled.Load(), Reused: c.reused.Load(), Tunnelled: c.tunnelled.Load(),
	}
}
