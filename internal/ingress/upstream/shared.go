package upstream

import (
	"context"
	"net/http"
	"slices"
	"time"

	"penstock/internal/ingress/buffer"
)

// shared is a connection that carries many exchanges. All fields but cc are guarded by the pool's mu.
type shared struct {
	cc     *http.ClientConn
	at     Address
	busy   int       // streams that were opened and not closed
	parked time.Time // when the last of them was closed
	shut   bool      // closed as soon as the last one is
}

// failure is a failed dial.
type failure struct {
	when time.Time
	at   Address
	err  error
}

func (a Address) scheme() string {
	if a.TLS {
		return "https"
	}
	return "http"
}

// newStreams returns the transport of all shared connections.
func (cl *Client) newStreams() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	protocols.SetHTTP2(true) // by ALPN
	return &http.Transport{
		DialContext:            cl.dialer.DialContext,
		DialTLSContext:         cl.dialStream,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxResponseHeaderBytes: buffer.LargeSize,
	}
}

// Open returns a stream on a connection that has room for it, or on a new one; if fresh is set, always on a new one.
func (p *Pool) Open(ctx context.Context, fresh bool) (s *Stream, reused bool, err error) {
	if !fresh {
		if s := p.enter(nil); s != nil {
			return s, true, nil
		}
	}
	// One dial at a time: the others that wait for the first connection then find it open, or find its failure.
	since := time.Now()
	select {
	case p.dialling <- struct{}{}:
		defer func() { <-p.dialling }()
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	if !fresh {
		if s := p.enter(nil); s != nil {
			return s, true, nil
		}
	}
	p.mu.Lock()
	at := p.at
	p.mu.Unlock()
	if last := p.failure; last.err != nil && last.at == at && last.when.After(since) {
		return nil, false, last.err
	}
	cc, err := p.client.streams.NewClientConn(ctx, at.scheme(), at.Addr)
	if err != nil {
		if ctx.Err() == nil { // otherwise it failed for this client only
			p.failure = failure{time.Now(), at, err}
		}
		return nil, false, err
	}
	if s := p.enter(&shared{cc: cc, at: at}); s != nil {
		return s, false, nil
	}
	// The connection ended at the same moment.
	err = cc.Err()
	cc.Close()
	return nil, false, err
}

// enter reserves a stream on the given connection, which is added to the pool, or on any connection of the pool.
func (p *Pool) enter(on *shared) *Stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shared = slices.DeleteFunc(p.shared, func(c *shared) bool { return c.cc.Err() != nil && c.busy == 0 })
	if on != nil {
		if on.cc.Reserve() != nil {
			return nil
		}
		on.shut = p.closed || on.at != p.at
		p.shared = append(p.shared, on)
	} else {
		i := slices.IndexFunc(p.shared, func(c *shared) bool { return !c.shut && c.cc.Reserve() == nil })
		if i < 0 {
			return nil
		}
		on = p.shared[i]
	}
	on.busy++
	return &Stream{pool: p, on: on}
}

// leave gives back a reserved stream.
func (p *Pool) leave(on *shared) {
	p.mu.Lock()
	on.busy--
	on.parked = time.Now()
	over := on.busy == 0 && on.shut
	if over {
		p.shared = slices.DeleteFunc(p.shared, func(c *shared) bool { return c == on })
	}
	p.mu.Unlock()
	if over {
		on.cc.Close()
	}
}

// shut removes the connections for which which is true, and returns those of them that carry no exchange. It is called with
// mu held.
func (p *Pool) shut(which func(*shared) bool) (old []*shared) {
	p.shared = slices.DeleteFunc(p.shared, func(c *shared) bool {
		c.shut = c.shut || which(c)
		if c.shut && c.busy == 0 {
			old = append(old, c)
			return true
		}
		return false
	})
	return old
}

func closeShared(conns []*shared) {
	for _, c := range conns {
		c.cc.Close()
	}
}
