package ingress

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/internal/access"
	"penstock/internal/ingress/http1"
	"penstock/internal/ingress/upstream"
)

// maxSmall bounds a body that is read whole and sent in one piece with the head. Such a body costs no goroutine.
const maxSmall = 32 << 10

// readBody reads a small body, and gives a large one to a goroutine of its own.
func (x *exchange) readBody() error {
	switch {
	case x.r.ContentLength == 0 || x.r.Body == nil:
	case x.read || x.body != nil:
	case x.r.ContentLength > 0 && x.r.ContentLength <= maxSmall && !expectsContinue(x.r):
		return x.readSmall()
	default:
		x.guard() // for the 100 that the client gets when the body is first read
		x.body = x.newUpload()
	}
	return nil
}

// send writes the request, or the beginning of it: a large body follows.
func (x *exchange) send(conn *upstream.Conn) error {
	if err := x.readBody(); err != nil {
		return err
	}
	x.out = x.appendHead(x.out[:0])
	if x.body != nil {
		if _, err := conn.Write(x.out); err != nil {
			return x.maybeAnswered(conn, err)
		}
		x.body.use(conn)
		return nil
	}
	x.out = append(x.out, x.small...)
	if err := conn.Send(x.out); err != nil {
		return x.maybeAnswered(conn, err)
	}
	return nil
}

// maybeAnswered drops the error of a write of which the replica got a part: what it has to say about that part, before
// it stopped reading, is still to be read.
func (x *exchange) maybeAnswered(conn *upstream.Conn, err error) error {
	if conn.Untaken(err) {
		return err
	}
	return nil
}

// readSmall reads the body. The client is given the idle timeout for it.
func (x *exchange) readSmall() error {
	if idle := x.ticket.settings.IdleTimeout; idle > 0 && !x.hasCome() {
		// Without deadlines (a server that has none) the client's connection is its own limit.
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(idle))
	}
	x.small = slices.Grow(x.small[:0], int(x.r.ContentLength))[:x.r.ContentLength]
	n, err := io.ReadFull(x.r.Body, x.small)
	x.rec.BytesIn = int64(n)
	if err != nil {
		return errBody{err}
	}
	x.read = true
	return nil
}

// hasCome says whether the whole body is known to have been received.
func (x *exchange) hasCome() bool {
	b, ok := x.r.Body.(interface{ Buffered() int })
	return ok && int64(b.Buffered()) >= x.r.ContentLength
}

// errBody wraps what kept the request's body from being read.
type errBody struct{ error }

// badBody ends an exchange whose request did not come whole.
func (x *exchange) badBody(err error) verdict {
	_, network := errors.AsType[net.Error](err)
	switch {
	case x.committed, x.r.Context().Err() != nil, errors.Is(err, io.ErrUnexpectedEOF):
		return x.left(err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.answer(http.StatusRequestTimeout, access.FlagStreamIdle, textSilent)
	case network:
		return x.left(err)
	default:
		x.answer(http.StatusBadRequest, access.FlagDownstreamProtocol, "the request's body cannot be read: "+err.Error())
	}
	return over
}

// requested is what a request asks for: path and query.
func requested(r *http.Request) string {
	if t := r.RequestURI; t != "" && (t[0] == '/' || t == "*") {
		return t
	}
	return r.URL.RequestURI() // absolute form
}

// forwarded is the way that a request has come, the last address being that of its connection.
func forwarded(r *http.Request, c *client) string {
	given := r.Header["X-Forwarded-For"]
	if len(given) == 0 {
		return c.address
	}
	way := make([]string, 0, len(given)+1)
	for _, value := range given {
		if value != "" {
			way = append(way, value)
		}
	}
	return strings.Join(append(way, c.address), ", ")
}

// fitsHTTP1 says whether a request of HTTP/2 can stand in a line of HTTP/1.1 and is as long as it says, which net/http
// does not look at (RFC 9113 sections 8.1.1 and 8.3.1). In HTTP/1.1 it does.
func fitsHTTP1(r *http.Request) bool {
	if !http1.Token(r.Method) {
		return false
	}
	target := r.RequestURI
	if target == "" || target[0] != '/' && target != "*" && r.Method != http.MethodConnect {
		return false
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return false
		}
	}
	for _, length := range r.Header["Content-Length"] {
		if n, err := strconv.ParseInt(length, 10, 64); err != nil || n != r.ContentLength || length[0] == '+' {
			return false
		}
	}
	return true
}

