//go:build !linux

package probe

import (
	"context"
	"net"
	"net/netip"
)

// connecting is a connection that is being opened.
type connecting struct{ to netip.AddrPort }

func connect(to netip.AddrPort) (*connecting, error) { return &connecting{to}, nil }

// wait opens the connection and closes it.
func (c *connecting) wait(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.to.String())
	if err != nil {
		return err
	}
	return conn.Close()
}
