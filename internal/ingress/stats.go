package ingress

import "sync/atomic"

// Stats are counts since the ingress was made.
type Stats struct {
	Requests  int64 // that are over
	Held      int64 // that had to wait for a place
	Refused   int64 // answered by the ingress itself, with an error
	Retried   int64 // tries beyond the first
	Dialled   int64 // connections opened to replicas
	Reused    int64 // requests on a connection that was open already
	Tunnelled int64 // upgraded connections
	Shed      int64 // connections that were closed or not admitted to save descriptors
}

// counters is one of several sets, so that many cores do not write to the same cache line.
type counters struct {
	requests, held, refused, retried, dialled, reused, tunnelled atomic.Int64

	_ [72]byte // 128 bytes in all: neighbouring lines are fetched in pairs
}

const counterSets = 16

// count returns the set that a client's requests are counted in.
func (in *Ingress) count(c *client) *counters { return &in.stats[c.number%counterSets] }

// Stats reads the counters, one after another.
func (in *Ingress) Stats() (s Stats) {
	s.Shed = in.crowd.shed.Load()
	for i := range in.stats {
		c := &in.stats[i]
		s.Requests += c.requests.Load()
		s.Held += c.held.Load()
		s.Refused += c.refused.Load()
		s.Retried += c.retried.Load()
		s.Dialled += c.dialled.Load()
		s.Reused += c.reused.Load()
		s.Tunnelled += c.tunnelled.Load()
	}
	return s
}
