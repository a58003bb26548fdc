package upstream

import (
	"context"
	"slices"
)

// maxDials bounds the connections that are opened to a replica at a time. When a thousand requests that were held get their
// places in one moment, most of them are better served by a connection that another has used: dialling is the dearest part
// of a short request, and servers whose queue for new connections is short (100 in Python's asyncio) would let the rest wait
// for the kernel's second try after a second.
const maxDials = 32

// want is a Get that waits.
type want struct {
	fresh   bool         // nothing but a dial will do
	outcome chan outcome // takes one without blocking
}

// dials counts those that are under way to one address. It is guarded by the pool's mu.
type dials struct{ n int }

// outcome of a want: a connection, its turn to dial, or the failure of a dial.
type outcome struct {
	conn *Conn
	turn *dials
	err  error
}

// await returns a connection that was given back, or the turn of the caller, who may dial, and has to call dialled after it.
func (p *Pool) await(ctx context.Context, fresh bool) (*Conn, *dials, error) {
	p.mu.Lock()
	if turn := p.dials; turn.n < maxDials {
		turn.n++
		p.mu.Unlock()
		return nil, turn, nil
	}
	w := &want{fresh, make(chan outcome, 1)}
	p.wants = append(p.wants, w)
	p.mu.Unlock()
	select {
	case r := <-w.outcome:
		return r.conn, r.turn, r.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	waits := slices.Index(p.wants, w)
	if waits >= 0 {
		p.wants = slices.Delete(p.wants, waits, waits+1)
	}
	p.mu.Unlock()
	if waits < 0 { // it was answered in the same moment
		switch r := <-w.outcome; {
		case r.conn != nil:
			p.Put(r.conn, r.conn.parked)
		case r.turn != nil:
			p.dialled(ctx, r.turn, nil)
		}
	}
	return nil, nil, context.Cause(ctx)
}

// dialled ends a dial. Its failure is that of all who wait: what one was refused, or waited for in vain, they would too.
// That of a client that has left is its own, as is that of a dial to where the replica was before.
func (p *Pool) dialled(ctx context.Context, turn *dials, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if turn.n--; turn != p.dials {
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

// hand gives turns to those who wait. It is called with mu held.
func (p *Pool) hand() {
	for len(p.wants) > 0 && p.dials.n < maxDials {
		p.dials.n++
		p.answer(0, outcome{turn: p.dials})
	}
}

// pass gives c to the first who waits and may have it, and says whether there is one. It is called with mu held.
func (p *Pool) pass(c *Conn) bool {
	i := slices.IndexFunc(p.wants, func(w *want) bool { return !w.fresh })
	if i < 0 {
		return false
	}
	p.answer(i, outcome{conn: c})
	return true
}

// answer is called with mu held.
func (p *Pool) answer(i int, r outcome) {
	p.wants[i].outcome <- r
	p.wants = slices.Delete(p.wants, i, i+1)
}
