package ingress

import (
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"
)

// gone says whether the client of a TCP app has left: it has reset the connection, or has closed its side without sending a
// byte. A client that has sent something and closed its side may wait for the answer, as HTTP/1.0 and many tools do.
func gone(conn *net.TCPConn) (gone bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(poll[:], 0); err != nil || n == 0 {
			return
		}
		if poll[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
			gone = true
			return
		}
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = err != nil || n == 0
	})
	return gone || err != nil
}

// originalPort returns the port that a connection was made to before the firewall redirected it
// (linux/netfilter_ipv4.h, SO_ORIGINAL_DST).
func originalPort(conn *net.TCPConn) (port int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	const originalDestination = 80
	controlErr := raw.Control(func(fd uintptr) {
		// The option returns a sockaddr_in, which has the same size: two bytes of the family, then the port.
		var a *unix.IPv6Mreq
		if a, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, originalDestination); err == nil {
			port = int(binary.BigEndian.Uint16(a.Multiaddr[2:4]))
		}
	})
	if controlErr != nil {
		return 0, controlErr
	}
	return port, err
}
