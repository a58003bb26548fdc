package front

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/ingress/buffer"
	"penstock/internal/ingress/http1"
)

// response is an http.ResponseWriter that supports all of http.ResponseController. Bytes are sent when a buffer is full, at a
// flush, and at the end.
type response struct {
	exchange *exchange
	header   http.Header

	mu   sync.Mutex // held to send something before the head, and to set head
	head bool       // the head was sent, or is in out

	framing framing
	left    int64  // of the content-length
	out     []byte // not sent yet; nil when there is nothing
	err     error  // of sending
}

type framing int

const (
	noBody framing = iota
	byLength
	inChunks
	toTheEnd
)

// Header returns the fields of the response.
func (w *response) Header() http.Header { return w.header }

// WriteHeader begins the response, or sends a 1xx response.
func (w *response) WriteHeader(status int) {
	switch {
	case w.head:
		w.exchange.conn.server.Log.Error("a handler began a response twice", "status", status)
		return
	case status >= 100 && status < 200:
		w.interim(status)
		return
	}
	w.mu.Lock()
	w.head = true
	w.exchange.close = w.exchange.close || w.exchange.body.expected // nobody can know whether the body will come
	w.mu.Unlock()
	w.out = w.appendHead(w.exchange.conn.server.buffers.Small()[:0], status)
}

// interim sends a 1xx response, which HTTP/1.0 does not have.
func (w *response) interim(status int) {
	if w.exchange.request.ProtoMinor == 0 {
		return
	}
	b := w.appendFields(appendStatus(nil, 1, status))
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.before(append(b, "\r\n"...)) // Write returns the error
}

// proceed tells the client to send the body. It may be called while the handler writes the response.
func (w *response) proceed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exchange.body.expected = false
	return w.before(textContinue)
}

var textContinue = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// before sends something unless the head was sent; after that only the handler uses err. It is called with mu held.
func (w *response) before(p []byte) error {
	if w.head {
		return nil
	}
	if w.err == nil {
		_, w.err = w.exchange.conn.nc.Write(p)
	}
	return w.err
}

// appendStatus appends "HTTP/1.1 200 OK".
func appendStatus(b []byte, minor, status int) []byte {
	b = append(b, "HTTP/1."...)
	b = append(b, '0'+byte(min(minor, 1)), ' ')
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	return append(append(b, http.StatusText(status)...), "\r\n"...)
}

