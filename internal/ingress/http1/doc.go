// Package http1 parses HTTP/1.1 (RFC 9112) for both sides of the ingress: where a head ends, what a field is, and how a body is
// framed. It works on bytes that were received already, and does no I/O.
//
//	received bytes ─► HeadEnd ─► text of the head ─► NextLine, ParseField
//	               └► Body.Take ─► bytes of the body, then its trailer
//
// Where the RFC leaves a choice, it takes the strict one, so that no two recipients can read a message differently.
package http1

import "errors"

// ErrMalformed is wrapped by everything that HTTP/1.1 does not allow.
var ErrMalformed = errors.New("not the http that was expected")
