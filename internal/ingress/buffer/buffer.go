// Package buffer provides the byte slices that the ingress receives into, from clients and replicas.
package buffer

import "sync"

// A small buffer holds a head and a small message, so that a thousand quiet streams cost little. A body that fills it is read
// through a large one, so that a big transfer needs few system calls. The large size also bounds a head.
const (
	SmallSize = 8 << 10
	LargeSize = 64 << 10
)

// Pool keeps unused slices of the two sizes. The zero value is ready to use.
type Pool struct{ small, large sync.Pool }

// Small returns a slice of SmallSize. Its content is arbitrary.
func (p *Pool) Small() []byte {
	if b, ok := p.small.Get().(*[SmallSize]byte); ok {
		return b[:]
	}
	return make([]byte, SmallSize)
}

// Large returns a slice of LargeSize. Its content is arbitrary.
func (p *Pool) Large() []byte {
	if b, ok := p.large.Get().(*[LargeSize]byte); ok {
		return b[:]
	}
	return make([]byte, LargeSize)
}

// Put gives a slice back, which must not be used afterwards. It ignores slices of other sizes.
func (p *Pool) Put(b []byte) {
	switch cap(b) {
	case SmallSize:
		p.small.Put((*[SmallSize]byte)(b[:SmallSize]))
	case LargeSize:
		p.large.Put((*[LargeSize]byte)(b[:LargeSize]))
	}
}
