// Package upstream is the ingress's side of HTTP towards a replica: pooled connections that the goroutine of a request
// writes and reads by itself, with framing that admits no second reading.
//
//	Pool ── Get ──► Conn ── Write head, body ──► replica
//	  ▲              │ ◄─── ReadHead, Next ─────
//	  └──── Put ─────┘      (or Close, when the stream is not at a clean end)
//
// A connection has no goroutine of its own. While it is idle it has no buffer either.
//
// A replica may speak TLS: a Conn has its goroutine write and read records then, and still knows of the socket below what
// it must, whether it has ended and what the other kernel has confirmed.
//
// For HTTP/2 the pool has connections that are shared, of net/http:
//
//	Pool ── Open ──► Stream ── RoundTrip, Next ──► replica
//	  ▲               │
//	  └──── Close ────┘
package upstream

import (
	"errors"

	"penstock/internal/ingress/http1"
)

// Errors that say why an exchange ended early. Those of the network come as they are.
var (
	// ErrProtocol is wrapped by everything that a replica sent and that HTTP/1.1 (RFC 9112), or HTTP/2 (RFC 9113) on a
	// Stream, does not allow.
	ErrProtocol = http1.ErrMalformed
	// ErrSilent means that no byte moved in either direction for Limits.Silence.
	ErrSilent = errors.New("silent for too long")
	// ErrTooLong means that the exchange was not over at Limits.End.
	ErrTooLong = errors.New("took too long")
	// ErrTruncated means that the connection ended inside a response.
	ErrTruncated = errors.New("response cut short")
)