// appendHead decides how the body is framed and whether the connection is kept (RFC 9112 sections 6.3 and 9.3).
func (w *response) appendHead(b []byte, status int) []byte {
	t, h := w.exchange, w.header
	b = w.appendFields(appendStatus(b, t.request.ProtoMinor, status))
	if h["Date"] == nil {
		b = append(append(append(b, "Date: "...), date()...), "\r\n"...)
	}
	length, hasLength := int64(0), false
	if given := h["Content-Length"]; len(given) == 1 {
		n, err := http1.ParseLength(given[0])
		length, hasLength = n, err == nil
	}
	bodiless := t.request.Method == http.MethodHead || status == http.StatusNotModified
	switch {
	case status == http.StatusNoContent:
	case hasLength:
		if !bodiless {
			w.framing, w.left = byLength, length
		}
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), length, 10), "\r\n"...)
	case bodiless:
	case t.request.ProtoMinor > 0:
		w.framing = inChunks
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	default:
		w.framing, t.close = toTheEnd, true
	}
	for _, word := range h["Connection"] {
		t.close = t.close || strings.EqualFold(word, "close")
	}
	t.close = t.close || t.conn.server.closing.Load()
	switch {
	case t.close:
		b = append(b, "Connection: close\r\n"...)
	case t.request.ProtoMinor == 0:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendFields appends the fields that do not concern the connection.
func (w *response) appendFields(b []byte) []byte {
	for name, values := range w.header {
		switch name {
		case "Connection", "Content-Length", "Transfer-Encoding", "Trailer":
			continue
		}
		if !strings.HasPrefix(name, http.TrailerPrefix) {
			b = appendField(b, name, values)
		}
	}
	return b
}

// appendField appends nothing if the name is invalid, and replaces characters that would end a line with spaces.
func appendField(b []byte, name string, values []string) []byte {
	if len(values) == 0 || !http1.Token(name) {
		return b
	}
	for _, value := range values {
		b = append(append(append(b, name...), ": "...), value...)
		for i := len(b) - len(value); i < len(b); i++ {
			if c := b[i]; c == '\r' || c == '\n' || c == 0 {
				b[i] = ' '
			}
		}
		b = append(b, "\r\n"...)
	}
	return b
}

// Write sends a part of the body, or buffers it.
func (w *response) Write(p []byte) (int, error) {
	if !w.head {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case len(p) == 0:
		return 0, nil
	case w.framing == noBody:
		return 0, http.ErrBodyNotAllowed
	case w.framing == byLength && int64(len(p)) > w.left:
		return 0, http.ErrContentLength
	}
	var behind []byte
	if w.framing == inChunks {
		w.room(sizeSpace)
		w.out = append(strconv.AppendInt(w.out, int64(len(p)), 16), "\r\n"...)
		behind = crlf
	}
	w.left -= int64(len(p))
	if w.small(len(p) + len(behind)) {
		w.room(0)
		w.out = append(append(w.out, p...), behind...)
		return len(p), nil
	}
	return w.send(p, behind)
}

var crlf = []byte("\r\n")

// sizeSpace is the longest chunk size.
const sizeSpace = 18

// room makes room for n more bytes that must not be sent by themselves.
func (w *response) room(n int) {
	if w.out == nil {
		w.out = w.exchange.conn.server.buffers.Small()[:0]
	} else if len(w.out)+n > cap(w.out) {
		_ = w.FlushError() // Write returns the error
		w.out = w.exchange.conn.server.buffers.Small()[:0]
	}
}

// small says whether n more bytes fit in the buffer.
func (w *response) small(n int) bool { return len(w.out)+n <= max(cap(w.out), buffer.SmallSize) }

// send sends the buffered bytes, then p and what must follow it.
func (w *response) send(p, behind []byte) (int, error) {
	c := w.exchange.conn
	var n int64
	kept := len(w.out)
	switch {
	case w.err != nil:
	case !c.plain && kept+len(p)+len(behind) <= buffer.LargeSize: // one piece is fewer records
		whole := append(c.server.buffers.Large()[:0], w.out...)
		whole = append(append(whole, p...), behind...)
		var m int
		m, w.err = c.nc.Write(whole)
		n = int64(m)
		c.server.buffers.Put(whole)
	default:
		parts := net.Buffers{w.out, p, behind}
		n, w.err = parts.WriteTo(c.nc)
	}
	w.release()
	return int(min(max(n-int64(kept), 0), int64(len(p)))), w.err
}

// Flush sends the buffered bytes.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError sends the buffered bytes.
func (w *response) FlushError() error {
	if !w.head {
		w.WriteHeader(http.StatusOK)
	}
	if len(w.out) > 0 && w.err == nil {
		_, w.err = w.exchange.conn.nc.Write(w.out)
	}
	w.release()
	return w.err
}

// release gives the buffer back.
func (w *response) release() {
	if w.out != nil {
		w.exchange.conn.server.buffers.Put(w.out)
		w.out = nil
	}
}

// finish ends the response, and says whether all of it was sent.
func (w *response) finish() bool {
	if !w.head {
		if w.header["Content-Length"] == nil {
			w.header["Content-Length"] = []string{"0"}
		}
		w.WriteHeader(http.StatusOK)
	}
	if w.framing == inChunks && w.err == nil {
		w.room(sizeSpace)
		w.out = append(w.out, "0\r\n"...)
		for name, values := range w.header {
			if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok && !http1.ForbiddenInTrailer(name) {
				w.out = appendField(w.out, name, values)
			}
		}
		w.out = append(w.out, "\r\n"...)
	}
	return w.FlushError() == nil && (w.framing != byLength || w.left == 0)
}

// SetReadDeadline bounds reads of the request's body.
func (w *response) SetReadDeadline(at time.Time) error { return w.exchange.conn.setDeadline(at) }

// SetWriteDeadline bounds writes of the response.
func (w *response) SetWriteDeadline(at time.Time) error {
	return w.exchange.conn.nc.SetWriteDeadline(at)
}

// Hijack gives the connection to the caller, with the bytes that were received already.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := w.exchange.conn
	if w.head || w.err != nil || c.away {
		return nil, nil, errors.New("the response has begun")
	}
	if err := c.nc.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	c.away = true
	c.state.Store(taken)
	c.server.watch.remove(c)
	c.server.wake()
	c.server.Closed()
	first := bytes.Clone(c.in[c.r:c.w])
	c.r = c.w
	r := bufio.NewReaderSize(&prefixed{Conn: c.nc, first: first}, max(len(first), 4<<10))
	if _, err := r.Peek(len(first)); err != nil {
		return nil, nil, err
	}
	return c.nc, bufio.NewReadWriter(r, bufio.NewWriter(c.nc)), nil
}

// today is the Date field of one second.
type today struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[today]

// date returns the current time in HTTP's format.
func date() string {
	now := time.Now()
	last := lastDate.Load()
	if last == nil || last.second != now.Unix() {
		last = &today{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(last)
	}
	return last.text
}
