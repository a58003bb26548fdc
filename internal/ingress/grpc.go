package ingress

import (
	"net/http"
	"strconv"
	"strings"
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

// grpcStatus is what clients make of an HTTP status (grpc.github.io, "HTTP to gRPC Status Code Mapping").
func grpcStatus(status int) int {
	const (
		unknown         = 2
		denied          = 7
		unimplemented   = 12
		internal        = 13
		unavailable     = 14
		unauthenticated = 16
	)
	switch status {
	case http.StatusBadRequest:
		return internal
	case http.StatusUnauthorized:
		return unauthenticated
	case http.StatusForbidden:
		return denied
	case http.StatusNotFound:
		return unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return unavailable
	}
	return unknown
}

// answerGRPC ends a call with an error of the ingress: a response of trailers only, as Envoy's local replies are.
func (x *exchange) answerGRPC(status int, text string) {
	h := x.w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", strconv.Itoa(grpcStatus(status)))
	h.Set("Grpc-Message", grpcMessage(text))
	x.commit(http.StatusOK)
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
