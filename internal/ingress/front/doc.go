// Package front is the ingress's HTTP/1.1 server: it reads clients' requests, calls an http.Handler, and writes the responses.
// Connections that speak HTTP/2 are passed to net/http's server.
//
//	Accept ─► conn ─┬─ h2 by ALPN, or HTTP/2's preface ─► net/http
//	                └─ await ─► head ─► exchange: request, response ─► Handler
//	                     ▲                                            │
//	                     └── keep-alive: what is left of the body ────┘
//
// A connection is one goroutine. It has no buffer while it waits for a request or while a handler waits, so idle connections
// and quiet streams cost almost nothing. The kernel (watch) tells when a client leaves while its request is being served; no
// second goroutine reads for that.
//
// The server does less than net/http's where a proxy needs less: it does not guess a content type or count a length for
// handlers, and sends only trailers that are named with http.TrailerPrefix; a request and its header belong to the handler
// only until it returns. It is stricter where two parsers could differ (RFC 9112 section 11.2): folded fields, a length
// together with a coding, and codings in HTTP/1.0 are refused.
package front
