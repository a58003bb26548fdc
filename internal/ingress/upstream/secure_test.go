package upstream_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"penstock/internal/ingress/upstream"
)

// certificate is a configuration that serves TLS.
func certificate() *tls.Config {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}

// secured returns a connection over TLS and the replica's end of it.
func secured(t *testing.T) (*upstream.Conn, *tls.Conn) {
	t.Helper()
	config := certificate()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	pool := upstream.NewClient(10 * time.Second).Pool(upstream.Address{Addr: ln.Addr().String(), TLS: true})
	t.Cleanup(pool.Close)
	came := make(chan *tls.Conn, 1)
	go func() {
		defer close(came)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		peer := tls.Server(conn, config)
		if peer.Handshake() == nil {
			came <- peer
		}
	}()
	c, _, err := pool.Get(t.Context(), time.Now(), upstream.MaxRest)
	if err != nil {
		t.Fatal(err)
	}
	peer := <-came
	if peer == nil {
		t.Fatal("the replica has no connection")
	}
	t.Cleanup(func() { peer.NetConn().Close() })
	return c, peer
}

// What a replica got of a request is what its kernel confirmed of records, and not what TLS was given to write.
func TestUntakenOverTLS(t *testing.T) {
	const request = "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
	read := func(t *testing.T, peer *tls.Conn) {
		t.Helper()
		if _, err := io.ReadFull(peer, make([]byte, len(request))); err != nil {
			t.Fatal(err)
		}
	}
	send := func(t *testing.T, c *upstream.Conn) {
		t.Helper()
		if err := c.Send([]byte(request)); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		do      func(*testing.T, *upstream.Conn, *tls.Conn)
		untaken bool
	}{
		"closed before it was sent": {func(t *testing.T, c *upstream.Conn, peer *tls.Conn) {
			peer.Close()
			send(t, c)
		}, true},
		"closed after it was read": {func(t *testing.T, c *upstream.Conn, peer *tls.Conn) {
			send(t, c)
			read(t, peer)
			peer.Close()
		}, false},
		"closed without a word of TLS": {func(t *testing.T, c *upstream.Conn, peer *tls.Conn) {
			peer.NetConn().Close()
			send(t, c)
		}, true},
		"only the answers are over": {func(t *testing.T, c *upstream.Conn, peer *tls.Conn) {
			peer.CloseWrite()
			send(t, c)
		}, false},
		"nothing was sent": {func(_ *testing.T, c *upstream.Conn, peer *tls.Conn) { peer.Close() }, true},
		"a part of the answer came": {func(t *testing.T, c *upstream.Conn, peer *tls.Conn) {
			io.WriteString(peer, "HTTP/1.1 2")
			peer.Close()
			send(t, c)
		}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, peer := secured(t)
			defer c.Close()
			c.Begin(time.Now(), upstream.Limits{Silence: 10 * time.Second})
			test.do(t, c, peer)
			_, _, err := c.ReadHead(http.MethodPost, http.Header{}, nil)
			if err == nil {
				t.Fatal("got an answer")
			}
			if got := c.Untaken(err); got != test.untaken {
				t.Errorf("after %v: untaken %v, want %v", err, got, test.untaken)
			}
		})
	}
}

// A connection that rests is known to have ended, or to say what nobody asked for, without a read of its TLS.
func TestIdleConnectionOverTLSThatChanged(t *testing.T) {
	for name, change := range map[string]func(*tls.Conn){
		"closed": func(peer *tls.Conn) { peer.Close() },
		"talks":  func(peer *tls.Conn) { io.WriteString(peer, "HTTP/1.1 408 Request Timeout\r\n\r\n") },
		"":       func(*tls.Conn) {},
	} {
		c, peer := secured(t)
		c.Begin(time.Now(), upstream.Limits{Silence: 10 * time.Second})
		if err := c.Send([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		io.WriteString(peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if _, _, err := c.ReadHead(http.MethodGet, http.Header{}, nil); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := c.Next(noFlush{}); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if !c.Reusable() {
			t.Fatal("got a connection that cannot be used again, want one that can")
		}
		change(peer)
		if got, want := c.Stale(), name != ""; got != want {
			t.Errorf("%s: stale %v, want %v", name, got, want)
		}
		c.Close()
	}
}
