package load

import (
	"time"
)

// Record is the result of one request. Times are nanoseconds since the start of the run; times of steps that did not happen
// are omitted.
type Record struct {
	N          int64         `json:"n"`
	Scheduled  time.Duration `json:"scheduledNs"`           // when it was due; in the closed loop, when its client started it
	Sent       time.Duration `json:"sentNs,omitempty"`      // when work on it began, before its connection was opened
	Connected  time.Duration `json:"connectedNs,omitempty"` // only when it opened a connection
	FirstByte  time.Duration `json:"firstByteNs,omitempty"`
	FirstEvent time.Duration `json:"firstEventNs,omitempty"`
	LastByte   time.Duration `json:"lastByteNs,omitempty"`   // or when it failed
	LongestGap time.Duration `json:"longestGapNs,omitempty"` // between two events; of a WebSocket, the slowest echo
	Events     int64         `json:"events,omitempty"`
	Status     int           `json:"status,omitempty"`
	Bytes      int64         `json:"bytes"`            // of the answer's body
	BytesOut   int64         `json:"bytesOut"`         // of the request's body
	Reused     bool          `json:"reused,omitempty"` // went over a connection that had served others
	Held       bool          `json:"held,omitempty"`   // waited for others to end, because of the bound on outstanding requests
	Left       bool          `json:"left,omitempty"`   // the client left an answer that had not ended, as told
	Error      Class         `json:"error,omitempty"`
	Detail     string        `json:"detail,omitempty"`
}

// Class is the kind of a request's failure.
type Class string

const (
	Refused  Class = "refused"  // connection refused
	Connect  Class = "connect"  // no connection for another reason
	TLS      Class = "tls"      // handshake or certificate
	Reset    Class = "reset"    // connection or stream reset before the answer's first byte
	Closed   Class = "closed"   // connection closed before the answer's first byte
	Cut      Class = "cut"      // the response began but did not end
	Timeout  Class = "timeout"  // the response did not end in time
	Status   Class = "status"   // response with status 400 or above
	Protocol Class = "protocol" // the response is invalid
	Content  Class = "content"  // a WebSocket's echo, or an event's time stamp, is not what it should be
	Body     Class = "body"     // the body's template failed
	Unsent   Class = "unsent"   // still held by the bound on outstanding requests when its time was up
	Stopped  Class = "stopped"  // the run was stopped while it was under way
)
