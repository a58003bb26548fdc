package supervisor

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"penstock/internal/network/direct"
	"penstock/internal/supervisor/port"
)

// Listener is a socket that accepts connections or receives packets.
type Listener struct {
	Name    string // "http"
	Network string // "tcp", "udp" or "unix"
	Address string
	// Private puts the listener on the instance's private address (see the function Private). Address is then only a port, ":0".
	Private bool
	Setting string // the setting that changes the address, such as "--http"; empty if there is none
}

// Private returns the private address of an instance. It is link-local (RFC 3927), so no network uses it and no router
// forwards it, and it is known before anything is set up. The machine gets the address when there are containers that need
// it. Two instances that happen to have the same address use different ports.
func Private(instance string) netip.Addr {
	h := fnv.New32a()
	h.Write([]byte(instance))
	sum := h.Sum32()
	// 169.254.0.x and 169.254.255.x are reserved, and clouds serve metadata on 169.254.169.x and nearby addresses.
	return netip.AddrFrom4([4]byte{169, 254, 1 + byte(sum>>8)%127, byte(sum)})
}

// held is an open listener. The supervisor never accepts on it.
type held struct {
	ln   io.Closer
	addr net.Addr
	// fd is a copy of the descriptor, for children. It is not an os.File, which would set the socket to blocking for all
	// processes that share it. An ingress that is inside accept could then not be interrupted.
	fd int
}

func (h *held) close() error { return errors.Join(syscall.Close(h.fd), h.ln.Close()) }

// listen opens all listeners, or none. Its error names every listener that failed.
func (s *Supervisor) listen(patience time.Duration) error {
	deadline := time.Now().Add(patience)
	var errs []error
	for _, l := range s.opts.Listeners {
		if l.Private {
			l.Address = Private(s.instance).String() + l.Address
		}
		h, err := open(l, s.state)
		for errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
			h, err = open(l, s.state)
		}
		if err != nil {
			errs = append(errs, explain(l, err))
			continue
		}
		s.listeners[l.Name] = h
	}
	return errors.Join(errs...)
}

func open(l Listener, state string) (*held, error) {
	if l.Network == "udp" {
		conn, err := l.config().ListenPacket(context.Background(), l.Network, l.Address)
		if err != nil {
			return nil, err
		}
		return hold(conn, conn.LocalAddr())
	}
	ln, err := listenAt(l, state)
	if err != nil {
		return nil, err
	}
	return hold(ln, ln.Addr())
}

// listenAt opens a listener for connections.
func listenAt(l Listener, state string) (net.Listener, error) {
	address := l.Address
	if l.Network == "unix" {
		if !filepath.IsAbs(address) {
			address = filepath.Join(state, address)
		}
		// This socket was left by a server that was killed. The data folder is locked, so no other server uses it.
		if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	ln, err := l.config().Listen(context.Background(), l.Network, address)
	if err != nil {
		return nil, err
	}
	if l.Network == "unix" {
		// Only the server's own user may connect to control.
		if err := os.Chmod(address, 0o600); err != nil {
			ln.Close()
			return nil, err
		}
	}
	return ln, nil
}

func (l Listener) config() *net.ListenConfig {
	lc := &net.ListenConfig{}
	// Multipath TCP is not used, and its sockets cost more per request.
	lc.SetMultipathTCP(false)
	if l.Private {
		lc.Control = func(network, address string, c syscall.RawConn) error {
			var failed error
			// The machine may not have the address yet, and may lose and regain it (ip(7), IP_FREEBIND).
			err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
			// Replicas are answered here, and nobody else.
			return errors.Join(err, failed, direct.Control(network, address, c))
		}
	}
	return lc
}

func hold(ln io.Closer, addr net.Addr) (*held, error) {
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		ln.Close()
		return nil, err
	}
	h := &held{ln: ln, addr: addr, fd: -1}
	var dupErr error
	err = raw.Control(func(fd uintptr) { h.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	if err := errors.Join(err, dupErr); err != nil {
		ln.Close()
		return nil, err
	}
	return h, nil
}

// explain adds to an error which process uses the port and what to do.
func explain(l Listener, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s listener %s: %w", l.Name, l.Address, err)
	}
	by := "another process"
	if holders := port.Holders(l.Address); len(holders) > 0 {
		by = holders[0].String()
	}
	return fmt.Errorf("%s listener %s: already in use by %s; stop it, or choose another address with %s", l.Name, l.Address, by, l.Setting)
}
