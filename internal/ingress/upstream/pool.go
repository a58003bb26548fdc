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
	"penstock/internal/network/direct"
)

// maxIdle bounds how many idle connections to one replica are kept, and MaxRest for how long, so that connections that were
// opened for a burst are closed again.
const (
	maxIdle = 256
	MaxRest = 60 * time.Second
)

// Client has what all pools share.
type Client struct {
	dialer  net.Dialer
	buffers buffer.Pool
	tls     *tls.Config
	streams *http.Transport
}

// Address is the address of a replica, and whether it uses TLS.
type Address struct {
	Addr string // "10.88.0.5:8080"
	TLS  bool
}

// NewClient returns a client that gives up dialling after dialTimeout.
func NewClient(dialTimeout time.Duration) *Client {
	cl := &Client{dialer: net.Dialer{Timeout: dialTimeout, Control: direct.Control}, tls: newTLS()}
	cl.streams = cl.newStreams()
	return cl
}

// Pool returns a pool of connections to an address.
func (cl *Client) Pool(at Address) *Pool {
	return &Pool{client: cl, at: at, dialling: make(chan struct{}, 1), dials: new(dials)}
}

// Pool has the idle and the shared connections to one address.
type Pool struct {
	client   *Client
	heard    atomic.Int64  // when a byte last came from the replica, Unix nanoseconds; 0: never
	dialling chan struct{} // held while a shared connection is dialled
	failure  failure       // of the last such dial; guarded by dialling

	mu     sync.Mutex
	at     Address
	closed bool
	idle   []*Conn // the one used last is last
	shared []*shared
	dials  *dials
	wants  []*want // that wait for a connection or for a permit to dial, in order
}

// Reset opens the pool for an address, and closes idle connections to another one.
func (p *Pool) Reset(at Address) {
	p.mu.Lock()
	moved := p.at != at
	p.at, p.closed = at, false
	var old []*Conn
	if moved {
		old, p.idle = p.idle, nil
		p.dials = new(dials) // dials to the old address no longer count
		p.hand()
	}
	oldShared := p.shut(func(c *shared) bool { return c.at != at })
	p.mu.Unlock()
	closeAll(old)
	closeShared(oldShared)
}

// Close closes the idle connections, and each busy one when it is put back.
func (p *Pool) Close() {
	p.mu.Lock()
	old := p.idle
	p.idle, p.closed = nil, true
	oldShared := p.shut(func(*shared) bool { return true })
	p.mu.Unlock()
	closeAll(old)
	closeShared(oldShared)
}

// Get returns an idle connection that is still open and has been idle for at most rested, or dials one. While many dials are
// under way it waits for a permit to dial, or for a connection that is given back. With rested 0 it returns a new connection.
func (p *Pool) Get(ctx context.Context, now time.Time, rested time.Duration) (c *Conn, reused bool, err error) {
	var permit *dials
	for {
		if c = p.pop(now.Add(-rested)); c == nil {
			if c, permit, err = p.await(ctx, rested <= 0); c == nil {
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
	p.dialled(ctx, permit, err)
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

// heardEvery is how exact Heard is. With every byte, all connections on all processors would write to the same cache line.
const heardEvery = 100 * time.Millisecond

// Answered records that a byte came from the replica.
func (p *Pool) Answered(now time.Time) {
	if at := now.UnixNano(); at-p.heard.Load() > int64(heardEvery) {
		p.heard.Store(at)
	}
}

// Heard returns when a byte last came from the replica, give or take 100 ms; zero if none has. Bytes sent to the replica do
// not count: the kernel accepts them even if the process hangs.
func (p *Pool) Heard() time.Time {
	if at := p.heard.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// pop takes the most recently used idle connection, if it became idle after since.
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

// Put gives a Reusable connection back.
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

// Sweep closes connections that have been idle for longer than MaxRest.
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
