package main

import (
	"fmt"
	"net"
)

// notify reports the server's state to the service manager with the protocol of sd_notify(3): one datagram to the manager's
// socket. It does nothing if socket is empty.
func notify(socket, state string) error {
	if socket == "" {
		return nil
	}
	// A name that starts with @ is in the abstract namespace, both for systemd and for package net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("send %s to the service manager: %w", state, err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("send %s to the service manager: %w", state, err)
	}
	return nil
}
