package main

import (
	"fmt"
	"net"
)

// notify tells a service manager how the server is, by the protocol of sd_notify(3): one datagram to the socket that the
// manager names. Without one there is nobody to tell.
func notify(socket, state string) error {
	if socket == "" {
		return nil
	}
	// A name that begins with @ is in the abstract namespace, for net as for systemd.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager %s: %w", state, err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the service manager %s: %w", state, err)
	}
	return nil
}
