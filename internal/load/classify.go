package load

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// phase is how far a request got.
type phase int

const (
	dialing phase = iota
	handshaking
	waiting   // for the first byte of the response
	answering // the response has begun
)

var (
	errTooLarge = errors.New("header is larger than 1 MiB")
	errStopped  = errors.New("run was stopped")
)

// streamError has the fields of the standard library's unexported HTTP/2 stream error, which errors.As converts to this type.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "stream error" }

// classify returns the class of a request's failure.
func classify(err error, at phase) Class {
	timeout, isNet := errors.AsType[net.Error](err)
	_, isStream := errors.AsType[streamError](err)
	_, isAlert := errors.AsType[tls.AlertError](err)
	switch {
	case errors.Is(err, errStopped), errors.Is(err, context.Canceled), errors.Is(err, net.ErrClosed):
		return Stopped
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return Timeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case at == dialing:
		return Connect
	case at == handshaking, isAlert:
		return TLS
	case errors.Is(err, errTooLarge):
		return Protocol
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), isStream:
		if at == answering {
			return Cut
		}
		return Reset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "server sent GOAWAY"):
		if at == answering {
			return Cut
		}
		return Closed
	}
	return Protocol
}
