package probe_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"penstock/internal/probe"
	"penstock/internal/resource"
)

// A replica whose queue of connections is full neither opens nor refuses one, so the probe must wait.
func TestFullQueue(t *testing.T) {
	listener, at := full(t)
	tcp := func(timeout time.Duration) []resource.Probe {
		return []resource.Probe{{
			Type: resource.Startup, TCP: &resource.TCPSocket{Port: int(at.Port())}, Timeout: timeout, Period: time.Millisecond, FailureThreshold: 1,
		}}
	}
	verdicts, done := watch(t, at.Addr(), tcp(50*time.Millisecond), 0, resource.Azure)
	if v := next(t, verdicts); v.Message() != "Probe of StartUp failed with timeout in 0.05 seconds." || !v.Kill {
		t.Errorf("the queue is full: got %q (%v), kill %t", v.Message(), v.Err, v.Kill)
	}
	<-done

	verdicts, _ = watch(t, at.Addr(), tcp(time.Minute), 0, resource.Azure)
	file := os.NewFile(uintptr(listener), "listener")
	ln, err := net.FileListener(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	if v := next(t, verdicts); v.Err != nil || !v.Ready {
		t.Errorf("the queue has room again: got %+v", v)
	}
}

// full returns a listening socket whose queue is full.
func full(t *testing.T) (fd int, at netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Bind(fd, loopback), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at = netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port))
	for range 10 {
		c, err := net.DialTimeout("tcp", at.String(), 200*time.Millisecond)
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
			return fd, at
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue of a listening socket does not fill up")
	return 0, at
}

// Probes of containers that were started at any time meet at a few moments, one period apart.
func TestProbesMeet(t *testing.T) {
	for period, want := range map[time.Duration]time.Duration{10 * time.Second: time.Second, 5 * time.Second: 500 * time.Millisecond, time.Second: 100 * time.Millisecond} {
		checks := probe.Checks([]resource.Probe{{Type: resource.Readiness, TCP: &resource.TCPSocket{Port: 8080}, Period: period}}, 0, resource.Fast)
		moments := map[time.Duration]bool{}
		const containers = 1000
		for n := range containers {
			started := time.Unix(0, 0).Add(time.Duration(n) * period / containers)
			core, now := probe.NewCore(checks, started, false, resource.Fast), started
			for asked := range 5 {
				due, _ := core.Due(now)
				switch pause := now.Sub(started); {
				case len(due) != 1:
					t.Fatalf("period %s: %d checks are due, want 1", period, len(due))
				case asked == 1 && (pause < period-want/2 || pause > period+want/2+time.Millisecond):
					t.Fatalf("period %s: the second probe comes after %s", period, pause)
				case asked > 0:
					moments[time.Duration(now.UnixNano())%period] = true
				}
				// A probe begins a little after it was due.
				core.Answer(due[0], now.Add(time.Millisecond), now.Add(2*time.Millisecond), nil)
				before := now
				_, wait := core.Due(now.Add(2 * time.Millisecond))
				now = now.Add(2*time.Millisecond + wait)
				if asked > 0 && now.Sub(before) != period {
					t.Fatalf("period %s: %s between two probes", period, now.Sub(before))
				}
			}
		}
		if len(moments) != int(period/want) {
			t.Errorf("period %s: probes of %d containers at %d moments, want %d", period, containers, len(moments), period/want)
		}
	}
}
