package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/ingress/buffer"
)

// maxIdle bounds the idle connections that are kept to one replica, and MaxRest how long: what a burst has opened is
// given back.
const (
	maxIdle = 256
	MaxRest = 60 * time.Second
)

// Client is what all pools have in common.
type Client struct {
	dialer  net.Dialer
	buffers buffer.Pool
	tls     *tls.Config
	streams *http.Transport
}

// Address is where a replica is reached, and whether it speaks TLS there.
type Address struct {
	Addr string // "10.88.0.5:8080"
	TLS  bool
}

// NewClient returns a client that gives up a dial after that time.
func NewClient(dialTimeout time.Duration) *Client {
	cl := &Client{dialer: net.Dialer{Timeout: dialTimeout}, tls: newTLS()}
	cl.streams = cl.newStreams()
	return cl
}

// Pool returns a pool of connections to that address.
func (cl *Client) Pool(at Address) *Pool {
	return &Pool{client: cl, at: at, dialling: make(chan struct{}, 1), dials: new(dials)}
}

// Pool keeps idle connections to one address, and those that are shared.
type Pool struct {
	client   *Client
	heard    atomic.Int64  // when a byte last came from the replica, Unix nanoseconds; 0: never
	dialling chan struct{} // held by who dials a connection that is shared
	failure  failure       // the last one of those; guarded by dialling

	mu     sync.Mutex
	at     Address
	closed bool
	idle   []*Conn // the one used last is last
	shared []*shared
	dials  *dials
	wants  []*want // that wait for a connection or for a dial, in their order
}

// Reset opens the pool for that address; idle connections to another one are closed.
func (p *Pool) Reset(at Address) {
	p.mu.Lock()
	moved := p.at != at
	p.at, p.closed = at, false
	var old []*Conn
	if moved {
		old, p.idle = p.idle, nil
		p.dials = new(dials) // nobody waits for those to where nothing may be any more
		p.hand()
	}
	oldShared := p.shut(func(c *shared) bool { return c.at != at })
	p.mu.Unlock()
	closeAll(old)
	closeShared(oldShared)
}

// Close ends the idle connections, and each busy one when it is put back.
func (p *Pool) Close() {
	p.mu.Lock()
	old := p.idle
	p.idle, p.closed = nil, true
	oldShared := p.shut(func(*shared) bool { return true })
	p.mu.Unlock()
	closeAll(old)
	closeShared(oldShared)
}

// Get returns an idle connection that is still open and has not rested longer than that by now, or dials one. While many
// are dialled already it waits for its turn, or for one that is given back before. With no rest allowed it is a new one.
func (p *Pool) Get(ctx context.Context, now time.Time, rested time.Duration) (c *Conn, reused bool, err error) {
	var turn *dials
	for {
		if c = p.pop(now.Add(-rested)); c == nil {
			if c, turn, err = p.await(ctx, rested <= 0); c == nil {
				break
			}
		}
		if !c.stale() {
			return c, true, nil
		}
		c.Close()
	}
	if err != nil {
		return nil, false, err
	}
	c, err = p.open(ctx)
	p.dialled(ctx, turn, err)
	return c, false, err
}

// open dials a connection.
func (p *Pool) open(ctx context.Context) (*Conn, error) {
	p.mu.Lock()
	at := p.at
	p.mu.Unlock()
	nc, err := p.client.Dial(ctx, at.Addr)
	if err != nil {
		return nil, err
	}
	c := newConn(nc, at, p)
	if at.TLS {
		if err := c.secure(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// heardEvery is how exactly it is kept when a byte last came: all connections would write to one place else, for each
// byte, from all processors.
const heardEvery = 100 * time.Millisecond

// Answered notes that a byte came from the replica.
func (p *Pool) Answered(now time.Time) {
	if at := now.UnixNano(); at-p.heard.Load() > int64(heardEvery) {
		p.heard.Store(at)
	}
}

// Heard is when a byte last came from the replica, give or take 100 ms; the zero value when none has. What is sent to it
// does not count: the kernel takes that for a process that hangs.
func (p *Pool) Heard() time.Time {
	if at := p.heard.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// pop takes the connection that was used last, if that was after since.
func (p *Pool) pop(since time.Time) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 || !p.idle[n-1].parked.After(since) {
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return c
}

// Put takes back a Reusable connection at now.
func (p *Pool) Put(c *Conn, now time.Time) {
	c.drop()
	c.parked = now
	p.mu.Lock()
	keep := !p.closed && c.at == p.at
	if keep && p.pass(c) {
		p.mu.Unlock()
		return
	}
	if keep = keep && len(p.idle) < maxIdle; keep {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !keep {
		c.Close()
	}
}

// Sweep closes the connections that rested too long by now.
func (p *Pool) Sweep(now time.Time) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].parked) > MaxRest {
		n++
	}
	old := p.idle[:n:n]
	p.idle = append([]*Conn(nil), p.idle[n:]...)
	oldShared := p.shut(func(c *shared) bool { return c.busy == 0 && now.Sub(c.parked) > MaxRest })
	p.mu.Unlock()
	closeAll(old)
	closeShared(oldShared)
}

func closeAll(conns []*Conn) {
	for _, c := range conns {
		c.Close()
	}
}
