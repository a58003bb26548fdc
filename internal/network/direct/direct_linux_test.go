package direct_test

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"penstock/internal/network/direct"
)

func TestBothEndsOfAConnectionAreDirect(t *testing.T) {
	config := net.ListenConfig{Control: direct.Control}
	plain, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := direct.Listener(plain)
	defer ln.Close()
	dialer := net.Dialer{Control: direct.Control}
	dialled, err := dialer.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for name, conn := range map[string]net.Conn{"dialled": dialled, "accepted": accepted} {
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var set int
		if failed := raw.Control(func(fd uintptr) { set, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DONTROUTE) }); failed != nil || err != nil || set != 1 {
			t.Errorf("%s: SO_DONTROUTE is %d (%v, %v), want 1", name, set, failed, err)
		}
	}
}
