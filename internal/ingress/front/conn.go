package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"penstock/internal/ingress/buffer"
	"penstock/internal/ingress/http1"
)

const (
	// lingerFor and lingerBytes bound what is read from a client after the last response of its connection. Closing with
	// unread bytes would reset the connection, and the client might not get the response (RFC 9112 section 9.6).
	lingerFor   = 2 * time.Second
	lingerBytes = 1 << 20
	// DiscardBytes bounds how much of the rest of a request's body is read so that the connection can be kept, as in net/http.
	DiscardBytes = 256 << 10
)

// States of a connection.
const (
	idle    int32 = iota // waits for a request
	heading              // waits for the rest of a request's head
	busy                 // has a request
	shut                 // was closed while it waited
	taken                // was hijacked
)

// conn is a client's connection. Its goroutine runs serve; methods that other goroutines may call say so.
type conn struct {
	server *Server
	socket net.Conn        // what was accepted
	nc     net.Conn        // what is read and written
	raw    syscall.RawConn // of the socket; nil if it has none
	plain  bool            // nc is the socket
	state  atomic.Int32
	since  atomic.Int64 // when the client's turn began, as Unix time in nanoseconds; holds while idle or heading

	ctx    context.Context // of its requests
	cancel context.CancelCauseFunc
	blank  *http.Request // has what all requests of the connection share

	away    bool // the connection was hijacked or given to HTTP2
	watched watched

	in      []byte                       // nil while there is nothing in it
	r, w    int                          // in[r:w] was received and not yet consumed
	readErr error                        // of receive, for wait
	receive func(fd uintptr) (done bool) // nil if the runtime cannot wait without a buffer

	mu       sync.Mutex
	deadline time.Time // that nc has for reads; zero: none
	meant    bool      // the deadline is for the current reads, and not left over from an earlier wait
}

func newConn(ctx context.Context, s *Server, nc net.Conn) *conn {
	c := &conn{server: s, socket: nc, nc: nc, plain: true}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.since.Store(time.Now().UnixNano())
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
			c.receive = c.receiver()
		}
	}
	return c
}

// serve handles the connection until it ends.
func (c *conn) serve() {
	s := c.server
	defer s.drop(c)
	defer c.cancel(nil)
	_ = c.setDeadline(time.Now().Add(s.HeaderTimeout()))
	if s.TLS != nil && !c.handshake() {
		c.end()
		return
	}
	if c.passed() { // by ALPN
		return
	}
	s.watch.add(c)
	c.requests()
	s.watch.remove(c)
	c.drop()
	if !c.away {
		c.end()
	}
}

// end closes the connection, unless it was hijacked or given to HTTP2.
func (c *conn) end() {
	c.nc.Close()
	c.server.Closed()
}

// handshake starts TLS, and says whether that succeeded.
func (c *conn) handshake() bool {
	tc := tls.Server(c.nc, c.server.TLS)
	err := tc.HandshakeContext(c.ctx)
	if err == nil {
		c.nc, c.plain = tc, false
		return true
	}
	if bad, ok := errors.AsType[tls.RecordHeaderError](err); ok && bad.Conn != nil && looksLikeHTTP(bad.RecordHeader) {
		_ = c.nc.SetWriteDeadline(time.Now().Add(lingerFor))
		_, _ = io.WriteString(c.nc, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nthis port speaks https\n")
		c.linger()
	}
	c.server.Log.Debug("TLS handshake failed", "client", c.nc.RemoteAddr(), "err", err)
	return false
}

func looksLikeHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET":
		return true
	}
	return false
}

// passed gives the connection to HTTP2 if the client chose it in the handshake, and says whether it did.
func (c *conn) passed() bool {
	tc, ok := c.nc.(*tls.Conn)
	if !ok || tc.ConnectionState().NegotiatedProtocol != "h2" {
		return false
	}
	c.pass(tc)
	return true
}

// pass gives the connection to HTTP2.
func (c *conn) pass(nc net.Conn) {
	_ = c.nc.SetReadDeadline(time.Time{}) // fails only on a closed connection
	if !c.server.door.Pass(nc) {
		c.end()
	}
}

// requests serves requests one after another until the connection must end.
func (c *conn) requests() {
	s := c.server
	s.prepare(c)
	for first := true; c.await(first); first = false {
		end, lines, err := c.readHead()
		if first && err == nil && s.TLS == nil && c.speaksHTTP2() {
			if bad := c.preface(); bad == nil {
				return
			}
			err = errMalformedPreface
		}
		if err == nil {
			text := string(c.in[c.r : c.r+end])
			c.r += end
			var more bool
			if more, err = c.take(text, lines); more {
				continue
			}
		}
		c.refuse(err)
		return
	}
}

