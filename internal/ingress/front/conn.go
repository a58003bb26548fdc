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
	// lingerFor and lingerBytes bound what is read of a client after the last response of its connection. Closing with
	// bytes unread would reset the connection, and the client might never get to read the response (RFC 9112 section 9.6).
	lingerFor   = 2 * time.Second
	lingerBytes = 1 << 20
	// DiscardBytes bounds the rest of a request's body that is read so that the connection can go on, as net/http does.
	DiscardBytes = 256 << 10
)

// States of a connection.
const (
	idle  int32 = iota // waits for a request
	busy               // has begun to receive one
	shut               // was closed while idle
	taken              // was hijacked
)

// conn is a client's connection. Its goroutine is in serve; what others may call says so.
type conn struct {
	server *Server
	socket net.Conn        // what was accepted
	nc     net.Conn        // what is read and written
	raw    syscall.RawConn // of the socket; nil where it has none
	plain  bool            // nc is the socket
	state  atomic.Int32

	ctx    context.Context // of its requests
	cancel context.CancelCauseFunc
	blank  *http.Request // has what all requests of the connection have

	away    bool // the connection is somebody else's
	watched watched

	in      []byte                       // while there is something in it, or about to be
	r, w    int                          // in[r:w] was received and not yet consumed
	readErr error                        // what receive leaves for wait
	receive func(fd uintptr) (done bool) // nil where the runtime cannot wait without a buffer

	mu       sync.Mutex
	deadline time.Time // that nc has for reads; zero: none
	meant    bool      // for the reads that go on now, and not left over from an earlier wait
}

func newConn(ctx context.Context, s *Server, nc net.Conn) *conn {
	c := &conn{server: s, socket: nc, nc: nc, plain: true}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
			c.receive = c.receiver()
		}
	}
	return c
}

// serve is the life of the connection.
func (c *conn) serve() {
	s := c.server
	defer s.drop(c)
	defer c.cancel(nil)
	_ = c.setDeadline(time.Now().Add(s.HeaderTimeout))
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

// end closes a connection that is still the server's.
func (c *conn) end() {
	c.nc.Close()
	c.server.Closed()
}

// handshake says whether there is TLS now.
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

// passed says whether the connection was given to HTTP2, as the client wanted in the handshake.
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
	_ = c.nc.SetReadDeadline(time.Time{}) // fails where the connection is gone
	if !c.server.door.pass(nc) {
		c.end()
	}
}

// requests serves one after another until the connection is to end.
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

// take serves the request of a head, and says whether another may follow.
func (c *conn) take(head string, lines int) (more bool, err error) {
	t := c.server.turns.Get().(*turn)
	defer func() {
		t.end()
		c.server.turns.Put(t)
	}()
	if err := t.begin(c, head, lines); err != nil {
		return false, err
	}
	return t.serve(), nil
}

// prepare makes what all requests of the connection have.
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

// await says whether the first byte of a request has come; else the connection is over.
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

// closeIdle ends the connection if it has no request. It may be called by any.
func (c *conn) closeIdle() {
	if c.state.CompareAndSwap(idle, shut) {
		c.socket.Close()
	}
}

// wait receives something into a buffer that it takes when there is something.
func (c *conn) wait() error {
	if c.plain && c.receive != nil {
		c.readErr = nil
		if err := c.raw.Read(c.receive); err != nil {
			return err
		}
		return c.readErr
	}
	// TLS has a buffer of its own, where the rest stays for the read after this one.
	var one [1]byte
	if _, err := io.ReadFull(c.nc, one[:]); err != nil {
		return err
	}
	c.in = c.server.buffers.Small()
	c.in[0] = one[0]
	c.r, c.w = 0, 1
	return nil
}

// more receives once, and makes room for it.
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

// grow makes the buffer a large one, or twice as large as that, as limits above 64 KiB need.
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

// read is nc's, without deadlines of the server's own that are left from an earlier wait.
func (c *conn) read(p []byte) (int, error) {
	for {
		n, err := c.nc.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !c.stale() {
			return n, err
		}
	}
}

// stale says whether the deadline that has passed was of no meaning, and takes it away.
func (c *conn) stale() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.meant {
		return false
	}
	c.deadline = time.Time{}
	return c.nc.SetReadDeadline(c.deadline) == nil
}

// drop gives the buffer back when there is nothing in it.
func (c *conn) drop() {
	if c.in != nil && c.r == c.w {
		c.server.buffers.Put(c.in)
		c.in, c.r, c.w = nil, 0, 0
	}
}

// setDeadline bounds the reads that go on or come next. It may be called by any. It fails on a closed connection only.
func (c *conn) setDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline, c.meant = at, true
	return c.nc.SetReadDeadline(at)
}

// leaveDeadline has reads take no notice of the deadline that there is.
func (c *conn) leaveDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.meant = false
}

// expectBy has a read fail after d, or up to a quarter of it earlier: setting a deadline for each request costs more than
// such a limit is worth.
func (c *conn) expectBy(d time.Duration) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.meant = true
	if left := c.deadline.Sub(now); left < d/4*3 || left > d {
		c.deadline = now.Add(d)
		_ = c.nc.SetReadDeadline(c.deadline) // it fails on a closed connection only, and the read says that better
	}
}

// errEnded means that the connection is over, and that there is nobody to tell.
var errEnded = errors.New("the connection ended")

// readHead receives until a whole head is there, and returns how long it is and how many lines it has.
func (c *conn) readHead() (end, lines int, err error) {
	limited := false
	for {
		// RFC 9112 section 2.2: empty lines before a request are a mistake of old clients that does no harm.
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
			return end, lines, nil
		}
		if !limited {
			_ = c.setDeadline(time.Now().Add(c.server.HeaderTimeout))
			limited = true
		}
		began := c.r < c.w
		if err := c.more(false); errors.Is(err, os.ErrDeadlineExceeded) && began {
			return 0, 0, &refusal{http.StatusRequestTimeout, fmt.Sprintf("the head did not come within %v", c.server.HeaderTimeout)}
		} else if err != nil {
			return 0, 0, errEnded
		}
	}
}

// preface and its second half, by which a client says that it speaks HTTP/2 (RFC 9113 section 3.4).
const (
	prefaceHead = "PRI * HTTP/2.0\r\n\r\n"
	prefaceRest = "SM\r\n\r\n"
)

var errMalformedPreface = &refusal{http.StatusBadRequest, "HTTP/2's preface is not whole"}

func (c *conn) speaksHTTP2() bool { return bytes.HasPrefix(c.in[c.r:c.w], []byte(prefaceHead)) }

// preface passes the connection on if the whole preface has come.
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

// prefixed is a connection of which something was read already.
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

// refuse answers what is no request that can be handled.
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

// linger ends the writing half of the connection, and reads on for a while.
func (c *conn) linger() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.setDeadline(time.Now().Add(lingerFor))
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}

// call runs the handler, and says whether it came to its end.
func (c *conn) call(t *turn) (whole bool) {
	defer func() {
		if whole {
			return
		}
		// The handler has its own way to end a connection; anything else is a fault.
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			c.server.Log.Error("a handler panicked", "client", c.blank.RemoteAddr, "err", p, "stack", string(debug.Stack()))
		}
	}()
	c.server.Handler.ServeHTTP(&t.response, &t.request)
	return true
}
