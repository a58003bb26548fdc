package upstream

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"penstock/internal/ingress/buffer"
)

// Limits bound one exchange.
type Limits struct {
	Silence time.Duration // between two bytes, in whichever direction; 0: none
	End     time.Time     // of the whole exchange; zero: none
}

// Conn is a connection that carries one exchange at a time: Begin, writes, ReadHead, Next until io.EOF. Writes may go
// on in a second goroutine while the first one reads. Abort may be called by any.
type Conn struct {
	nc        net.Conn        // what requests are written to
	tcp       net.Conn        // the same, or what is below its TLS
	raw       syscall.RawConn // of tcp; nil where that has none
	encrypted bool
	at        Address
	parked    time.Time // when it became idle

	pool    *Pool
	buffers *buffer.Pool
	in      []byte // taken from buffers for the time of an exchange
	r, w    int    // in[r:w] was received and not yet consumed
	body    body

	limits Limits
	timer  time.Time    // the read deadline that nc has
	moved  atomic.Int64 // when a byte last moved, Unix nanoseconds

	// Arguments of functions that the runtime calls; the functions are made once.
	peek    func(fd uintptr)
	step    func(fd uintptr) bool
	ended   bool
	request []byte // what is still to be written of it
	sending bool   // writing it has not begun
	sendErr error

	written atomic.Int64 // bytes that the kernel took, over the connection's life
	base    int64        // value of written when the exchange began
	heard   bool         // a byte of this exchange's response came
}

func newConn(nc net.Conn, at Address, p *Pool) *Conn {
	c := &Conn{nc: nc, tcp: nc, at: at, pool: p, buffers: &p.client.buffers}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw, c.peek, c.step = raw, c.look, c.send
		}
	}
	return c
}

// Begin starts an exchange at now.
func (c *Conn) Begin(now time.Time, limits Limits) {
	c.limits = limits
	c.base = c.written.Load()
	c.heard = false
	c.moved.Store(now.UnixNano())
	if c.in == nil {
		c.in = c.buffers.Small()
	}
	c.r, c.w = 0, 0
	c.body = body{}
	// A deadline of an earlier exchange that passes too early costs one more round of fill. Setting a deadline for each
	// exchange would cost more.
	if end := c.deadline(now.UnixNano()); !end.IsZero() && (c.timer.IsZero() || end.Before(c.timer)) {
		c.setTimer(end)
	}
}

// deadline returns when a read must give up if no byte moves after last.
func (c *Conn) deadline(last int64) time.Time {
	end := c.limits.End
	if c.limits.Silence > 0 {
		if quiet := time.Unix(0, last).Add(c.limits.Silence); end.IsZero() || quiet.Before(end) {
			end = quiet
		}
	}
	return end
}

func (c *Conn) setTimer(t time.Time) {
	c.timer = t
	// This fails only on a closed connection, and then the read fails too.
	_ = c.nc.SetReadDeadline(t)
}

// Write sends bytes of the request.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.nc.Write(p)
	if n > 0 {
		if !c.encrypted { // otherwise the meter below has counted it
			c.written.Add(int64(n))
		}
		c.Touch()
	}
	return n, err
}

// Answered records that a byte came from the replica.
func (c *Conn) Answered(now time.Time) { c.pool.Answered(now) }

// Touch records that bytes of the exchange move.
func (c *Conn) Touch() { c.moved.Store(time.Now().UnixNano()) }

// Untaken says whether the replica provably received nothing of the request of this exchange, which ended with err. It must
// be called before Close.
func (c *Conn) Untaken(err error) bool {
	return !c.heard && (c.written.Load() == c.base || errors.Is(err, io.EOF) && c.unacknowledged())
}

// Heard says whether a byte of the response came.
func (c *Conn) Heard() bool { return c.heard }

// Abort ends all reads and writes. The owner still calls Close.
func (c *Conn) Abort() { c.tcp.Close() }

// Close ends the connection. Between two exchanges it sends TLS's close_notify first.
func (c *Conn) Close() {
	if c.body.Done() {
		c.nc.Close()
	} else {
		c.tcp.Close()
	}
	c.drop()
}

func (c *Conn) drop() {
	if c.in != nil {
		c.buffers.Put(c.in)
		c.in = nil
	}
}

// fill reads once into the free end of the buffer, which must not be full.
func (c *Conn) fill() error {
	for {
		n, err := c.nc.Read(c.in[c.w:])
		if n > 0 {
			c.w += n
			c.heard = true
			now := time.Now()
			c.moved.Store(now.UnixNano())
			c.Answered(now)
			return nil
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now := time.Now()
		if end := c.limits.End; !end.IsZero() && !now.Before(end) {
			return ErrTooLong
		}
		last := c.moved.Load()
		if c.limits.Silence > 0 && now.Sub(time.Unix(0, last)) >= c.limits.Silence {
			return ErrSilent
		}
		c.setTimer(c.deadline(last))
	}
}

// more makes room and reads once. Large allows a larger buffer.
func (c *Conn) more(large bool) error {
	if c.r == c.w {
		full := c.w == len(c.in)
		c.r, c.w = 0, 0
		if large && full && len(c.in) < buffer.LargeSize {
			c.buffers.Put(c.in)
			c.in = c.buffers.Large()
		}
	}
	if c.w == len(c.in) {
		switch {
		case c.r > 0:
			c.w = copy(c.in, c.in[c.r:c.w])
			c.r = 0
		case len(c.in) < buffer.LargeSize:
			bigger := c.buffers.Large()
			c.w = copy(bigger, c.in[:c.w])
			c.buffers.Put(c.in)
			c.in = bigger
		default:
			return errTooLarge
		}
	}
	return c.fill()
}

// Next returns the next bytes of the body, which are valid until the next call. At io.EOF the trailer is complete. It flushes
// to before it waits for the network, so that nothing is held back.
func (c *Conn) Next(to http.Flusher) ([]byte, error) {
	for {
		p, n, need, err := c.body.Take(c.in[c.r:c.w])
		c.r += n
		if err != nil || len(p) > 0 {
			return p, err
		}
		if !need {
			return nil, io.EOF
		}
		to.Flush()
		if err := c.more(true); err != nil {
			return nil, c.body.cut(err)
		}
	}
}

// Forget makes the bytes that Next returned stay valid for ever. It must be called before Close.
func (c *Conn) Forget() { c.in = nil }

// Trailer returns the fields after a chunked body.
func (c *Conn) Trailer() http.Header { return c.body.Body.Trailer() }

// Reusable says whether the connection can carry another exchange; the request must have been sent completely.
func (c *Conn) Reusable() bool { return c.body.Done() && !c.body.close && c.r == c.w }

// Raw ends HTTP on the connection, after a 101. It returns the bytes received after the head, which are valid until Close.
func (c *Conn) Raw() (received []byte, nc net.Conn) {
	c.setTimer(time.Time{})
	received = c.in[c.r:c.w]
	c.r, c.w = 0, 0
	return received, c.nc
}
