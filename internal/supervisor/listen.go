package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"penstock/internal/supervisor/port"
)

// Listener is a place that connections come in at.
type Listener struct {
	Name    string // "http"
	Network string // "tcp" or "unix"
	Address string
	Setting string // what a user changes to move it, "--http"; empty for those that nobody moves
}

// held is an open listener. The supervisor never accepts on it.
type held struct {
	ln   net.Listener
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
	var lc net.ListenConfig
	// Nobody here speaks multipath TCP, and its sockets cost more a request.
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), l.Network, address)
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
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		ln.Close()
		return nil, err
	}
	h := &held{ln: ln, addr: ln.Addr(), fd: -1}
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
