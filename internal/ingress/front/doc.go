// Package front is the ingress's side of HTTP/1.1 towards clients: it reads requests off connections, gives them to an
// http.Handler, and writes what that answers. Connections that speak HTTP/2 go to a server of net/http.
//
//	Accept ─► conn ─┬─ h2 by ALPN, or HTTP/2's preface ─► net/http
//	                └─ await ─► head ─► turn: request, response ─► Handler
//	                     ▲                                            │
//	                     └── keep-alive: what is left of the body ────┘
//
// A connection is one goroutine. While it waits for a request it has no buffer, and while a handler waits it has none
// either, so that idle connections and quiet streams cost next to nothing. That a client has left while its request is
// answered is told by the kernel (watch), not found out by a second goroutine that reads.
//
// It is less than net/http's server where a proxy needs less: what handlers write gets no type guessed, no length
// counted, and no trailer but those named with http.TrailerPrefix; a request and its header are the handler's only until
// it returns. It is stricter where two readers could differ (RFC 9112 section 11.2): folded fields, a length beside a
// coding, and codings in HTTP/1.0 are refused.
package front
