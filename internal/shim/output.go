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
)

// Output is what a container prints, in the named pipes that its platform reads. It holds both ends of them open, so that
// what nobody has read yet is still there when the container has ended. And it never lets the container wait for a
// platform that is away: of a pipe that is full it drops the oldest lines, and counts them.
//
// Whoever reads holds a lock on the first pipe (Claim). The kernel gives it to Output when the reader has died, so that
// nothing needs to be asked now and then while one is there.
type Output struct {
	pipes []*os.File
	paths []string
	over  chan struct{}
	close sync.Once
}

// How often pipes are looked at while nobody reads: seldom while there is much room, because a server may be stopped for
// weeks. And how long dropping may keep a reader that comes back from its pipes.
const (
	lookSeldom = time.Second
	lookOften  = 50 * time.Millisecond // at pipes that are a quarter full
	lookAgain  = time.Millisecond      // at one that was full, and then half as often each time
	dropLimit  = 50 * time.Millisecond
	// A quarter is dropped at a time: most of what was printed last is kept.
	quarter = 4
	// lineLimit is how far beyond that the end of a line is looked for.
	lineLimit = 64 << 10
)

// Hold opens the pipes, as far as there are any.
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
		// It ends with the process: nothing else wakes a thread that waits for the lock, and a shim ends when its
		// container has been deleted.
		go o.relieve()
	}
	return o, nil
}

// Close lets the pipes go: their reader sees the end.
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

// relieve makes room while no platform reads.
func (o *Output) relieve() {
	// A file of its own, because locks belong to open files; only for reading, so that the pipe ends when its writers have.
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

// drop makes room in a pipe. It says whether it was full, and whether much waits in it. The caller holds the lock.
func (o *Output) drop(i int) (full, much bool) {
	raw, err := o.pipes[i].SyscallConn()
	if err != nil {
		return false, false
	}
	var lost Lost
	_ = raw.Control(func(fd uintptr) { // it fails on a closed pipe only
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
			// To the end of the line, so that whole lines are left.
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
		_ = replace(lostPath(o.paths[i]), b) // where even this cannot be written, the drop goes untold
	}
	return true, true
}

// isFull asks the kernel whether a pipe takes no more.
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

// Lost is what was dropped of a stream.
type Lost struct{ Bytes, Lines int64 }

func (l *Lost) add(b []byte) {
	l.Bytes += int64(len(b))
	l.Lines += int64(bytes.Count(b, []byte("\n")))
}

// String says it to who reads the stream.
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

// Claim makes the holder of lock, an open file of a container's first pipe, the reader of all its pipes, until it is
// closed. It waits for as long as an Output drops, which is a moment.
func Claim(lock *os.File) error {
	raw, err := lock.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = flock(int(fd), unix.LOCK_EX) })
	return errors.Join(err, failed)
}

// TakeLost returns what was dropped of a pipe since it was asked last. Only who has claimed the pipes may ask.
func TakeLost(pipe string) (Lost, error) {
	l, err := readLost(pipe)
	if errors.Is(err, fs.ErrNotExist) {
		return Lost{}, nil
	}
	return l, errors.Join(err, os.Remove(lostPath(pipe)))
}
