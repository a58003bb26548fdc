//go:build !linux

package ingress

import (
	"errors"
	"net"
)

// gone needs Linux's poll flags; elsewhere a connection whose client went waits until its time is over.
func gone(*net.TCPConn) bool { return false }

func originalPort(*net.TCPConn) (int, error) { return 0, errors.New("the firewall is Linux's") }
