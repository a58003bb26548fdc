package supervisor

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The words that a role sends to its supervisor.
const (
	wordReady = "ready"
	wordStop  = "stop"
)

// firstInherited is the first descriptor after stdin, stdout and stderr.
const firstInherited = 3

// Inherited holds what a role got from its supervisor.
type Inherited struct {
	Listeners map[string]net.Listener
	Packets   map[string]net.PacketConn // UDP sockets

	mu   sync.Mutex
	pipe *os.File
}

// Inherit takes over the descriptors that the supervisor passed on. spec is the value of the argument --inherit.
func Inherit(spec string) (*Inherited, error) {
	in := &Inherited{Listeners: map[string]net.Listener{}, Packets: map[string]net.PacketConn{}}
	fd := firstInherited
	for name := range strings.SplitSeq(spec, ",") {
		if name == "" {
			continue
		}
		// Children of this process must not inherit the listeners: a shim could hold a port for years.
		syscall.CloseOnExec(fd)
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err == nil && kind == unix.SOCK_DGRAM {
			f := os.NewFile(uintptr(fd), name)
			in.Packets[name], err = net.FilePacketConn(f)
			f.Close() // the listener has a copy
		} else if err == nil {
			in.Listeners[name], err = inheritListener(fd, name)
		}
		if err != nil {
			return nil, fmt.Errorf("inherited listener %s: %w; a role is started by `penstock server`, not by hand", name, err)
		}
		fd++
	}
	syscall.CloseOnExec(fd)
	in.pipe = os.NewFile(uintptr(fd), "supervisor")
	if _, err := in.pipe.Stat(); err != nil {
		return nil, fmt.Errorf("inherited pipe: %w; a role is started by `penstock server`, not by hand", err)
	}
	return in, nil
}

// inheritListener turns a descriptor into a listener and closes the descriptor.
func inheritListener(fd int, name string) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // the listener has a copy
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", name, err)
	}
	return ln, nil
}

// Ready reports to the supervisor that this process serves.
func (in *Inherited) Ready() { in.say(wordReady) }

// Stop asks the supervisor to end the whole server.
func (in *Inherited) Stop() { in.say(wordStop) }

func (in *Inherited) say(word string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	// This fails only if the supervisor is gone, and then this process has already been told to end.
	_, _ = in.pipe.WriteString(word + "\n")
}
