package ingress

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// isGRPC says whether the content is gRPC, which needs HTTP/2 from end to end. gRPC-Web does not count.
func isGRPC(h http.Header) bool {
	kind := h["Content-Type"]
	if len(kind) == 0 {
		return false
	}
	rest, ok := strings.CutPrefix(kind[0], "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// gRPC statuses that the ingress sends (grpc.github.io, "Status codes and their use in gRPC").
const (
	grpcUnknown         = 2
	grpcTooLate         = 4
	grpcDenied          = 7
	grpcUnimplemented   = 12
	grpcInternal        = 13
	grpcUnavailable     = 14
	grpcUnauthenticated = 16
)

// grpcStatus returns the gRPC status for an HTTP status (grpc.github.io, "HTTP to gRPC Status Code Mapping").
func grpcStatus(status int) int {
	switch status {
	case http.StatusBadRequest:
		return grpcInternal
	case http.StatusUnauthorized:
		return grpcUnauthenticated
	case http.StatusForbidden:
		return grpcDenied
	case http.StatusNotFound:
		return grpcUnimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return grpcUnavailable
	}
	return grpcUnknown
}

// answerGRPC ends a call with an error of the ingress: a response that has only trailers, like Envoy's local replies.
func (x *exchange) answerGRPC(status int, text string) {
	h := x.w.Header()
	h.Set("Content-Type", "application/grpc")
	code := grpcStatus(status)
	if x.tooLate() {
		code = grpcTooLate
	}
	h.Set("Grpc-Status", strconv.Itoa(code))
	h.Set("Grpc-Message", grpcMessage(text))
	x.commit(http.StatusOK)
}

// endGRPC ends a call whose response broke off with a status in the trailer; any other response can only be cut. If the
// call's own time is over, the status says so: a replica drops such a call when its client gives up.
func (x *exchange) endGRPC(text string) {
	code := grpcUnavailable
	if x.tooLate() {
		code = grpcTooLate
	}
	h := x.w.Header()
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(code))
	h.Set(http.TrailerPrefix+"Grpc-Message", grpcMessage(text))
}

// tooLate says whether the call's own timeout has passed.
func (x *exchange) tooLate() bool {
	timeout := grpcTimeout(x.r.Header.Get("Grpc-Timeout"))
	return timeout > 0 && time.Since(x.rec.Start) >= timeout
}

// grpcTimeout reads a timeout such as "100m": at most eight digits and a unit. It returns 0 if there is no valid one.
func grpcTimeout(text string) time.Duration {
	if len(text) < 2 || len(text) > 9 {
		return 0
	}
	unit := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if err != nil || unit == time.Hour && n > 1e6 { // beyond what a Duration holds
		return 0
	}
	return time.Duration(n) * unit
}

// grpcMessage encodes text as a Status-Message of gRPC: everything but printable ASCII is percent-encoded.
func grpcMessage(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			const digits = "0123456789ABCDEF"
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
