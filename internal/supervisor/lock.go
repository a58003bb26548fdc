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
)

// LockedError says that another server has the data folder.
type LockedError struct {
	Data string
	PID  int // 0 when it could not be read
}

func (e *LockedError) Error() string {
	by := "another server"
	if e.PID > 0 {
		by += fmt.Sprintf(" (pid %d)", e.PID)
	}
	return fmt.Sprintf("data folder %s is in use by %s; stop that one or give this one another folder with --data", e.Data, by)
}

// The lock is one of an open file (fcntl(2), F_OFD_SETLK): unlike flock it can be asked about without being taken, so
// that a client that looks does not get in the way of a server that starts.
func lockData(data string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
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
		// Always as long, so that one write replaces the last server's.
		_, err = f.WriteAt(fmt.Appendf(nil, "%-19d\n", os.Getpid()), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock data folder %s: %w", data, err)
	}
	return f, nil
}

// Running says which process serves the data folder; 0 when none does.
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
	// Between the first lock of all and its pid there is a moment.
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

// Exclusive waits until no other process of that role runs on the state folder, as one of a killed server may for a
// moment. The role is held until the process ends.
func Exclusive(ctx context.Context, state, role string) error {
	f, err := os.OpenFile(filepath.Join(state, role+".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("lock role: %w", err)
	}
	// The descriptor is left open on purpose: the kernel lets go of the lock when the process ends, however it ends.
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

// instance reads the name of the installation, or makes one.
func instance(data string) (string, error) {
	path := filepath.Join(data, "instance")
	b, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(b))
		if !instanceForm.MatchString(id) {
			// A new name would leave the containers of the old one without a keeper.
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
	if err := WriteFile(path, []byte(id+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("instance: %w", err)
	}
	return id, nil
}

// WriteFile replaces a file whole: whoever reads sees the old one or the new one, also after a crash.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
