package front

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watch learns from the kernel which clients have closed their connection, or their half of it. It costs one system call for
// each connection, and none for a request.
type watch struct {
	file  *os.File // an epoll instance; the runtime waits for it as for any file
	raw   syscall.RawConn
	found []unix.EpollEvent // of the last look
	mu    sync.Mutex
	last  int32
	conns map[int32]*conn // by number
}

// watched is the state of a watched connection.
type watched struct{ number int32 }

func newWatch() (*watch, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w := &watch{file: os.NewFile(uintptr(fd), "clients"), found: make([]unix.EpollEvent, 64), conns: map[int32]*conn{}}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return w, nil
}

// run cancels the requests of clients that leave, until the watch is closed.
func (w *watch) run() {
	for {
		n := 0
		err := w.raw.Read(func(fd uintptr) bool {
			var err error
			for {
				if n, err = unix.EpollWait(int(fd), w.found, 0); !errors.Is(err, unix.EINTR) {
					return n > 0
				}
			}
		})
		if err != nil {
			return
		}
		for _, event := range w.found[:n] {
			w.mu.Lock()
			c := w.conns[event.Fd]
			w.mu.Unlock()
			if c != nil {
				c.cancel(ErrClientGone)
			}
		}
	}
}

// add starts to watch a connection. If that fails, a client that leaves is noticed when something is sent to it.
func (w *watch) add(c *conn) {
	raw := c.raw
	if raw == nil {
		return
	}
	w.mu.Lock()
	// A descriptor may be reused by another connection while an event is on its way; a number is not.
	for w.last++; w.conns[w.last] != nil || w.last == 0; w.last++ {
	}
	c.watched.number = w.last
	w.conns[w.last] = c
	w.mu.Unlock()
	var failed error
	err := raw.Control(func(fd uintptr) {
		w.raw.Control(func(epoll uintptr) {
			failed = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{
				Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: c.watched.number,
			})
		})
	})
	if err := errors.Join(err, failed); err != nil {
		c.server.Log.Debug("a client's leaving will be noticed late", "err", err)
	}
}

// remove stops watching a connection. The kernel stops when the connection is closed.
func (w *watch) remove(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[c.watched.number] == c {
		delete(w.conns, c.watched.number)
	}
}

func (w *watch) close() { w.file.Close() }
