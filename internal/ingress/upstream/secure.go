package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
)

// TLSError is what is wrong with the TLS of a replica, before anything of a request was sent.
type TLSError struct{ Err error }

func (e *TLSError) Error() string { return "TLS with the replica: " + e.Err.Error() }
func (e *TLSError) Unwrap() error { return e.Err }

// sessions is how many replicas' TLS sessions are kept: another connection to one of them begins without its certificate.
const sessions = 1024

// newTLS is how replicas are spoken to that serve TLS. Their certificates are their own, so that nobody can look at them,
// and no server is named: one connection is for the requests of all hosts that lead to its replica, and servers that
// compare the name with the host (Apache's 421) would take it for one of them only. Envoy names none either, unless told
// to (envoyproxy.io, UpstreamTlsContext.sni).
func newTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(sessions)}
}

// meter counts what the kernel takes of what TLS writes: records, not bytes of a request, are what a replica may have got.
type meter struct {
	net.Conn
	taken *atomic.Int64
}

func (m meter) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	m.taken.Add(int64(n))
	return n, err
}

// Dial opens a connection to a replica, which is the caller's.
func (cl *Client) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return cl.dialer.DialContext(ctx, "tcp", addr)
}

// handshake begins TLS on a connection, for which there is as much time as for a dial. The connection is closed when it
// fails.
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

// secure begins TLS on a connection that was opened for HTTP/1.1.
func (c *Conn) secure(ctx context.Context) error {
	secure, err := c.pool.client.handshake(ctx, meter{c.tcp, &c.written}, "http/1.1")
	if err != nil {
		return err
	}
	c.nc, c.encrypted = secure, true
	return nil
}

// dialStream opens a connection for HTTP/2 over TLS. A replica that would speak HTTP/1.1 on it is refused here: the
// library would go on with that.
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
