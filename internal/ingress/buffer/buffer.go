// Package buffer hands out the byte slices that both sides of the ingress receive into.
package buffer

import "sync"

// A head and a small message fit in a small buffer, so that a thousand quiet streams cost little; a body that fills it
// is read through a large one, so that a big transfer costs few system calls. The large one also bounds a head.
const (
	SmallSize = 8 << 10
	LargeSize = 64 << 10
)

// Pool keeps slices of the two sizes that are not in use. The zero value is ready.
type Pool struct{ small, large sync.Pool }

// Small returns a slice of SmallSize with anything in it.
func (p *Pool) Small() []byte {
	if b, ok := p.small.Get().(*[SmallSize]byte); ok {
		return b[:]
	}
	return make([]byte, SmallSize)
}

// Large returns a slice of LargeSize with anything in it.
func (p *Pool) Large() []byte {
	if b, ok := p.large.Get().(*[LargeSize]byte); ok {
		return b[:]
	}
	return make([]byte, LargeSize)
}

// Put takes a slice back, which nobody uses from then on. Those of another size are let go.
func (p *Pool) Put(b []byte) {
	switch cap(b) {
	case SmallSize:
		p.small.Put((*[SmallSize]byte)(b[:SmallSize]))
	case LargeSize:
		p.large.Put((*[LargeSize]byte)(b[:LargeSize]))
	}
}
