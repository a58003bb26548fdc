package ingress

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"penstock/internal/ingress/upstream"
)

// client is what is known of one connection of the front.
type client struct {
	number  uint64     // counted by the ingress
	address string     // without port, for X-Forwarded-For
	addr    netip.Addr // the same; invalid when it is no IP address
	conn    net.Conn   // nil when the server was not set up by Serve
	// unbind is set where all requests have the connection's context and come one after another, as in HTTP/1. What ends
	// with a request is then bound to the connection by turns, which costs less than a function at each context.
	unbind func() bool
	// until is conn's write deadline. It is used by HTTP/1 only, where one request comes after another.
	until time.Time

	once  sync.Once
	shown string // of its certificate

	mu    sync.Mutex
	bound *upstream.Conn
	gone  bool
}

type clientKey struct{}

// newClient is for a connection from that address; conn may be nil.
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

// bind has conn end with ctx, which is the request's. What it returns takes that back, and says whether it was in time.
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

// release is what bind returns for a connection whose requests have one context.
func (c *client) release() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bound = nil
	return !c.gone
}

// leave ends what is bound: the connection's context has ended.
func (c *client) leave() {
	c.mu.Lock()
	c.gone = true
	conn := c.bound
	c.mu.Unlock()
	if conn != nil {
		conn.Abort()
	}
}

// withOneClient is withClient for a connection of which ctx is the context of all requests.
func (in *Ingress) withOneClient(ctx context.Context, conn net.Conn) context.Context {
	with := in.withClient(ctx, conn)
	c := with.Value(clientKey{}).(*client)
	c.unbind = c.release
	context.AfterFunc(ctx, c.leave) // never taken back: the context ends with the connection
	return with
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
