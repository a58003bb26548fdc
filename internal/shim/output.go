package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"penstock/internal/atomicfile"
)

// Output holds the named pipes to which a container writes and from which the platform reads. It keeps both ends of the
// pipes open, so that unread output is still there after the container has ended. It also keeps the container from
// blocking while the platform is down: it drops and counts the oldest lines of a full pipe.
//
// The reader holds a lock on the first pipe (Claim). When the reader dies, the kernel gives the lock to Output, so
// Output need not poll while there is a reader.
type Output struct {
	pipes []*os.File
	paths []string
	over  chan struct{}
	close sync.Once
}

// Intervals at which the pipes are checked while nobody reads. Checks are rare while there is plenty of room, because a
// server may be stopped for weeks. The last value is also how long a returning reader may have to wait for the end of a
// drop.
const (
	lookSeldom = time.Second
	lookOften  = 50 * time.Millisecond // while a pipe is at least a quarter full
	lookAgain  = time.Millisecond      // after a pipe was full; doubles each time
	dropLimit  = 50 * time.Millisecond
	// A quarter of the pipe is dropped at a time, so most of the latest output is kept.
	quarter = 4
	// lineLimit is how much more may be dropped to reach the end of a line.
	lineLimit = 64 << 10
)

// Hold opens the pipes that exist.
func Hold(paths ...string) (*Output, error) {
	o := &Output{over: make(chan struct{})}
	for _, path := range paths {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, errors.Join(err, o.Close())
		}
		if info.Mode()&fs.ModeNamedPipe == 0 {
			continue
		}
		pipe, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, errors.Join(err, o.Close())
		}
		o.pipes, o.paths = append(o.pipes, pipe), append(o.paths, path)
	}
	if len(o.pipes) > 0 {
		// This goroutine ends with the process, because nothing else can wake a thread that waits for the lock. A shim
		// ends when its container has been deleted.
		go o.relieve()
	}
	return o, nil
}

// Close closes the pipes, so their reader sees the end.
func (o *Output) Close() error {
	var errs []error
	o.close.Do(func() {
		close(o.over)
		for _, pipe := range o.pipes {
			errs = append(errs, pipe.Close())
		}
	})
	return errors.Join(errs...)
}

// relieve makes room in the pipes while no platform reads them.
func (o *Output) relieve() {
	// A separate file, because locks belong to open files. It is read-only, so that the pipe ends when its writers have
	// ended.
	lock, err := os.OpenFile(o.paths[0], os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer lock.Close()
	fd, pause := int(lock.Fd()), lookAgain
	for {
		if err := flock(fd, unix.LOCK_EX); err != nil {
			return
		}
		select {
		case <-o.over:
			return
		default:
		}
		full, limit := false, lookSeldom
		for i := range o.pipes {
			dropped, much := o.drop(i)
			full = full || dropped
			if much {
				limit = lookOften
			}
		}
		if pause = min(2*pause, limit); full {
			pause = lookAgain
		}
		if err := flock(fd, unix.LOCK_UN); err != nil {
			return
		}
		select {
		case <-o.over:
			return
		case <-time.After(pause):
		}
	}
}

// drop makes room in a pipe. It reports whether the pipe was full, and whether much unread data is in it. The caller
// holds the lock.
func (o *Output) drop(i int) (full, much bool) {
	raw, err := o.pipes[i].SyscallConn()
	if err != nil {
		return false, false
	}
	var lost Lost
	_ = raw.Control(func(fd uintptr) { // it fails only on a closed pipe
		size, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
		if err != nil {
			return
		}
		if !isFull(int(fd)) {
			waiting, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
			much = err == nil && waiting > size/quarter
			return
		}
		buf := make([]byte, size/quarter)
		for end := time.Now().Add(dropLimit); isFull(int(fd)) && time.Now().Before(end); {
			n, err := unix.Read(int(fd), buf)
			if n <= 0 || err != nil {
				return
			}
			lost.add(buf[:n])
			// Drop up to the end of the line, so that only whole lines are left.
			one := buf[n-1 : n]
			for range lineLimit {
				if one[0] == '\n' {
					break
				}
				if m, err := unix.Read(int(fd), one); m <= 0 || err != nil {
					return
				}
				lost.add(one)
			}
		}
	})
	if lost.Bytes == 0 {
		return false, much
	}
	if before, err := readLost(o.paths[i]); err == nil {
		lost.Bytes += before.Bytes
		lost.Lines += before.Lines
	}
	if b, err := json.Marshal(lost); err == nil {
		_ = atomicfile.WriteUnsynced(lostPath(o.paths[i]), b, 0o600) // on failure, the loss is not reported
	}
	return true, true
}

// isFull reports whether a pipe is full.
func isFull(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 0
}

func flock(fd, how int) error {
	for {
		err := unix.Flock(fd, how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Lost counts what was dropped from a stream.
type Lost struct{ Bytes, Lines int64 }

func (l *Lost) add(b []byte) {
	l.Bytes += int64(len(b))
	l.Lines += int64(bytes.Count(b, []byte("\n")))
}

// String describes the loss for readers of the stream.
func (l Lost) String() string {
	return fmt.Sprintf("[penstock] %d lines (%d bytes) before this were printed while the platform was away and are lost: a pipe holds 1 MiB",
		l.Lines, l.Bytes)
}

func lostPath(pipe string) string { return pipe + ".lost" }

func readLost(pipe string) (Lost, error) {
	var l Lost
	b, err := os.ReadFile(lostPath(pipe))
	if err != nil {
		return l, err
	}
	return l, json.Unmarshal(b, &l)
}

// Claim makes the holder of lock, an open file of a container's first pipe, the reader of all its pipes until lock is
// closed. It waits while an Output drops lines, which takes only a moment.
func Claim(lock *os.File) error {
	raw, err := lock.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = flock(int(fd), unix.LOCK_EX) })
	return errors.Join(err, failed)
}

// TakeLost returns what was dropped from a pipe since the last call. Only the reader that has claimed the pipes may
// call it.
func TakeLost(pipe string) (Lost, error) {
	l, err := readLost(pipe)
	if errors.Is(err, fs.ErrNotExist) {
		return Lost{}, nil
	}
	return l, errors.Join(err, os.Remove(lostPath(pipe)))
}
