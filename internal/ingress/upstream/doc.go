// Package upstream is the ingress's HTTP client for replicas: pooled connections that a request's own goroutine writes and
// reads, with strict framing: what two parsers could read differently is refused.
//
//	Pool ── Get ──► Conn ── Write head, body ──► replica
//	  ▲              │ ◄─── ReadHead, Next ─────
//	  └──── Put ─────┘      (or Close, if the exchange did not end cleanly)
//
// A connection has no goroutine of its own, and no buffer while it is idle.
//
// A replica may use TLS. A Conn then writes and reads TLS records, but still asks the socket below whether the connection has
// ended and what the other kernel has acknowledged.
//
// For HTTP/2 the pool has shared connections, which are net/http's:
//
//	Pool ── Open ──► Stream ── RoundTrip, Next ──► replica
//	  ▲               │
//	  └──── Close ────┘
package upstream

import (
	"errors"

	"penstock/internal/ingress/http1"
)

// Errors that say why an exchange ended early. Errors of the network are returned unchanged.
var (
	// ErrProtocol is wrapped by errors about responses that HTTP/1.1 (RFC 9112), or HTTP/2 (RFC 9113) on a Stream, does not
	// allow.
	ErrProtocol = http1.ErrMalformed
	// ErrSilent means that no byte moved in either direction for Limits.Silence.
	ErrSilent = errors.New("silent for too long")
	// ErrTooLong means that the exchange was not over at Limits.End.
	ErrTooLong = errors.New("took too long")
	// ErrTruncated means that the connection ended inside a response.
	ErrTruncated = errors.New("response cut short")
)
