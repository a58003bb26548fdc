package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"penstock/internal/atomicfile"
)

// LockedError reports that another server uses the data folder.
type LockedError struct {
	Data string
	PID  int // 0 if it could not be read
}

func (e *LockedError) Error() string {
	by := "another server"
	if e.PID > 0 {
		by += fmt.Sprintf(" (pid %d)", e.PID)
	}
	return fmt.Sprintf("data folder %s is in use by %s; stop that one or give this one another folder with --data", e.Data, by)
}

// The lock is an open file description lock (fcntl(2), F_OFD_SETLK). Unlike flock, it can be queried without being taken, so
// a client that checks it does not disturb a server that starts.
func lockData(data string) (*os.File, error) {
	f, err := openLock(filepath.Join(data, "lock"))
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		pid := readPID(f.Name())
		f.Close()
		return nil, &LockedError{Data: data, PID: pid}
	}
	if err == nil {
		// The text always has the same length, so one write replaces that of the previous server.
		_, err = f.WriteAt(fmt.Appendf(nil, "%-19d\n", os.Getpid()), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock data folder %s: %w", data, err)
	}
	return f, nil
}

// openLock opens a lock file that no other user may open: who can read a file can lock it. Earlier versions made it
// readable for all.
func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Running returns the pid of the server on the data folder, or 0 if there is none.
func Running(data string) (int, error) {
	f, err := os.Open(filepath.Join(data, "lock"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("lock of data folder %s: %w", data, err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	// A server that starts for the first time takes the lock a moment before it writes its pid.
	for range 100 {
		if pid := readPID(f.Name()); pid != 0 {
			return pid, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, fmt.Errorf("%s: locked by a server that does not write its pid", f.Name())
}

func readPID(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// Exclusive waits until no other process of the role runs on the state folder; one of a killed server may run for another
// moment. This process then keeps the role until it ends.
func Exclusive(ctx context.Context, state, role string) error {
	f, err := openLock(filepath.Join(state, role+".lock"))
	if err != nil {
		return fmt.Errorf("lock role: %w", err)
	}
	// The descriptor stays open on purpose: the kernel releases the lock when the process ends, however it ends.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	f.Close()
	if err != nil {
		return fmt.Errorf("lock role: %w", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			syscall.Close(fd)
			return fmt.Errorf("lock role %s: %w", role, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			syscall.Close(fd)
			return fmt.Errorf("wait for the old %s to end: %w", role, context.Cause(ctx))
		}
	}
}

var instanceForm = regexp.MustCompile(`^[0-9a-f]{8}$`)

// instance reads the name of the installation, or creates one.
func instance(data string) (string, error) {
	path := filepath.Join(data, "instance")
	b, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(b))
		if !instanceForm.MatchString(id) {
			// With a new name, nothing would manage the containers of the old one.
			return "", fmt.Errorf("%s: want eight hex digits, got %q; the name is also in that of the running containers' cgroup, penstock-<name>", path, id)
		}
		return id, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("instance: %w", err)
	}
	var raw [4]byte
	rand.Read(raw[:])
	id := hex.EncodeToString(raw[:])
	if err := atomicfile.Write(path, []byte(id+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("instance: %w", err)
	}
	return id, nil
}
