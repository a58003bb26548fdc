//go:build !linux

package load

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// alarm is as exact as Go's timers.
type alarm struct {
	end  chan struct{}
	once sync.Once
}

func newAlarm() (*alarm, error) { return &alarm{end: make(chan struct{})}, nil }

func (a *alarm) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-a.end:
		return errStopped
	}
}

func (a *alarm) off() { a.once.Do(func() { close(a.end) }) }

func (a *alarm) close() {}

// idle cannot tell here: a request on a connection that the server has just closed fails with Closed or Reset.
func idle(syscall.RawConn) bool { return true }

func cpuTime() time.Duration { return 0 }

func rawOf(net.Conn) (syscall.RawConn, error) { return nil, nil }
