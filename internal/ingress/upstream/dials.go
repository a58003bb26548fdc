package upstream

import (
	"context"
	"slices"
)

// maxDials bounds the connections that are being opened to a replica at the same time. When a thousand held requests get
// their places at once, most are served sooner over a connection that another request has used: dialling is the most
// expensive part of a short request, and servers with a short queue for new connections (100 in Python's asyncio) would make
// the rest wait a second for the kernel's second try.
const maxDials = 32

// want is a Get that waits.
type want struct {
	fresh   bool         // needs a new connection
	outcome chan outcome // takes one without blocking
}

// dials counts the connections that are being opened to one address. It is guarded by the pool's mu.
type dials struct{ n int }

// outcome is what a want gets: a connection, a permit to dial, or the failure of a dial.
type outcome struct {
	conn   *Conn
	permit *dials
	err    error
}

// await returns a connection that was given back, or a permit to dial; then the caller must call dialled after the dial.
func (p *Pool) await(ctx context.Context, fresh bool) (*Conn, *dials, error) {
	p.mu.Lock()
	if permit := p.dials; permit.n < maxDials {
		permit.n++
		p.mu.Unlock()
		return nil, permit, nil
	}
	w := &want{fresh, make(chan outcome, 1)}
	p.wants = append(p.wants, w)
	p.mu.Unlock()
	select {
	case r := <-w.outcome:
		return r.conn, r.permit, r.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	waits := slices.Index(p.wants, w)
	if waits >= 0 {
		p.wants = slices.Delete(p.wants, waits, waits+1)
	}
	p.mu.Unlock()
	if waits < 0 { // it got its outcome at the same moment
		switch r := <-w.outcome; {
		case r.conn != nil:
			p.Put(r.conn, r.conn.parked)
		case r.permit != nil:
			p.dialled(ctx, r.permit, nil)
		}
	}
	return nil, nil, context.Cause(ctx)
}

// dialled ends a dial. All who wait fail with it, as their dials would too. They do not if the dial failed because its client
// left, or was to an earlier address of the replica.
func (p *Pool) dialled(ctx context.Context, permit *dials, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if permit.n--; permit != p.dials {
		return
	}
	if err != nil && ctx.Err() == nil {
		for _, w := range p.wants {
			w.outcome <- outcome{err: err}
		}
		p.wants = nil
		return
	}
	p.hand()
}

// hand gives permits to those who wait, in order. It is called with mu held.
func (p *Pool) hand() {
	for len(p.wants) > 0 && p.dials.n < maxDials {
		p.dials.n++
		p.answer(0, outcome{permit: p.dials})
	}
}

// pass gives c to the first who waits and does not need a new connection, and says whether there is one. It is called with
// mu held.
func (p *Pool) pass(c *Conn) bool {
	i := slices.IndexFunc(p.wants, func(w *want) bool { return !w.fresh })
	if i < 0 {
		return false
	}
	p.answer(i, outcome{conn: c})
	return true
}

// answer ends the wait of the i-th want. It is called with mu held.
func (p *Pool) answer(i int, r outcome) {
	p.wants[i].outcome <- r
	p.wants = slices.Delete(p.wants, i, i+1)
}
