package load

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// Request describes what is sent and what is measured about the response.
type Request struct {
	URL            string // http, https, ws or wss
	Method         string // GET, or POST when there is a body
	Header         http.Header
	Body           []byte
	Template       string            // a text/template instead of Body; see Fields
	Major          int               // version of HTTP: 1 or 2
	NewConnections bool              // a connection of its own for each request
	Events         bool              // the answer is an event stream: time its events
	Stamped        bool              // events' data begins with the Unix time in nanoseconds at which they were written
	Messages       int               // echoes asked of each WebSocket; 1 when 0
	LeaveAfter     time.Duration     // end an answer that goes on for longer, without fault
	Timeout        time.Duration     // from when a request is sent, and from when it is due until it is
	Roots          *x509.CertPool    // nil: the system's
	Resolve        map[string]string // "host:port" to the address to connect to
}

// Fields are the fields that a body template can use. It can also use {{words n}}, a text of n words.
type Fields struct {
	N                              int64 // the request's number, from 0
	ContextTokens, GeneratedTokens int   // of the trace's row
}

const (
	maxBody  = 1 << 30
	maxWords = 1 << 20
)

// ErrRequest is wrapped by New's errors about an invalid Request.
var ErrRequest = errors.New("request")

// validate fills in defaults and returns an error for a request that cannot be sent.
func (r *Request) validate() (*url.URL, error) {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrRequest, fmt.Errorf(format, args...))
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, fault("%w", err)
	}
	switch u.Scheme {
	case "http", "https", "ws", "wss":
	default:
		return nil, fault("URL: want http, https, ws or wss, got %q", r.URL)
	}
	if u.Hostname() == "" {
		return nil, fault("URL: want a host, got %q", r.URL)
	}
	if u.Port() != "" {
		if p, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || p == 0 {
			return nil, fault("URL: want a port from 1 to 65535, got %q", u.Port())
		}
	}
	if u.User != nil {
		return nil, fault("URL: a user in it is not sent; want a header Authorization")
	}
	webSocket := strings.HasPrefix(u.Scheme, "ws")
	hasBody := r.Body != nil || r.Template != ""
	switch {
	case r.Major != 1 && r.Major != 2:
		return nil, fault("HTTP version: want 1 or 2, got %d", r.Major)
	case r.Body != nil && r.Template != "":
		return nil, fault("body: want a fixed one or a template, got both")
	case len(r.Body) > maxBody:
		return nil, fault("body: want up to %d bytes, got %d", maxBody, len(r.Body))
	case r.Timeout <= 0:
		return nil, fault("timeout: want more than 0, got %s", r.Timeout)
	case r.LeaveAfter < 0:
		return nil, fault("leave after: want 0 or more, got %s", r.LeaveAfter)
	case r.Messages < 0:
		return nil, fault("messages: want 0 or more, got %d", r.Messages)
	case r.Messages > 0 && !webSocket:
		return nil, fault("messages: want a ws or wss URL, got %s", u.Scheme)
	case r.Stamped && !r.Events:
		return nil, fault("stamped: only events are; want events too")
	case webSocket && (r.Major != 1 || r.Events || r.LeaveAfter != 0 || r.Method != ""):
		return nil, fault("a WebSocket is opened with GET over HTTP/1.1 and echoes messages: want no method, version, events or leaving")
	case r.NewConnections && r.Major == 2:
		return nil, fault("new connections: want HTTP/1.1; the requests of HTTP/2 share theirs")
	}
	if r.Method == "" {
		r.Method = http.MethodGet
		if hasBody && !webSocket {
			r.Method = http.MethodPost
		}
	}
	if !isToken(r.Method) || r.Method == http.MethodConnect {
		return nil, fault("method: want one such as GET, got %q", r.Method)
	}
	if hasBody && r.Method == http.MethodHead {
		return nil, fault("body: HEAD has none")
	}
	for name, values := range r.Header {
		switch http.CanonicalHeaderKey(name) {
		case "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Trailer", "Expect":
			return nil, fault("header %s: is set by the generator itself", name)
		}
		if !isToken(name) {
			return nil, fault("header: want a name such as Accept, got %q", name)
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") {
				return nil, fault("header %s: want one line, got %q", name, v)
			}
		}
	}
	return u, nil
}

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func (r *Request) tls(host string) *tls.Config {
	c := &tls.Config{RootCAs: r.Roots, ServerName: host, MinVersion: tls.VersionTLS12}
	if r.Major == 1 {
		c.NextProtos = []string{"http/1.1"}
	}
	return c
}

// bodies creates the body of each request.
type bodies struct {
	fixed    []byte
	template *template.Template
}

func newBodies(r *Request) (*bodies, error) {
	if r.Template == "" {
		return &bodies{fixed: r.Body}, nil
	}
	t, err := template.New("body").Option("missingkey=error").Funcs(template.FuncMap{"words": words}).Parse(r.Template)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := t.Execute(io.Discard, Fields{ContextTokens: 1, GeneratedTokens: 1}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return &bodies{template: t}, nil
}

// of is the body of a request, in buf when it is made for it. nil when requests have none.
func (b *bodies) of(n int64, a Arrival, buf *bytes.Buffer) ([]byte, error) {
	if b.template == nil {
		return b.fixed, nil
	}
	buf.Reset()
	if err := b.template.Execute(buf, Fields{N: n, ContextTokens: a.ContextTokens, GeneratedTokens: a.GeneratedTokens}); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func words(n int) (string, error) {
	if n < 0 || n > maxWords {
		return "", fmt.Errorf("want 0 to %d words, got %d", maxWords, n)
	}
	return strings.TrimSuffix(strings.Repeat("word ", n), " "), nil
}
