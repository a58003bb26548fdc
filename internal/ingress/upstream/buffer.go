package upstream

import "sync"

// A head and a small answer fit in a small buffer, so that a thousand quiet streams cost little; a body that fills it
// is read through a large one, so that a big transfer costs few system calls. The large one also bounds a head.
const (
	smallSize = 8 << 10
	largeSize = 64 << 10
)

// buffers hands out byte slices of the two sizes.
type buffers struct{ small, large sync.Pool }

func newBuffers() buffers {
	return buffers{
		small: sync.Pool{New: func() any { return new([smallSize]byte) }},
		large: sync.Pool{New: func() any { return new([largeSize]byte) }},
	}
}

func (b *buffers) getSmall() []byte { return b.small.Get().(*[smallSize]byte)[:] }
func (b *buffers) getLarge() []byte { return b.large.Get().(*[largeSize]byte)[:] }

func (b *buffers) put(buf []byte) {
	switch cap(buf) {
	case smallSize:
		b.small.Put((*[smallSize]byte)(buf[:smallSize]))
	case largeSize:
		b.large.Put((*[largeSize]byte)(buf[:largeSize]))
	}
}
