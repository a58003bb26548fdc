package direct

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control makes a socket direct. It can be used as the Control field of net.Dialer and net.ListenConfig.
//
// The kernel checks the option for every packet (SO_DONTROUTE in socket(7)), so it also protects open connections whose
// bridge is removed.
func Control(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = Set(int(fd)) })
	return errors.Join(err, failed)
}

// Set makes a socket direct.
func Set(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DONTROUTE, 1) }
