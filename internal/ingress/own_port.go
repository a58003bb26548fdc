package ingress

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"penstock/internal/ingress/front"
)

// ownPorts is the address of the queue of connections to ports of apps.
type ownPorts struct{}

func (ownPorts) Network() string { return "tcp" }
func (ownPorts) String() string  { return "the ports of apps" }

// ownConn is a connection to a port that leads to one app alone.
type ownConn struct {
	*net.TCPConn
	port int
}

// mark makes server note the port of each connection, by which its requests are routed.
func (in *Ingress) mark(server *front.Server) {
	note := func(with func(context.Context, net.Conn) context.Context) func(context.Context, net.Conn) context.Context {
		return func(ctx context.Context, conn net.Conn) context.Context {
			ctx = with(ctx, conn)
			if own, ok := conn.(ownConn); ok {
				ctx.Value(clientKey{}).(*client).door = own.port
			}
			return ctx
		}
	}
	server.Context, server.HTTP2.ConnContext = note(server.Context), note(server.HTTP2.ConnContext)
}

// serveOwn hands a connection to the HTTP server of such ports.
func (in *Ingress) serveOwn(conn *net.TCPConn, port int) {
	if !in.own.Pass(ownConn{conn, port}) {
		conn.Close() // that server has ended
	}
}

// ownRoute returns the route of a port that leads to one app alone, or nil. The host must be an address or a name of this
// machine, or one of the app: a page of another site could otherwise use the port through a name of its own that resolves
// to this machine (DNS rebinding).
func (t *table) ownRoute(port int, host string) *route {
	if t.beforeFirst != nil {
		return t.beforeFirst
	}
	rt := t.own[port]
	if rt == nil || ofThisMachine(host) {
		return rt
	}
	if named := t.hosts[host]; named != nil && named.app == rt.app {
		return rt
	}
	return nil
}

// ofThisMachine says whether host, in the form that hostname returns, is an address or a name that means this machine.
func ofThisMachine(host string) bool {
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}
