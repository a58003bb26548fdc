// Package http1 is the grammar of HTTP/1.1 (RFC 9112) that both sides of the ingress read by: where a head ends, what a
// field is, and how a body is framed. It reads bytes that are there and does no I/O.
//
//	received bytes ─► HeadEnd ─► text of the head ─► NextLine, ParseField
//	               └► Body.Take ─► bytes of the body, then its trailer
//
// Where the RFC leaves a choice, it takes the one that no two recipients can read differently.
package http1

import "errors"

// ErrMalformed is wrapped by everything that HTTP/1.1 does not allow.
var ErrMalformed = errors.New("not the http that was expected")
