package ingress

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/ingress/upstream"
)

// client is what is known about one client connection.
type client struct {
	number  uint64     // unique in this ingress
	address string     // without port, for X-Forwarded-For
	addr    netip.Addr // the same; invalid if it is not an IP address
	conn    net.Conn   // nil if the server was not set up by Serve
	door    int        // the port that it connected to, if that leads to one app alone
	// unbind is set if requests come one after another and share the connection's context, as in HTTP/1. The upstream
	// connection of each request is then stored here, which is cheaper than a context.AfterFunc for each.
	unbind func() bool
	// until is conn's write deadline; used by HTTP/1 only, where requests come one after another.
	until time.Time

	once  sync.Once
	shown string // the certificate, as replicas get it

	room atomic.Pointer[guardedRoom] // of the last request; it counts the connection

	// since when a connection of HTTP/2 has no request, as Unix time in nanoseconds; 0 while it has one, and for others.
	idle atomic.Int64

	mu    sync.Mutex
	bound *upstream.Conn
	gone  bool
}

type clientKey struct{}

// newClient returns the client of a connection from an address; conn may be nil.
func newClient(remote string, conn net.Conn) *client {
	c := &client{address: remote, conn: conn}
	if host, _, err := net.SplitHostPort(remote); err == nil {
		c.address = host
	}
	if addr, err := netip.ParseAddr(c.address); err == nil {
		addr = addr.Unmap().WithZone("")
		c.address, c.addr = addr.String(), addr
	}
	return c
}

// bind aborts conn when ctx, the request's context, ends. The returned function undoes that, and says whether it was called
// before ctx ended.
func (c *client) bind(ctx context.Context, conn *upstream.Conn) (unbind func() bool) {
	if c.unbind == nil {
		return context.AfterFunc(ctx, conn.Abort)
	}
	c.mu.Lock()
	gone := c.gone
	c.bound = conn
	c.mu.Unlock()
	if gone {
		conn.Abort()
	}
	return c.unbind
}

// release is what bind returns for a connection whose requests share one context.
func (c *client) release() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bound = nil
	return !c.gone
}

// asks counts the connection for the room that its request goes to, and no more for the one before.
func (c *client) asks(g *guardedRoom) {
	if c.conn == nil || c.room.Load() == g {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone { // a request of HTTP/2 can outlive its connection
		return
	}
	if before := c.room.Swap(g); before != nil {
		before.connections.Add(-1)
	}
	g.connections.Add(1)
}

// leave aborts the bound connection, as the client's connection has ended.
func (c *client) leave() {
	c.mu.Lock()
	c.gone = true
	conn := c.bound
	if last := c.room.Swap(nil); last != nil {
		last.connections.Add(-1)
	}
	c.mu.Unlock()
	if conn != nil {
		conn.Abort()
	}
}

// withOneClient is withClient for a connection whose requests all have the context ctx.
func (in *Ingress) withOneClient(ctx context.Context, conn net.Conn) context.Context {
	with := in.withClient(ctx, conn)
	c := with.Value(clientKey{}).(*client)
	c.unbind = c.release
	context.AfterFunc(ctx, c.leave) // never taken back: the context ends with the connection
	return with
}

// withSharedClient is withClient for a connection of HTTP/2, whose requests run side by side. connState ends it.
func (in *Ingress) withSharedClient(ctx context.Context, conn net.Conn) context.Context {
	with := in.withClient(ctx, conn)
	c := with.Value(clientKey{}).(*client)
	c.idle.Store(time.Now().UnixNano())
	in.shared.Store(conn, c)
	return with
}

// connState is called for connections that speak HTTP/2, for which life.enter was called before.
func (in *Ingress) connState(conn net.Conn, s http.ConnState) {
	switch s {
	case http.StateActive, http.StateIdle:
		if c, ok := in.shared.Load(conn); ok {
			since := int64(0)
			if s == http.StateIdle {
				since = time.Now().UnixNano()
			}
			c.(*client).idle.Store(since)
		}
	case http.StateClosed, http.StateHijacked:
		if c, ok := in.shared.LoadAndDelete(conn); ok {
			c.(*client).leave()
		}
		in.life.exit()
	}
}

func (in *Ingress) withClient(ctx context.Context, conn net.Conn) context.Context {
	c := newClient(conn.RemoteAddr().String(), conn)
	c.number = in.clients.Add(1)
	return context.WithValue(ctx, clientKey{}, c)
}

func clientOf(r *http.Request) *client {
	if c, ok := r.Context().Value(clientKey{}).(*client); ok {
		return c
	}
	return newClient(r.RemoteAddr, nil)
}
