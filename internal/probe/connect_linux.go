package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"penstock/internal/network/direct"
)

// connecting is a connection that is being opened.
type connecting struct {
	file *os.File
	to   netip.AddrPort
}

// connect opens a connection and closes it. A replica is on this machine, so the kernel has usually opened or refused the
// connection before the system call returns. Then connect returns the result and no connecting, and no goroutine has to wait.
// net.Dialer needs a goroutine for each, and three times as many system calls.
func connect(to netip.AddrPort) (*connecting, error) {
	fail := func(call string, err error) (*connecting, error) {
		return nil, dialError(to, os.NewSyscallError(call, err))
	}
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return fail("socket", err)
	}
	if err := direct.Set(fd); err != nil {
		unix.Close(fd)
		return fail("setsockopt", err)
	}
	err = unix.Connect(fd, address)
	over := !errors.Is(err, unix.EINPROGRESS)
	if !over {
		over, err = outcome(fd)
	}
	if over {
		unix.Close(fd)
		if err != nil {
			return fail("connect", err)
		}
		return nil, nil
	}
	return &connecting{os.NewFile(uintptr(fd), "probe"), to}, nil
}

// outcome reports whether a connection attempt is over, and why it failed.
func outcome(fd int) (over bool, err error) {
	state := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(state, 0); n == 0 || errors.Is(err, unix.EINTR) {
		return false, nil
	} else if err != nil {
		return true, err
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return true, err
}

// wait returns when the attempt is over, or ctx.
func (c *connecting) wait(ctx context.Context) error {
	defer c.file.Close()
	conn, err := c.file.SyscallConn()
	if err != nil {
		return dialError(c.to, err)
	}
	defer context.AfterFunc(ctx, func() { c.file.SetWriteDeadline(time.Unix(1, 0)) })()
	var failed error
	err = conn.Write(func(fd uintptr) (over bool) {
		over, failed = outcome(int(fd))
		return over
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return dialError(c.to, err)
	case failed != nil:
		return dialError(c.to, os.NewSyscallError("connect", failed))
	}
	return nil
}

func dialError(to netip.AddrPort, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
}