// appendHead appends the request's head as the replica gets it.
func (x *exchange) appendHead(b []byte) []byte {
	r := x.r
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, x.rec.Path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)

	named := r.Header["Connection"]
	for name, values := range r.Header {
		if ownField(name) || len(named) > 0 && listed(named, name) {
			continue
		}
		for _, value := range values {
			b = appendField(b, name, value)
		}
	}
	switch {
	case x.body != nil && x.body.chunked:
		b = appendField(b, "Transfer-Encoding", "chunked")
		if len(x.body.named) > 0 {
			b = append(b, "Trailer: "...)
			for _, name := range x.body.named {
				b = append(append(b, name...), ", "...)
			}
			b = append(b[:len(b)-2], "\r\n"...)
		}
	case r.ContentLength > 0, r.Method == http.MethodPost, r.Method == http.MethodPut, r.Method == http.MethodPatch:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.ContentLength, 10)
		b = append(b, "\r\n"...)
	}
	if x.body != nil && x.body.expects {
		b = appendField(b, "Expect", "100-continue")
	}
	if listed(r.Header["Te"], "trailers") {
		b = append(b, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	if x.websocket {
		b = append(b, "Upgrade: websocket\r\nConnection: Upgrade\r\n"...)
	}
	b = appendField(b, "X-Forwarded-For", x.rec.Forwarded)
	b = appendField(b, "X-Forwarded-Proto", x.scheme)
	b = appendField(b, "X-Forwarded-Host", r.Host)
	b = appendField(b, "X-Request-Id", x.requestID())
	if x.certificate != "" {
		b = appendField(b, "X-Forwarded-Client-Cert", x.certificate)
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// ownField says whether a field, by its canonical name, is this connection's or set by the ingress, and so not passed
// on from the client as it is.
func ownField(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings", "Content-Length", "Expect", "Host",
		"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Client-Cert", "X-Request-Id":
		return true
	}
	return false
}

// listed says whether one of the comma-separated lists has the word, without regard to case.
func listed(lists []string, word string) bool {
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if item, _, _ = strings.Cut(item, ";"); strings.EqualFold(strings.Trim(item, " \t"), word) {
				return true
			}
		}
	}
	return false
}

// requestID keeps the client's, or makes one: a version 4 UUID. It is a name, not a secret.
func (x *exchange) requestID() string {
	if x.rec.RequestID != "" {
		return x.rec.RequestID
	}
	if given := x.r.Header.Get("X-Request-Id"); given != "" {
		x.rec.RequestID = given
		return given
	}
	var u [16]byte
	binary.NativeEndian.PutUint64(u[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(u[8:], rand.Uint64())
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], u[0:4])
	hex.Encode(s[9:13], u[4:6])
	hex.Encode(s[14:18], u[6:8])
	hex.Encode(s[19:23], u[8:10])
	hex.Encode(s[24:36], u[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	x.rec.RequestID = string(s[:])
	return x.rec.RequestID
}

func expectsContinue(r *http.Request) bool {
	return r.ProtoAtLeast(1, 1) && strings.EqualFold(r.Header.Get("Expect"), "100-continue")
}

// wantsWebSocket says whether r asks for one (RFC 6455 section 4.1). No other upgrade is passed on: a replica that
// took one to HTTP/2 would be beyond the reach of routes and limits.
func wantsWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0 &&
		r.Header["Upgrade"] != nil && listed(r.Header["Upgrade"], "websocket") && listed(r.Header["Connection"], "upgrade")
}
