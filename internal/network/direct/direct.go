// Package direct restricts the packets of a socket to the networks that this machine is part of. None is sent to a
// gateway. All traffic to replicas uses such sockets.
//
// A replica is on a bridge of this machine. If the bridge is missing, the kernel would send the packets to the default
// gateway, where an unrelated host could answer. These sockets get an error at once instead. They need no privilege,
// and no other program can undo the restriction, as it could with routes and firewall rules.
package direct

import (
	"net"
	"syscall"
)

// Listener returns ln with direct accepted connections, because the kernel does not copy the option to them.
func Listener(ln net.Listener) net.Listener { return listener{ln} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c, ok := nc.(syscall.Conn); ok {
			raw, err := c.SyscallConn()
			if err == nil {
				err = Control("", "", raw)
			}
			if err != nil { // nothing must be sent on it
				nc.Close()
				continue
			}
		}
		return nc, nil
	}
}
