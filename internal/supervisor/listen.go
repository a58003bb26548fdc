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

	"penstock/internal/supervisor/port"
)

// Listener is a place that connections or packets come in at.
type Listener struct {
	Name    string // "http"
	Network string // "tcp", "udp" or "unix"
	Address string
	// Private puts it on the instance's own address (Private); Address is then only a port, ":0".
	Private bool
	Setting string // what a user changes to move it, "--http"; empty for those that nobody moves
}

// Private is the address that an instance has for itself: link-local (RFC 3927), so that no network has it and no
// router passes it on, and known before anything has been set up. The machine gets it when there are containers to
// reach it; two instances that have the same by chance differ in ports.
func Private(instance string) netip.Addr {
	h := fnv.New32a()
	h.Write([]byte(instance))
	sum := h.Sum32()
	// 169.254.0.x and 169.254.255.x are reserved, and clouds have their metadata in 169.254.169.x and others near it.
	return netip.AddrFrom4([4]byte{169, 254, 1 + byte(sum>>8)%127, byte(sum)})
}

// held is an open listener. The supervisor never accepts on it.
type held struct {
	ln   io.Closer
	addr net.Addr
	// fd is a copy of the descriptor that children get. It is handed over raw: os.File would set the socket, which all
	// processes share, to blocking, and an ingress inside accept would no longer be told to stop.
	fd int
}

func (h *held) close() error { return errors.Join(syscall.Close(h.fd), h.ln.Close()) }

// listen opens every listener, or none, and names all that failed.
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

// listenAt opens a listener of connections.
func listenAt(l Listener, state string) (net.Listener, error) {
	address := l.Address
	if l.Network == "unix" {
		if !filepath.IsAbs(address) {
			address = filepath.Join(state, address)
		}
		// Left over from a server that was killed: the data folder is locked, so nobody else serves it.
		if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	ln, err := l.config().Listen(context.Background(), l.Network, address)
	if err != nil {
		return nil, err
	}
	if l.Network == "unix" {
		// Only the server's own user speaks to control over it.
		if err := os.Chmod(address, 0o600); err != nil {
			ln.Close()
			return nil, err
		}
	}
	return ln, nil
}

func (l Listener) config() *net.ListenConfig {
	lc := &net.ListenConfig{}
	// Nobody here speaks multipath TCP, and its sockets cost more a request.
	lc.SetMultipathTCP(false)
	if l.Private {
		// The machine may not have the address yet, and may lose and regain it (ip(7), IP_FREEBIND).
		lc.Control = func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
			return errors.Join(err, failed)
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

// explain says who has a port and what to do.
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
