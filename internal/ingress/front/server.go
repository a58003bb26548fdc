package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"penstock/internal/ingress/buffer"
	"penstock/internal/ingress/http1"
)

// Server serves connections. Its fields must be set before Serve, unless they say otherwise.
type Server struct {
	Handler http.Handler
	// HTTP2 serves the connections that speak HTTP/2. Its own listener and TLS are not used.
	HTTP2 *http.Server
	// TLS is the configuration of connections; nil means no TLS.
	TLS *tls.Config
	// Context returns the context of the requests of conn.
	Context func(ctx context.Context, conn net.Conn) context.Context
	// Admit says whether a connection that was accepted is served, or closed at once. nil admits all.
	Admit func(net.Conn) bool
	// Opened and Closed are called for each connection; Closed also for one that is hijacked, but not for one that HTTP2
	// serves, for which its ConnState is called.
	Opened, Closed func()
	// Refused is called for bytes that are no valid request. It may be nil.
	Refused func(ctx context.Context, status int)

	HeaderTimeout  func() time.Duration // for a request's head, and for the handshake
	IdleTimeout    time.Duration        // between two requests
	MaxHeaderBytes int                  // of a head
	// MaxFields returns how many fields a head may have; nil means http1.MaxFields.
	MaxFields func() int
	Log       *slog.Logger

	buffers   buffer.Pool
	exchanges sync.Pool
	watch     *watch
	closing   atomic.Bool

	mu    sync.Mutex
	conns map[*conn]struct{}
	door  *Queue        // where HTTP2 accepts its connections
	gone  chan struct{} // receives when a connection has ended while closing; takes one without blocking
	wg    sync.WaitGroup
}

func (s *Server) maxFields() int {
	if s.MaxFields == nil {
		return http1.MaxFields
	}
	return s.MaxFields()
}

// ErrClosed is returned by Serve after Shutdown or Close.
var ErrClosed = errors.New("the server was closed")

// ErrClientGone ends the context of a request whose client has closed the connection, or its half of it.
var ErrClientGone = errors.New("the client left")

// Serve accepts connections from ln until that fails or the server is closed. It does not wait for connections; Close does.
// The contexts of requests derive from ctx. It is called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if err := s.open(ctx, ln); err != nil {
		return err
	}
	pause := time.Duration(0)
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			if s.Admit != nil && !s.Admit(nc) {
				nc.Close()
				continue
			}
			s.take(ctx, nc)
		case s.closing.Load():
			return ErrClosed
		case !passes(err):
			return err
		default:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.Log.Warn("a connection cannot be accepted; it is tried again", "err", err, "in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// passes says whether accepting can succeed again after a failure.
func passes(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPROTO, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Server) open(ctx context.Context, ln net.Listener) error {
	w, err := newWatch()
	if err != nil {
		return fmt.Errorf("watch clients: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() { // Close may have returned already
		w.close()
		return ErrClosed
	}
	s.watch = w
	s.exchanges.New = func() any { return newExchange() }
	s.conns = map[*conn]struct{}{}
	s.gone = make(chan struct{}, 1)
	s.door = NewQueue(ln.Addr())
	s.wg.Go(w.run)
	s.wg.Go(func() {
		if err := s.HTTP2.Serve(s.door); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.Log.Error("HTTP/2 is not served any more", "err", err)
		}
	})
	return nil
}

func (s *Server) take(ctx context.Context, nc net.Conn) {
	s.Opened()
	c := newConn(ctx, s, nc)
	s.mu.Lock()
	closing := s.closing.Load()
	if !closing { // otherwise Close may not wait any more
		s.conns[c] = struct{}{}
		s.wg.Go(c.serve)
	}
	s.mu.Unlock()
	if closing {
		c.cancel(ErrClosed)
		nc.Close()
		s.Closed()
	}
}

// drop forgets a connection whose goroutine ends.
func (s *Server) drop(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.wake()
}

// Connections calls visit for each connection that this server serves itself. waits says since when it has been the client's
// turn to send a request, or the rest of a head; zero if it is not. end closes the connection if that is still so. visit must
// not block.
func (s *Server) Connections(visit func(nc net.Conn, waits time.Time, end func())) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		var waits time.Time
		if st := c.state.Load(); st == idle || st == heading {
			waits = time.Unix(0, c.since.Load())
		}
		visit(c.socket, waits, c.giveUp)
	}
}

// wake makes Shutdown check again what is left.
func (s *Server) wake() {
	if s.closing.Load() {
		select {
		case s.gone <- struct{}{}:
		default:
		}
	}
}

// Shutdown closes idle connections at once and the others after their current request, and waits for them until ctx ends. It
// does not wait for hijacked connections. The caller must close the listener first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closing.Store(true)
	var wg sync.WaitGroup
	var second error
	wg.Go(func() { second = s.HTTP2.Shutdown(ctx) })
	first := s.await(ctx)
	wg.Wait()
	return errors.Join(first, second)
}

func (s *Server) await(ctx context.Context) error {
	for {
		left := 0
		s.mu.Lock()
		for c := range s.conns {
			c.closeIdle()
			if c.state.Load() != taken {
				left++
			}
		}
		s.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-s.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close ends all connections, hijacked ones too, and returns when all goroutines of the server have ended.
func (s *Server) Close() {
	s.closing.Store(true)
	s.mu.Lock()
	for c := range s.conns {
		c.cancel(ErrClosed)
		c.socket.Close()
	}
	door, watch := s.door, s.watch
	s.mu.Unlock()
	if door == nil {
		return // Serve was not called, or failed
	}
	_ = s.HTTP2.Close() // it can only fail with the door's error, which has none
	_ = door.Close()    // it returns no error
	watch.close()
	s.wg.Wait()
}
