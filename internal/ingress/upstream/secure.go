package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
)

// TLSError is a failed TLS handshake with a replica. Nothing of a request was sent.
type TLSError struct{ Err error }

func (e *TLSError) Error() string { return "TLS with the replica: " + e.Err.Error() }
func (e *TLSError) Unwrap() error { return e.Err }

// sessions is how many TLS sessions are kept, so that another connection to the same replica needs no full handshake.
const sessions = 1024

// newTLS returns the configuration for replicas that serve TLS. Their certificates are self-made, so they are not verified.
// No server name is sent: one connection carries the requests of all hosts that are routed to its replica, and servers that
// compare the name with the host (Apache's 421) would accept only one of them. Envoy sends none by default either
// (envoyproxy.io, UpstreamTlsContext.sni).
func newTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(sessions)}
}

// meter counts the bytes that the kernel accepts from TLS. A replica may have received records, not bytes of a request.
type meter struct {
	net.Conn
	taken *atomic.Int64
}

func (m meter) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	m.taken.Add(int64(n))
	return n, err
}

// Dial opens a connection to a replica. The caller must close it.
func (cl *Client) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return cl.dialer.DialContext(ctx, "tcp", addr)
}

// handshake starts TLS on a connection, within the time for a dial. It closes the connection if it fails.
func (cl *Client) handshake(ctx context.Context, nc net.Conn, protocol string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cl.dialer.Timeout)
	defer cancel()
	config := cl.tls.Clone()
	config.NextProtos = []string{protocol}
	secure := tls.Client(nc, config)
	err := secure.HandshakeContext(ctx)
	if err == nil {
		return secure, nil
	}
	nc.Close()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, &TLSError{err}
}

// secure starts TLS on a connection that was opened for HTTP/1.1.
func (c *Conn) secure(ctx context.Context) error {
	secure, err := c.pool.client.handshake(ctx, meter{c.tcp, &c.written}, "http/1.1")
	if err != nil {
		return err
	}
	c.nc, c.encrypted = secure, true
	return nil
}

// dialStream opens a connection for HTTP/2 over TLS. It fails if the replica chooses HTTP/1.1, which the library would accept.
func (cl *Client) dialStream(ctx context.Context, _, addr string) (net.Conn, error) {
	nc, err := cl.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	secure, err := cl.handshake(ctx, nc, "h2")
	if err != nil {
		return nil, err
	}
	if got := secure.ConnectionState().NegotiatedProtocol; got != "h2" {
		nc.Close()
		return nil, &TLSError{fmt.Errorf("HTTP/2 was asked for by ALPN, got %q", got)}
	}
	return secure, nil
}
