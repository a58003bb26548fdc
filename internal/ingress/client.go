package ingress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// client is what is known of one connection of the front.
type client struct {
	address string // without port, for X-Forwarded-For
	inside  bool
	conn    net.Conn        // nil when the server was not set up by Serve
	raw     syscall.RawConn // nil like conn
	// until is conn's write deadline. It is used by HTTP/1 only, where one request comes after another.
	until time.Time
}

type clientKey struct{}

// newClient is for a connection from that address; conn may be nil.
func (in *Ingress) newClient(remote string, conn net.Conn) *client {
	c := &client{address: remote, conn: conn}
	if host, _, err := net.SplitHostPort(remote); err == nil {
		c.address = host
	}
	if addr, err := netip.ParseAddr(c.address); err == nil {
		addr = addr.Unmap().WithZone("")
		c.address = addr.String()
		for _, network := range in.cfg.Inside {
			c.inside = c.inside || network.Contains(addr)
		}
	}
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	return c
}

func (in *Ingress) withClient(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, clientKey{}, in.newClient(conn.RemoteAddr().String(), conn))
}

func (in *Ingress) clientOf(r *http.Request) *client {
	if c, ok := r.Context().Value(clientKey{}).(*client); ok {
		return c
	}
	return in.newClient(r.RemoteAddr, nil)
}
