package ingress

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// client is what is known of one connection of the front.
type client struct {
	number  uint64     // counted by the ingress
	address string     // without port, for X-Forwarded-For
	addr    netip.Addr // the same; invalid when it is no IP address
	conn    net.Conn   // nil when the server was not set up by Serve
	// until is conn's write deadline. It is used by HTTP/1 only, where one request comes after another.
	until time.Time

	once  sync.Once
	shown string // of its certificate
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
