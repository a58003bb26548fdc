package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/shim"
)

// pipeSize is how much of a container's output is kept while nobody reads it. It is the kernel's maximum size of a pipe
// (/proc/sys/fs/pipe-max-size).
const pipeSize = 1 << 20

// streams are a container's streams, in the order in which its pipes are opened.
var streams = []string{"stdout", "stderr"}

// pipes are our ends of a container's pipes. Whoever holds them is the only reader. See shim.Output for the other ends.
type pipes struct {
	files []*os.File
	// lost is what the shim has dropped from each pipe while nobody read it.
	lost []shim.Lost
}

// openPipes creates or finds the pipes in a container's run folder.
func openPipes(dir string, log *slog.Logger) (_ *pipes, err error) {
	p := &pipes{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for i, stream := range streams {
		path := filepath.Join(dir, stream)
		if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make pipe %s: %w", path, err)
		}
		// Non-blocking, because a blocking open would wait for the shim, which waits for us.
		file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, file)
		if err := enlarge(file); err != nil {
			log.Debug("a container's pipe keeps its size", "pipe", path, "err", err)
		}
		if i == 0 {
			if err := shim.Claim(file); err != nil {
				return nil, fmt.Errorf("claim pipe %s: %w", path, err)
			}
		}
		lost, err := shim.TakeLost(path)
		if err != nil {
			log.Warn("it is not known how much of a container's output was dropped while nobody read it", "pipe", path, "err", err)
		}
		p.lost = append(p.lost, lost)
	}
	return p, nil
}

func (p *pipes) close() {
	for _, file := range p.files {
		file.Close()
	}
}

// claimPipes takes over the pipes of all containers of earlier processes. If the pipes of a container cannot be opened,
// its output is lost, but the container is still adopted.
func claimPipes(dir string, log *slog.Logger) map[string]*pipes {
	found := map[string]*pipes{}
	paths, err := filepath.Glob(filepath.Join(dir, "*", streams[0]))
	if err != nil {
		return found
	}
	for _, path := range paths {
		home := filepath.Dir(path)
		p, err := openPipes(home, log)
		if err != nil {
			log.Warn("what a container has printed is lost", "container", filepath.Base(home), "err", err)
			continue
		}
		found[filepath.Base(home)] = p
	}
	return found
}

// dropFound closes the pipes that no adopted container has taken.
func (d *Driver) dropFound() {
	for _, p := range d.found {
		p.close()
	}
	d.found = nil
}

// reader copies one stream of a container to the console.
type reader struct {
	pipe *os.File
	to   io.WriteCloser
	lost shim.Lost
	log  *slog.Logger
	done chan struct{} // closed when the stream has ended
	// detached is set before the pipe is closed while the reader uses it.
	detached atomic.Bool
	// reading is set when run was called. The container's lock guards it.
	reading bool
}

// openOutput connects the container's pipes to the console.
func (c *container) openOutput(p *pipes, console local.Console, revision resource.ID, log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, stream := range streams {
		to := console.Open(local.Output{Revision: revision, Replica: c.replica, Container: c.name, ID: c.id, Stream: stream})
		c.output = append(c.output, &reader{
			pipe: p.files[i], to: to, lost: p.lost[i], log: log.With("container", c.id, "stream", stream), done: make(chan struct{}),
		})
	}
}

// enlarge sets a pipe's size. It does not use Fd, which would make reads from the pipe block.
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
	if r.lost != (shim.Lost{}) {
		r.log.Warn("output was dropped while nobody read it", "lines", r.lost.Lines, "bytes", r.lost.Bytes)
		if _, err := io.WriteString(r.to, r.lost.String()+"\n"); err != nil {
			r.log.Warn("a container's output cannot be kept", "err", err)
		}
	}
	if err := r.copy(); err != nil && !r.detached.Load() {
		r.log.Warn("a container's output is no longer read; it stops when its pipe is full", "err", err)
	}
}

// chunks are buffers for what was read and not yet written. A stream takes one only when there is something to read,
// because most of hundreds of replicas are silent.
var chunks = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copy copies until the end of the stream, where it returns nil.
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
				return false // called again when there is something to read
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

// detachOutput stops reading. What is in the pipes stays there for the next reader.
func (c *container) detachOutput() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.output {
		r.detached.Store(true)
		r.pipe.Close()
	}
}

// drainOutput waits until all the output of the container was read.
func (c *container) drainOutput(ctx context.Context) error {
	c.mu.Lock()
	output := c.output
	c.mu.Unlock()
	for _, r := range output {
		if !r.reading { // the container was not created
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