// take serves the request with a head, and says whether another may follow.
func (c *conn) take(head string, lines int) (more bool, err error) {
	t := c.server.exchanges.Get().(*exchange)
	defer func() {
		t.end()
		c.server.exchanges.Put(t)
	}()
	if err := t.begin(c, head, lines); err != nil {
		return false, err
	}
	return t.serve(), nil
}

// prepare makes what all requests of the connection share.
func (s *Server) prepare(c *conn) {
	ctx := c.ctx
	if s.Context != nil {
		ctx = s.Context(ctx, c.nc)
	}
	blank := &http.Request{RemoteAddr: c.nc.RemoteAddr().String()}
	if tc, ok := c.nc.(*tls.Conn); ok {
		state := tc.ConnectionState()
		blank.TLS = &state
	}
	c.blank = blank.WithContext(ctx)
}

// await waits for the first byte of a request. If it returns false, the connection is over.
func (c *conn) await(first bool) bool {
	if c.r == c.w {
		c.drop()
		c.state.Store(idle)
		if c.server.closing.Load() {
			return false
		}
		if !first {
			c.expectBy(c.server.IdleTimeout)
		}
		if c.wait() != nil || !c.state.CompareAndSwap(idle, busy) {
			return false
		}
		return true
	}
	c.state.Store(busy)
	return true
}

// closeIdle closes the connection if it has no request. Any goroutine may call it.
func (c *conn) closeIdle() {
	if c.state.CompareAndSwap(idle, shut) {
		c.socket.Close()
	}
}

// giveUp closes the connection if it is its client's turn. Any goroutine may call it.
func (c *conn) giveUp() {
	c.closeIdle()
	if c.state.CompareAndSwap(heading, shut) {
		c.socket.Close()
	}
}

// wait waits for bytes, and takes a buffer only when there are some.
func (c *conn) wait() error {
	if c.plain && c.receive != nil {
		c.readErr = nil
		if err := c.raw.Read(c.receive); err != nil {
			return err
		}
		return c.readErr
	}
	// TLS has its own buffer, where the rest stays for the next read.
	var one [1]byte
	if _, err := io.ReadFull(c.nc, one[:]); err != nil {
		return err
	}
	c.in = c.server.buffers.Small()
	c.in[0] = one[0]
	c.r, c.w = 0, 1
	return nil
}

// more makes room and reads once.
func (c *conn) more(large bool) error {
	switch {
	case c.in == nil:
		c.in, c.r, c.w = c.server.buffers.Small(), 0, 0
	case c.r == c.w:
		full := c.w == len(c.in)
		c.r, c.w = 0, 0
		if large && full && len(c.in) < buffer.LargeSize {
			c.grow()
		}
	case c.w == len(c.in) && c.r > 0:
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	case c.w == len(c.in):
		c.grow()
	}
	n, err := c.read(c.in[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// grow replaces the buffer with a large one, or doubles a large one for limits above 64 KiB.
func (c *conn) grow() {
	var bigger []byte
	if len(c.in) < buffer.LargeSize {
		bigger = c.server.buffers.Large()
	} else {
		bigger = make([]byte, 2*len(c.in))
	}
	c.w = copy(bigger, c.in[c.r:c.w])
	c.r = 0
	c.server.buffers.Put(c.in)
	c.in = bigger
}

// read reads from nc, and ignores deadlines that are left from an earlier wait.
func (c *conn) read(p []byte) (int, error) {
	for {
		n, err := c.nc.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !c.stale() {
			return n, err
		}
	}
}

// stale says whether the deadline that has passed was left from an earlier wait, and removes it.
func (c *conn) stale() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.meant {
		return false
	}
	c.deadline = time.Time{}
	return c.nc.SetReadDeadline(c.deadline) == nil
}

// drop gives the buffer back if there is nothing in it.
func (c *conn) drop() {
	if c.in != nil && c.r == c.w {
		c.server.buffers.Put(c.in)
		c.in, c.r, c.w = nil, 0, 0
	}
}

// setDeadline bounds current and later reads. Any goroutine may call it. It fails only on a closed connection.
func (c *conn) setDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline, c.meant = at, true
	return c.nc.SetReadDeadline(at)
}

// leaveDeadline makes reads ignore the current deadline.
func (c *conn) leaveDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.meant = false
}

