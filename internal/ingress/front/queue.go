package front

import (
	"net"
	"sync"
)

// Queue is a listener whose connections were accepted elsewhere.
type Queue struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// NewQueue returns a queue that says that it listens on addr.
func NewQueue(addr net.Addr) *Queue {
	return &Queue{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept returns the next connection that is passed.
func (q *Queue) Accept() (net.Conn, error) {
	select {
	case nc := <-q.conns:
		return nc, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept fail, and Pass return false. It returns no error.
func (q *Queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// Addr returns the address that the queue was made with.
func (q *Queue) Addr() net.Addr { return q.addr }

// Pass waits until the connection is accepted. It returns false if the queue was closed first.
func (q *Queue) Pass(nc net.Conn) bool {
	select {
	case q.conns <- nc:
		return true
	case <-q.closed:
		return false
	}
}
