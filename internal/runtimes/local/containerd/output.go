package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// pipeSize is what a container may print while nobody reads before it must wait: the kernel's limit for a pipe
// (/proc/sys/fs/pipe-max-size).
const pipeSize = 1 << 20

// reader brings one stream of a container to the console.
type reader struct {
	pipe *os.File
	to   io.WriteCloser
	log  *slog.Logger
	done chan struct{} // closed when the stream has ended
	// detached is set before the pipe is closed under the reader.
	detached atomic.Bool
	// reading says that run was called; the container's lock guards it.
	reading bool
}

// openOutput makes or finds the pipes and opens our ends.
func (c *container) openOutput(console local.Console, revision resource.ID, log *slog.Logger) error {
	for _, stream := range []string{"stdout", "stderr"} {
		path := c.path(stream)
		if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make pipe %s: %w", path, err)
		}
		// Not blocking: it would wait for the shim, which waits for us.
		pipe, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := enlarge(pipe); err != nil {
			log.Debug("a container's pipe keeps its size", "pipe", path, "err", err)
		}
		to := console.Open(local.Output{Revision: revision, Replica: c.replica, Container: c.name, ID: c.id, Stream: stream})
		c.mu.Lock()
		c.output = append(c.output, &reader{pipe: pipe, to: to, log: log.With("container", c.id, "stream", stream), done: make(chan struct{})})
		c.mu.Unlock()
	}
	return nil
}

// enlarge does not ask for the file's descriptor, which would make reading from it block.
func enlarge(pipe *os.File) error {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { _, failed = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	return errors.Join(err, failed)
}

func (c *container) readOutput(wg *sync.WaitGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.output {
		r.reading = true
		wg.Go(r.run)
	}
}

func (r *reader) run() {
	defer close(r.done)
	defer r.to.Close()
	defer r.pipe.Close()
	if err := r.copy(); err != nil && !r.detached.Load() {
		r.log.Warn("a container's output is no longer read; it stops when its pipe is full", "err", err)
	}
}

// chunks are for what was read and not yet written. A stream takes one only when there is something to read: of hundreds
// of replicas most are silent.
var chunks = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copy returns nil at the end of the stream.
func (r *reader) copy() error {
	raw, err := r.pipe.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var chunk *[32 << 10]byte
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			chunk = chunks.Get().(*[32 << 10]byte)
			for {
				n, failed = unix.Read(int(fd), chunk[:])
				if !errors.Is(failed, unix.EINTR) {
					break
				}
			}
			if errors.Is(failed, unix.EAGAIN) {
				chunks.Put(chunk)
				return false // called again when there is something
			}
			return true
		})
		if err != nil {
			return err
		}
		if n > 0 {
			_, failed = r.to.Write(chunk[:n])
		}
		chunks.Put(chunk)
		if failed != nil || n <= 0 {
			return failed
		}
	}
}

// detachOutput stops reading; what is in the pipes waits for the next reader.
func (c *container) detachOutput() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.output {
		r.detached.Store(true)
		r.pipe.Close()
	}
}

// drainOutput waits until all that the container has printed was read.
func (c *container) drainOutput(ctx context.Context) error {
	c.mu.Lock()
	output := c.output
	c.mu.Unlock()
	for _, r := range output {
		if !r.reading { // the container was not made
			if err := errors.Join(r.pipe.Close(), r.to.Close()); err != nil {
				return err
			}
			continue
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of its output: %w", context.Cause(ctx))
		}
	}
	return nil
}
