package ingress

import (
	"strings"
	"sync/atomic"
	"time"
)

// Record is what is known of a request when it is over.
type Record struct {
	Start     time.Time
	Client    string // address without port
	Scheme    string
	Proto     string // "HTTP/1.1"
	Host      string // as routes are keyed
	Method    string
	Path      string
	RequestID string // "" when it got no further than the ingress

	App      string // resource ID
	Revision string
	Replica  string // the last one that was tried
	Attempts int    // connections on which it was tried

	Status   int   // 0: the client went before there was one
	BytesIn  int64 // of the request's body
	BytesOut int64 // of the response's body
	Flags    Flags

	Held      time.Duration // waiting for a place
	FirstByte time.Duration // from Start to the response's head
	Duration  time.Duration
}

// Flags say what went wrong, in Envoy's letters (envoyproxy.io, access logging, RESPONSE_FLAGS), which Azure's
// ContainerAppHTTPLogs has too.
type Flags uint16

const (
	FlagNoRoute               Flags = 1 << iota // NR: no app has the host
	FlagNoHealthyUpstream                       // UH: no replica, and none came in time
	FlagOverflow                                // UO: the waiting room or all places are full
	FlagConnectFailure                          // UF: no connection to a replica
	FlagUpstreamTermination                     // UC: the replica ended the connection
	FlagUpstreamTimeout                         // UT: the request took too long
	FlagStreamIdle                              // SI: no byte moved for too long
	FlagUpstreamProtocol                        // UPE: the replica does not speak HTTP/1.1
	FlagDownstreamTermination                   // DC: the client went
	FlagDownstreamProtocol                      // DPE: the client does not speak HTTP
	FlagLocalReset                              // LR: cut by the end of a drain
)

var flagNames = [...]string{"NR", "UH", "UO", "UF", "UC", "UT", "SI", "UPE", "DC", "DPE", "LR"}

// String is empty without a flag, and else like "UF,UH".
func (f Flags) String() string {
	var names []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

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
