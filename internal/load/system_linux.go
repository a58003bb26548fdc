package load

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes its owner with a precision of some microseconds. Go's timers can be a millisecond late, because epoll_wait
// counts in milliseconds; a timerfd is more precise.
type alarm struct {
	fd   int
	file *os.File
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create timer: %w", err)
	}
	return &alarm{fd, os.NewFile(uintptr(fd), "timer")}, nil
}

// sleep waits for a time above 0. It returns an error once the alarm is off.
func (a *alarm) sleep(d time.Duration) error {
	if err := unix.TimerfdSettime(a.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil); err != nil {
		return err
	}
	var times [8]byte
	_, err := a.file.Read(times[:])
	return err
}

// off ends the current sleep and all later ones.
func (a *alarm) off() { a.file.SetReadDeadline(time.Unix(1, 0)) }

func (a *alarm) close() { a.file.Close() }

// idle reports whether nothing has arrived on a connection since its last response, not even its end.
func idle(raw syscall.RawConn) bool {
	quiet := false
	err := raw.Control(func(fd uintptr) {
		poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
		n, err := unix.Poll(poll[:], 0)
		quiet = err == nil && n == 0
	})
	return quiet && err == nil
}

// cpuTime returns the processor time that this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rawOf(c net.Conn) (syscall.RawConn, error) { return c.(*net.TCPConn).SyscallConn() }
