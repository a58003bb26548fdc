package ingress

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// isGRPC says whether the content is gRPC's own form, which needs HTTP/2 from end to end. gRPC-Web is another one.
func isGRPC(h http.Header) bool {
	kind := h["Content-Type"]
	if len(kind) == 0 {
		return false
	}
	rest, ok := strings.CutPrefix(kind[0], "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// The statuses that the ingress gives calls (grpc.github.io, "Status codes and their use in gRPC").
const (
	grpcUnknown         = 2
	grpcTooLate         = 4
	grpcDenied          = 7
	grpcUnimplemented   = 12
	grpcInternal        = 13
	grpcUnavailable     = 14
	grpcUnauthenticated = 16
)

// grpcStatus is what clients make of an HTTP status (grpc.github.io, "HTTP to gRPC Status Code Mapping").
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

// answerGRPC ends a call with an error of the ingress: a response of trailers only, as Envoy's local replies are.
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

// endGRPC ends a call whose response broke off by a status behind it, where a response of anything else can only be cut.
// A replica drops a call that is too late in the same moment in which its client gives up.
func (x *exchange) endGRPC(text string) {
	code := grpcUnavailable
	if x.tooLate() {
		code = grpcTooLate
	}
	h := x.w.Header()
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(code))
	h.Set(http.TrailerPrefix+"Grpc-Message", grpcMessage(text))
}

// tooLate says whether the call's own time is over.
func (x *exchange) tooLate() bool {
	timeout := grpcTimeout(x.r.Header.Get("Grpc-Timeout"))
	return timeout > 0 && time.Since(x.rec.Start) >= timeout
}

// grpcTimeout reads "100m": at most eight digits and a unit. 0 is none, or none that can be read.
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

// grpcMessage writes text as gRPC's protocol wants a Status-Message: percent-encoded but for printable ASCII.
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
