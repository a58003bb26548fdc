package upstream_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/internal/ingress/upstream"
)

// hesitant is a replica that serves TLS and takes its time: a connection is open once a value comes from next, true for a
// handshake, false for an end.
type hesitant struct {
	*upstream.Pool
	at       upstream.Address
	next     chan bool
	accepted atomic.Int64
}

func hesitate(t *testing.T) *hesitant {
	t.Helper()
	config := certificate()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hesitant{at: upstream.Address{Addr: ln.Addr().String(), TLS: true}, next: make(chan bool)}
	h.Pool = upstream.NewClient(20 * time.Second).Pool(h.at)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		ln.Close()
		wg.Wait()
		h.Close()
	})
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			h.accepted.Add(1)
			wg.Go(func() {
				defer conn.Close()
				select {
				case yes := <-h.next:
					if !yes {
						return
					}
				case <-ctx.Done():
					return
				}
				peer := tls.Server(conn, config)
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				if peer.HandshakeContext(ctx) == nil {
					peer.Read(make([]byte, 1)) // until the other side goes
				}
			})
		}
	})
	return h
}

type got struct {
	conn   *upstream.Conn
	reused bool
	err    error
}

// get begins n Gets and returns what becomes of them.
func (h *hesitant) get(t *testing.T, ctx context.Context, n int) <-chan got {
	t.Helper()
	all := make(chan got, n)
	for range n {
		go func() {
			conn, reused, err := h.Get(ctx, time.Now(), upstream.MaxRest)
			all <- got{conn, reused, err}
		}()
	}
	return all
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestDialsTakeTurns(t *testing.T) {
	h := hesitate(t)
	all := h.get(t, t.Context(), 100)
	until(t, "32 are dialled and 68 wait", func() bool { return h.accepted.Load() == upstream.MaxDials && h.Wants() == 100-upstream.MaxDials })
	for range 100 {
		h.next <- true
		g := <-all
		if g.err != nil || g.reused {
			t.Fatalf("got reused %v, %v, want a new connection", g.reused, g.err)
		}
		defer g.conn.Close()
	}
	if n := h.accepted.Load(); n != 100 || h.Wants() != 0 {
		t.Errorf("got %d connections, %d that wait, want 100 and none", n, h.Wants())
	}
}

func TestConnectionThatIsGivenBackIsPassedOn(t *testing.T) {
	h := hesitate(t)
	first := h.get(t, t.Context(), 1)
	h.next <- true
	used := <-first
	if used.err != nil {
		t.Fatal(used.err)
	}
	all := h.get(t, t.Context(), upstream.MaxDials+1)
	until(t, "one waits", func() bool { return h.Wants() == 1 })
	// One that must be new does not take it.
	fresh := make(chan got, 1)
	go func() {
		conn, reused, err := h.Get(t.Context(), time.Now(), 0)
		fresh <- got{conn, reused, err}
	}()
	until(t, "two wait", func() bool { return h.Wants() == 2 })
	h.Put(used.conn, time.Now())
	g := <-all
	if g.conn != used.conn || !g.reused {
		t.Errorf("got %+v, want the connection that was given back", g)
	}
	until(t, "the fresh one waits on", func() bool { return h.Wants() == 1 })
	for range upstream.MaxDials + 1 {
		h.next <- true
	}
	for range upstream.MaxDials {
		g := <-all
		if g.err != nil || g.reused {
			t.Errorf("got %+v, want a new connection", g)
			continue
		}
		defer g.conn.Close()
	}
	if g := <-fresh; g.err != nil || g.reused {
		t.Errorf("got %+v, want a new connection", g)
	} else {
		defer g.conn.Close()
	}
	g.conn.Close()
}

func TestFailureOfADialIsThatOfAllWhoWait(t *testing.T) {
	h := hesitate(t)
	all := h.get(t, t.Context(), 200)
	until(t, "all but 32 wait", func() bool { return h.Wants() == 200-upstream.MaxDials && h.accepted.Load() == upstream.MaxDials })
	h.next <- false
	for range 200 - upstream.MaxDials + 1 {
		if g := <-all; g.err == nil {
			t.Errorf("got %+v, want the failure", g)
		}
	}
	for range upstream.MaxDials - 1 {
		h.next <- true
		if g := <-all; g.err != nil {
			t.Errorf("got %v, want a connection", g.err)
		} else {
			g.conn.Close()
		}
	}
	if n := h.accepted.Load(); n != upstream.MaxDials {
		t.Errorf("got %d dials, want %d", n, upstream.MaxDials)
	}
}

func TestWhoLeavesTheLineOfDials(t *testing.T) {
	h := hesitate(t)
	all := h.get(t, t.Context(), upstream.MaxDials)
	until(t, "32 are dialled", func() bool { return h.accepted.Load() == upstream.MaxDials })
	ctx, leave := context.WithCancelCause(t.Context())
	left := h.get(t, ctx, 3)
	until(t, "three wait", func() bool { return h.Wants() == 3 })
	gone := errors.New("gone")
	leave(gone)
	for range 3 {
		if g := <-left; !errors.Is(g.err, gone) {
			t.Errorf("got %v, want the cause", g.err)
		}
	}
	if n := h.Wants(); n != 0 {
		t.Errorf("%d wait, want none", n)
	}
	for range upstream.MaxDials {
		h.next <- true
		if g := <-all; g.err != nil {
			t.Errorf("got %v, want a connection", g.err)
		} else {
			g.conn.Close()
		}
	}
}

// A replica that comes back elsewhere is dialled there at once, whatever becomes of the dials to where it was.
func TestDialsToAnotherAddress(t *testing.T) {
	h, other := hesitate(t), hesitate(t)
	old := h.get(t, t.Context(), upstream.MaxDials)
	until(t, "32 are dialled", func() bool { return h.accepted.Load() == upstream.MaxDials })
	waits := h.get(t, t.Context(), upstream.MaxDials+1)
	until(t, "33 wait", func() bool { return h.Wants() == upstream.MaxDials+1 })
	h.Reset(other.at)
	until(t, "32 are dialled there, and one waits", func() bool { return other.accepted.Load() == upstream.MaxDials && h.Wants() == 1 })
	h.next <- false
	if g := <-old; g.err == nil {
		t.Errorf("got %+v, want the failure", g)
	}
	if n := h.Wants(); n != 1 {
		t.Errorf("%d wait, want one, whom the failure does not concern", n)
	}
	for range upstream.MaxDials + 1 {
		other.next <- true
		if g := <-waits; g.err != nil {
			t.Errorf("got %v, want a connection", g.err)
		} else {
			g.conn.Close()
		}
	}
}
