package remote

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

var (
	// ErrUnauthorized means that the registry refuses access to the image.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrNotFound means that the registry has no such image.
	ErrNotFound = errors.New("not found")
)

// Error is an error response of a registry.
type Error struct {
	Host   string
	Status int
	Words  string // the registry's own message, as CODE: message
	// Wait is the pause that the registry requests before the next try, or 0.
	Wait time.Duration
}

func (e *Error) Error() string { return fmt.Sprintf("%s answers %d %s", e.Host, e.Status, e.Words) }

func (e *Error) Is(target error) bool {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrUnauthorized
	case http.StatusNotFound:
		return target == ErrNotFound
	}
	return false
}

// Again reports whether the same request may succeed later, because the registry is busy or the connection failed.
func Again(err error) bool {
	if refused, ok := errors.AsType[*Error](err); ok {
		return refused.Status >= http.StatusInternalServerError || refused.Status == http.StatusTooManyRequests || refused.Status == http.StatusRequestTimeout
	}
	if _, final := errors.AsType[*refusal](err); final {
		return false
	}
	if _, final := errors.AsType[*tls.CertificateVerificationError](err); final {
		return false
	}
	_, broken := errors.AsType[*broken](err)
	return broken
}

// broken is an error of the connection to a registry.
type broken struct{ err error }

func (b *broken) Error() string { return b.err.Error() }
func (b *broken) Unwrap() error { return b.err }

// refusal is an error that a retry does not fix, because this client does not support something.
type refusal struct{ words string }

func (r *refusal) Error() string { return r.words }

func refuse(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// maxWords is how much of an error's body is read, and maxShown how much of it is shown.
const (
	maxWords = 8 << 10
	maxShown = 300
)

// answerError converts an error response to an Error.
func answerError(host string, resp *http.Response) error {
	e := &Error{Host: host, Status: resp.StatusCode}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.Wait = time.Duration(s) * time.Second
	}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxWords)) // if this fails, only the message is lost
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(raw, &body) == nil && len(body.Errors) > 0 {
		e.Words = printable(strings.TrimSuffix(body.Errors[0].Code+": "+body.Errors[0].Message, ": "))
	}
	if e.Words == "" {
		// A response to HEAD or from a proxy has no message. Use the specification's code for the status.
		e.Words = map[int]string{
			http.StatusUnauthorized: "UNAUTHORIZED: authentication required", http.StatusForbidden: "DENIED: requested access to the resource is denied",
			http.StatusNotFound: "MANIFEST_UNKNOWN: manifest unknown", http.StatusTooManyRequests: "TOOMANYREQUESTS: too many requests",
		}[e.Status]
	}
	if e.Words == "" {
		e.Words = http.StatusText(e.Status)
	}
	return e
}

// printable makes an untrusted message safe: it cannot fill the screen or control the terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "..."
	}
	return s
}
