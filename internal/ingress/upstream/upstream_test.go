package upstream_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"penstock/internal/ingress/upstream"
)

// connect returns a pool and the server's end of its first connection.
func connect(t testing.TB) (*upstream.Pool, net.Listener) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	pool := upstream.NewClient(time.Second).Pool(upstream.Address{Addr: ln.Addr().String()})
	t.Cleanup(pool.Close)
	return pool, ln
}

type noFlush struct{}

func (noFlush) Flush() {}

// exchange reads one response to a GET and puts the connection back if it can be used again.
func exchange(t testing.TB, pool *upstream.Pool, server func(net.Conn), ln net.Listener, now time.Time) (reused bool) {
	t.Helper()
	c, reused, err := pool.Get(t.Context(), now, upstream.MaxRest)
	if err != nil {
		t.Fatal(err)
	}
	c.Begin(time.Now(), upstream.Limits{Silence: 10 * time.Second})
	io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
	if !reused {
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go server(peer)
	}
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
	pool.Put(c, now)
	return reused
}

func answers(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		if _, err := r.ReadString('\n'); err != nil {
			return
		}
		r.ReadString('\n')
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

func TestIdleConnections(t *testing.T) {
	now := time.Now()
	tests := map[string]struct {
		do     func(*upstream.Pool)
		reused bool
	}{
		"are used again":                     {func(*upstream.Pool) {}, true},
		"of another address are not":         {func(p *upstream.Pool) { p.Reset(upstream.Address{Addr: "127.0.0.1:1"}) }, false},
		"are not after Close":                {(*upstream.Pool).Close, false},
		"are kept by a sweep that is early":  {func(p *upstream.Pool) { p.Sweep(now.Add(upstream.MaxRest)) }, true},
		"are closed by a sweep that is late": {func(p *upstream.Pool) { p.Sweep(now.Add(upstream.MaxRest + 1)) }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pool, ln := connect(t)
			exchange(t, pool, answers, ln, now)
			test.do(pool)
			pool.Reset(upstream.Address{Addr: ln.Addr().String()})
			if got := exchange(t, pool, answers, ln, now); got != test.reused {
				t.Errorf("reused: got %v, want %v", got, test.reused)
			}
		})
	}
	t.Run("are not used when they rested for longer than was asked", func(t *testing.T) {
		pool, ln := connect(t)
		exchange(t, pool, answers, ln, now)
		for rested, wanted := range map[time.Duration]bool{0: false, time.Second: false, 3 * time.Second: true} {
			c, reused, err := pool.Get(t.Context(), now.Add(2*time.Second), rested)
			if err != nil || reused != wanted {
				t.Errorf("within %v: got %v, %v, want %v", rested, reused, err, wanted)
			}
			if reused {
				pool.Put(c, now)
			} else {
				c.Close()
			}
		}
	})
}

// The replica closes, or talks out of turn, while the connection is idle.
func TestIdleConnectionThatChanged(t *testing.T) {
	for name, change := range map[string]func(net.Conn){
		"closed": func(conn net.Conn) { conn.Close() },
		"talks":  func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 408 Request Timeout\r\n\r\n") },
	} {
		pool, ln := connect(t)
		peers := make(chan net.Conn, 1)
		exchange(t, pool, func(conn net.Conn) {
			peers <- conn
			answers(conn)
		}, ln, time.Now())
		change(<-peers)
		// What was sent over loopback is there when the call that sent it returns.
		if exchange(t, pool, answers, ln, time.Now()) {
			t.Errorf("%s: used again", name)
		}
	}
}

// FuzzResponse feeds a response in two pieces. What is accepted, net/http reads the same way: where it sees the end,
// and with the same body.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 200 OK\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\nA: b\n c\nContent-Length: 1\n\nx", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: Content-Length, close\r\nContent-Length: 3\r\n\r\nabc",
	} {
		f.Add([]byte(seed), 10, false)
		f.Add([]byte(seed), 1, true)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { ln.Close() })
	client := upstream.NewClient(time.Second)
	f.Fuzz(func(t *testing.T, text []byte, split int, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		pool := client.Pool(upstream.Address{Addr: ln.Addr().String()})
		c, _, err := pool.Get(t.Context(), time.Now(), 0)
		if err != nil {
			t.Skip(err)
		}
		defer c.Close()
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		split = max(0, min(split, len(text)))
		peer.Write(text[:split])
		peer.Write(text[split:])
		peer.Close()

		c.Begin(time.Now(), upstream.Limits{Silence: 10 * time.Second})
		h := http.Header{}
		var got upstream.Head
		for {
			if got, _, err = c.ReadHead(method, h, nil); err != nil {
				return
			}
			if !got.Interim() {
				break
			}
			clear(h)
		}
		if got.Status == http.StatusSwitchingProtocols {
			return
		}
		var body []byte
		for {
			p, err := c.Next(noFlush{})
			body = append(body, p...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
		}
		theirs := bufio.NewReader(bytes.NewReader(text))
		for {
			resp, err := http.ReadResponse(theirs, &http.Request{Method: method})
			if err != nil {
				t.Fatalf("accepted what net/http refuses: %v", err)
			}
			if resp.StatusCode < 200 {
				continue
			}
			wanted, err := io.ReadAll(resp.Body)
			if resp.StatusCode != got.Status || !bytes.Equal(wanted, body) || err != nil {
				t.Fatalf("got %d %q, net/http reads %d %q, %v", got.Status, body, resp.StatusCode, wanted, err)
			}
			return
		}
	})
}

// Who waits for a connection that cannot be had fails with the first one, not one after another.
func TestAllWaitForOneDial(t *testing.T) {
	addr := silent(t)
	pool := upstream.NewClient(300 * time.Millisecond).Pool(upstream.Address{Addr: addr})
	const waiting = 20
	errs := make(chan error, waiting)
	began := time.Now()
	for range waiting {
		go func() {
			_, _, err := pool.Open(t.Context(), false)
			errs <- err
		}()
	}
	for range waiting {
		if err := <-errs; err == nil {
			t.Error("a connection to a host that says nothing")
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%d dials of 300 ms took %v, want about one", waiting, took)
	}
}

// silent is an address that lets connections wait for ever: its backlog is full.
func silent(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
	for range 5 {
		conn, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Skip("the kernel takes connections beyond a backlog of 0")
	return ""
}
