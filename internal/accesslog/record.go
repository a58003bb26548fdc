package accesslog

import (
	"net/http"
	"strings"
	"time"
)

// Record is what is known about a request when it has ended.
type Record struct {
	Start      time.Time
	Client     string // address without port
	Forwarded  string // X-Forwarded-For as the replica received it
	Connection uint64 // the client's connection, counted by its ingress
	Scheme     string
	Proto      string // "HTTP/1.1"; ProtoTCP for a connection of a TCP app, which has no status, method and path
	Host       string // as in the routing table; "redis:6379" for a connection
	Method     string
	Path       string // with the query
	UserAgent  string
	RequestID  string // empty if the request was not passed to a replica

	App      string // resource ID
	Revision string // resource ID
	Replica  string // the last replica that was tried
	Upstream string // address of that replica
	Attempts int    // connections on which the request was tried

	Status   int   // 0: the client left before there was one
	BytesIn  int64 // size of the request body
	BytesOut int64 // size of the response body
	Flags    Flags

	Held      time.Duration // time spent waiting for a replica
	FirstByte time.Duration // from Start to the head of a replica's response; 0: there was none
	Duration  time.Duration

	Ingress string // name of the process that answered; set by Read
}

// ProtoTCP is the Proto of a connection that is not HTTP.
const ProtoTCP = "TCP"

// End returns when the request ended.
func (r *Record) End() time.Time { return r.Start.Add(r.Duration) }

// Flags say what went wrong, with Envoy's letters (envoyproxy.io, access logging, RESPONSE_FLAGS). Azure's
// ContainerAppHTTPLogs has them too.
type Flags uint16

const (
	FlagNoRoute               Flags = 1 << iota // NR: no app has the host
	FlagNoHealthyUpstream                       // UH: no replica, and none came in time
	FlagOverflow                                // UO: the queue or all replicas are full
	FlagConnectFailure                          // UF: no connection to a replica
	FlagUpstreamTermination                     // UC: the replica ended the connection
	FlagUpstreamTimeout                         // UT: the request took too long
	FlagStreamIdle                              // SI: no byte was transferred for too long
	FlagUpstreamProtocol                        // UPE: the replica does not speak HTTP/1.1
	FlagDownstreamTermination                   // DC: the client left
	FlagDownstreamProtocol                      // DPE: the client does not speak HTTP
	FlagLocalReset                              // LR: cut off at the end of a drain
)

var flagNames = [...]string{"NR", "UH", "UO", "UF", "UC", "UT", "SI", "UPE", "DC", "DPE", "LR"}

// String returns the flags as in "UF,UH". It is empty if none is set.
func (f Flags) String() string {
	if f == 0 {
		return ""
	}
	var names []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Details says where the response came from, in Envoy's words (envoyproxy.io, response code details).
func (r *Record) Details() string {
	reset := func(why string) string {
		if r.FirstByte > 0 {
			return "upstream_reset_after_response_started{" + why + "}"
		}
		return "upstream_reset_before_response_started{" + why + "}"
	}
	has := func(f Flags) bool { return r.Flags&f != 0 }
	switch {
	case has(FlagDownstreamTermination):
		return "downstream_remote_disconnect"
	case has(FlagDownstreamProtocol):
		return "http1.codec_error"
	case has(FlagNoRoute):
		return "route_not_found"
	case has(FlagNoHealthyUpstream):
		return "no_healthy_upstream"
	case has(FlagOverflow):
		return reset("overflow")
	case has(FlagUpstreamTimeout):
		return "response_timeout"
	case has(FlagStreamIdle):
		return "stream_idle_timeout"
	case has(FlagLocalReset):
		return "local_reset"
	case has(FlagUpstreamProtocol):
		return reset("protocol_error")
	case r.Status > 0 && r.FirstByte > 0 && !has(FlagUpstreamTermination):
		return "via_upstream" // also after a failed first try
	case r.Status == http.StatusLoopDetected && r.Flags == 0 && r.Attempts == 0:
		return "loop_detected" // a word of ours
	case r.Proto == ProtoTCP && r.Flags == 0 && r.Attempts == 0:
		return "rbac_access_denied"
	case r.Proto == ProtoTCP && r.Flags == 0:
		return "via_upstream"
	case has(FlagUpstreamTermination):
		return reset("connection_termination")
	case has(FlagConnectFailure):
		return reset("remote_connection_failure")
	}
	return "direct_response"
}
