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

	"penstock/internal/accesslog"
	"penstock/internal/ingress/http1"
	"penstock/internal/ingress/upstream"
)

// maxSmall is the size up to which a body is read whole and sent together with the head, without a second goroutine.
const maxSmall = 32 << 10

// hasSmall says whether the request has a small body. One that waits for a 100 counts as large.
func (x *exchange) hasSmall() bool {
	return x.r.ContentLength > 0 && x.r.ContentLength <= maxSmall && x.r.Body != nil && !expectsContinue(x.r)
}

// startUpload starts a goroutine for a large body; a small one was read before the request took a place.
func (x *exchange) startUpload() {
	if x.r.ContentLength != 0 && x.r.Body != nil && !x.read && x.body == nil {
		x.guard() // the client gets a 100 when the body is first read
		x.body = x.newUpload()
	}
}

// send writes the request; of one with a large body only the head, as the upload sends the rest.
func (x *exchange) send(conn *upstream.Conn) error {
	x.startUpload()
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

// maybeAnswered drops the error of a write if the replica received a part: it may have answered that part before it stopped
// reading, and the answer has yet to be read.
func (x *exchange) maybeAnswered(conn *upstream.Conn, err error) error {
	if conn.Untaken(err) {
		return err
	}
	return nil
}

// readSmall reads a small body. It is called before the request takes a place, which a slow client would hold.
func (x *exchange) readSmall() error {
	if !x.hasCome() {
		// If the server has no deadlines, only the client's connection bounds the read.
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(x.in.cfg.BodyTimeout))
	}
	x.small = slices.Grow(x.small[:0], int(x.r.ContentLength))[:x.r.ContentLength]
	n, err := io.ReadFull(x.r.Body, x.small)
	x.rec.BytesIn = int64(n)
	if err != nil {
		return err
	}
	x.read = true
	return nil
}

// hasCome says whether the whole body has certainly been received.
func (x *exchange) hasCome() bool {
	b, ok := x.r.Body.(interface{ Buffered() int })
	return ok && int64(b.Buffered()) >= x.r.ContentLength
}

// badBody ends an exchange whose request body could not be read completely.
func (x *exchange) badBody(err error) verdict {
	_, network := errors.AsType[net.Error](err)
	switch {
	case x.committed, x.r.Context().Err() != nil, errors.Is(err, io.ErrUnexpectedEOF):
		return x.left(err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.answer(http.StatusRequestTimeout, accesslog.FlagStreamIdle, textSilent)
	case network:
		return x.left(err)
	default:
		x.answer(http.StatusBadRequest, accesslog.FlagDownstreamProtocol, "the request's body cannot be read: "+err.Error())
	}
	return over
}

// requested returns the path and query of a request.
func requested(r *http.Request) string {
	if t := r.RequestURI; t != "" && (t[0] == '/' || t == "*") {
		return t
	}
	return r.URL.RequestURI() // absolute form
}

// forwarded returns the X-Forwarded-For of a request: what it came with, and the address of its connection at the end.
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

// fitsHTTP1 says whether an HTTP/2 request can be written as HTTP/1.1 and its content-length agrees with its length. For
// HTTP/2, net/http does not check that (RFC 9113 sections 8.1.1 and 8.3.1).
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

// appendHead appends the head of the request that is sent to the replica.
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
		if x.own(name) || len(named) > 0 && listed(named, name) {
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
	b = appendField(b, hopsField, x.hops)
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

// own is ownField for this request. The response must fit behind comments that were sent without a content encoding.
func (x *exchange) own(name string) bool {
	return ownField(name) || x.events && name == "Accept-Encoding"
}

// ownField says whether a field, by its canonical name, concerns only this connection or is set by the ingress. Such a
// field is not passed on as the client sent it. CGI and WSGI read "_" in a name as "-" (RFC 3875, 4.1.18), so a replica
// would take X_Forwarded_For for what the ingress says.
func ownField(name string) bool {
	if strings.IndexByte(name, '_') >= 0 {
		name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	}
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings", "Content-Length", "Expect", "Host",
		"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Client-Cert", "X-Request-Id",
		hopsField:
		return true
	}
	return false
}

// listed says whether one of the comma-separated lists has the word, ignoring case.
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

// requestID returns the client's ID, or makes one: a version 4 UUID. It need not be secret.
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

// wantsWebSocket says whether r asks for a WebSocket (RFC 6455 section 4.1). No other upgrade is passed on: after one to
// HTTP/2, requests would bypass routes and limits.
func wantsWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0 &&
		r.Header["Upgrade"] != nil && listed(r.Header["Upgrade"], "websocket") && listed(r.Header["Connection"], "upgrade")
}