// expectBy makes a read fail after d, or up to a quarter of d earlier: an exact deadline for each request would cost more
// than it is worth.
func (c *conn) expectBy(d time.Duration) {
	now := time.Now()
	c.since.Store(now.UnixNano())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.meant = true
	if left := c.deadline.Sub(now); left < d/4*3 || left > d {
		c.deadline = now.Add(d)
		_ = c.nc.SetReadDeadline(c.deadline) // fails only on a closed connection, and then the read fails too
	}
}

// errEnded means that the connection is over and no answer can be sent.
var errEnded = errors.New("the connection ended")

// readHead reads a whole head, and returns its length and its number of lines.
func (c *conn) readHead() (end, lines int, err error) {
	limited := time.Duration(0)
	for {
		// RFC 9112 section 2.2: old clients send empty lines before a request, which do no harm.
		for c.r < c.w && (c.in[c.r] == '\r' || c.in[c.r] == '\n') {
			c.r++
		}
		most := c.server.maxFields()
		if end, lines, err = http1.HeadEnd(c.in[c.r:c.w], most); errors.Is(err, http1.ErrTooManyFields) {
			return 0, 0, &refusal{http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("more than %d header fields", most)}
		}
		size := end
		if end < 0 {
			size = c.w - c.r
		}
		if size > c.server.MaxHeaderBytes {
			return 0, 0, &refusal{http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("the head is larger than %d KiB", c.server.MaxHeaderBytes>>10)}
		}
		if end >= 0 {
			if limited > 0 && !c.state.CompareAndSwap(heading, busy) {
				return 0, 0, errEnded
			}
			return end, lines, nil
		}
		if limited == 0 {
			now := time.Now()
			limited = c.server.HeaderTimeout()
			_ = c.setDeadline(now.Add(limited))
			c.since.Store(now.UnixNano())
			c.state.Store(heading)
		}
		began := c.r < c.w
		if err := c.more(false); errors.Is(err, os.ErrDeadlineExceeded) && began {
			return 0, 0, &refusal{http.StatusRequestTimeout, fmt.Sprintf("the head did not come within %v", limited)}
		} else if err != nil {
			return 0, 0, errEnded
		}
	}
}

// The preface, and its second half, with which a client starts HTTP/2 (RFC 9113 section 3.4).
const (
	prefaceHead = "PRI * HTTP/2.0\r\n\r\n"
	prefaceRest = "SM\r\n\r\n"
)

var errMalformedPreface = &refusal{http.StatusBadRequest, "HTTP/2's preface is not whole"}

func (c *conn) speaksHTTP2() bool { return bytes.HasPrefix(c.in[c.r:c.w], []byte(prefaceHead)) }

// preface gives the connection to HTTP2 once the whole preface has come.
func (c *conn) preface() error {
	const whole = len(prefaceHead) + len(prefaceRest)
	for c.w-c.r < whole {
		if err := c.more(false); err != nil {
			return err
		}
	}
	got := bytes.Clone(c.in[c.r:c.w])
	if string(got[len(prefaceHead):whole]) != prefaceRest {
		return errMalformedPreface
	}
	c.r = c.w
	c.away = true
	c.server.watch.remove(c)
	c.pass(&prefixed{Conn: c.nc, first: got})
	return nil
}

// prefixed is a connection with bytes that were read already.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// refuse answers bytes that are no valid request.
func (c *conn) refuse(err error) {
	bad, ok := errors.AsType[*refusal](err)
	if !ok {
		return
	}
	if s := c.server; s.Refused != nil {
		s.Refused(c.blank.Context(), bad.status)
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(lingerFor))
	text := fmt.Sprintf("%d %s: %s\n", bad.status, http.StatusText(bad.status), bad.text)
	_, err = fmt.Fprintf(c.nc, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nDate: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		bad.status, http.StatusText(bad.status), date(), len(text), text)
	if err == nil {
		c.linger()
	}
}

// linger closes the writing half of the connection and reads on for a while.
func (c *conn) linger() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.setDeadline(time.Now().Add(lingerFor))
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}

// call runs the handler, and says whether it returned without a panic.
func (c *conn) call(t *exchange) (whole bool) {
	defer func() {
		if whole {
			return
		}
		// http.ErrAbortHandler is how a handler ends a connection; any other panic is a bug.
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			c.server.Log.Error("a handler panicked", "client", c.blank.RemoteAddr, "err", p, "stack", string(debug.Stack()))
		}
	}()
	c.server.Handler.ServeHTTP(&t.response, &t.request)
	return true
}
