package network_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"penstock/internal/network"
	"penstock/internal/network/networktest"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("missing: root, for network namespaces and nftables")
	}
}

func open(t testing.TB, cfg network.Config) *network.Network {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir, cfg.State = t.TempDir(), t.TempDir()
	}
	if cfg.Instance == "" {
		cfg.Instance = t.Name()
	}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	n, err := network.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func destroyAfter(t testing.TB, n *network.Network) {
	t.Helper()
	t.Cleanup(func() {
		if err := n.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func attach(t testing.TB, n *network.Network, replica, environment string) network.Attachment {
	t.Helper()
	a, err := n.Attach(t.Context(), replica, environment)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// inside runs f on a thread that has entered a replica's namespace.
func inside(t testing.TB, a network.Attachment, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open(a.Namespace)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// dial connects from a namespace. It uses plain system calls, because net.Dial may continue on another thread.
func dial(t testing.TB, from network.Attachment, to netip.AddrPort) error {
	t.Helper()
	return inside(t, from, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		limit := unix.NsecToTimeval(int64(2 * time.Second))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	})
}

// listen serves one port until the test ends. If in is not nil, it listens in that namespace.
func listen(t testing.TB, in *network.Attachment, address string) netip.AddrPort {
	t.Helper()
	var ln net.Listener
	open := func() (err error) {
		// An address that the machine does not have yet, as a supervisor does.
		free := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
			return errors.Join(err, failed)
		}}
		ln, err = free.Listen(context.Background(), "tcp4", address)
		return err
	}
	var err error
	if in != nil {
		err = inside(t, *in, open)
	} else {
		err = open()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

func TestReplicasReachTheOpenPortsOfTheirGatewayAndNothingElse(t *testing.T) {
	needRoot(t)
	// The listeners are opened first, so that the rules can use the port of one of them.
	host := netip.MustParseAddr("169.254.77.53")
	ingress := listen(t, nil, host.String()+":0")
	arm := listen(t, nil, "0.0.0.0:0")
	n := open(t, network.Config{Host: host, Services: []network.Service{
		{Protocol: "tcp", Port: 80, Local: ingress.Port()}, {Protocol: "udp", Port: 53, Local: 53},
	}})
	destroyAfter(t, n)
	a := attach(t, n, "app--1-a", "blue")
	b := attach(t, n, "app--1-b", "blue")
	c := attach(t, n, "app--1-c", "green")
	for _, x := range []network.Attachment{a, b, c} {
		if !n.Range().Contains(x.Address) {
			t.Errorf("address %s is outside %s", x.Address, n.Range())
		}
	}
	if a.Gateway != b.Gateway || a.Gateway == c.Gateway {
		t.Errorf("gateways %s, %s, %s: want one an environment", a.Gateway, b.Gateway, c.Gateway)
	}
	served := map[string]netip.AddrPort{}
	for name, x := range map[string]*network.Attachment{"a": &a, "b": &b, "c": &c} {
		p := listen(t, x, "0.0.0.0:80") // a low port, because no privilege is needed for it inside
		served[name] = netip.AddrPortFrom(x.Address, p.Port())
	}

	reaches := map[string]struct {
		to   netip.AddrPort
		want bool
	}{
		"the ingress on its gateway":              {netip.AddrPortFrom(a.Gateway, 80), true},
		"where the ingress listens":               {ingress, false},
		"that port on its gateway":                {netip.AddrPortFrom(a.Gateway, ingress.Port()), false},
		"another port where the ingress listens":  {netip.AddrPortFrom(host, arm.Port()), false},
		"itself":                                  {served["a"], true},
		"another port on its gateway":             {netip.AddrPortFrom(a.Gateway, arm.Port()), false},
		"the ingress on another gateway":          {netip.AddrPortFrom(c.Gateway, 80), false},
		"a replica of its environment":            {served["b"], false},
		"a replica of another environment":        {served["c"], false},
		"a port of the host by another address":   {netip.AddrPortFrom(hostAddress(t), arm.Port()), false},
		"the ingress by another address of hosts": {netip.AddrPortFrom(hostAddress(t), 80), false},
	}
	for what, c := range reaches {
		if err := dial(t, a, c.to); (err == nil) != c.want {
			t.Errorf("replica to %s (%s): %v, want reached: %v", what, c.to, err, c.want)
		}
	}
	for name, to := range served {
		conn, err := net.DialTimeout("tcp", to.String(), 20*time.Second)
		if err != nil {
			t.Errorf("host to replica %s: %v", name, err)
			continue
		}
		conn.Close()
	}
}

// Ports that are added and removed are redirected to one listener, and only for replicas of their environment. The
// listener distinguishes them by the original destination of a connection.
func TestExposedPortsAreReachedFromTheirEnvironmentOnly(t *testing.T) {
	needRoot(t)
	host := netip.MustParseAddr("169.254.77.54")
	accepts := make(chan uint16, 16)
	ln := original(t, host.String()+":0", accepts)
	cfg := network.Config{Dir: t.TempDir(), State: t.TempDir(), Host: host, Exposed: ln.Port()}
	n := open(t, cfg)
	destroyAfter(t, n)
	a := attach(t, n, "app--1-a", "blue")
	b := attach(t, n, "app--1-b", "green")
	reach := func(what string, from network.Attachment, to netip.AddrPort, want bool) {
		t.Helper()
		err := dial(t, from, to)
		if (err == nil) != want {
			t.Errorf("%s: replica to %s: %v, want reached: %v", what, to, err, want)
		}
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINPROGRESS) {
			t.Errorf("%s: replica to %s: no answer, want a refusal at once", what, to)
		}
		if err != nil {
			return
		}
		select {
		case meant := <-accepts:
			if meant != to.Port() {
				t.Errorf("%s: got a connection for port %d, want %d", what, meant, to.Port())
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: nothing came in", what)
		}
	}
	redis := netip.AddrPortFrom(a.Gateway, 6379)
	set := func(ports ...netip.AddrPort) {
		t.Helper()
		if err := n.Expose(ports); err != nil {
			t.Fatal(err)
		}
	}
	reach("nothing exposed", a, redis, false)
	set(redis)
	reach("exposed", a, redis, true)
	for what, to := range map[string]netip.AddrPort{
		"another port":                    netip.AddrPortFrom(a.Gateway, 6380),
		"where the listener is":           ln,
		"that port on its gateway":        netip.AddrPortFrom(a.Gateway, ln.Port()),
		"the port on an address of hosts": netip.AddrPortFrom(hostAddress(t), 6379),
	} {
		reach(what, a, to, false)
	}
	reach("another environment's gateway", b, redis, false)
	reach("the port on its own gateway", b, netip.AddrPortFrom(b.Gateway, 6379), false)
	set(redis)
	reach("exposed again", a, redis, true)
	open(t, cfg) // as the next control does
	reach("rules installed again", a, redis, true)
	set(netip.AddrPortFrom(b.Gateway, 6379))
	reach("moved", a, redis, false)
	reach("moved", b, netip.AddrPortFrom(b.Gateway, 6379), true)
	set()
	reach("nothing exposed any more", b, netip.AddrPortFrom(b.Gateway, 6379), false)
}

// original accepts connections and sends the port to which each was made before it was redirected.
func original(t testing.TB, address string, accepts chan<- uint16) netip.AddrPort {
	t.Helper()
	free := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
		return errors.Join(err, failed)
	}}
	ln, err := free.Listen(t.Context(), "tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			raw, err := c.(*net.TCPConn).SyscallConn()
			if err != nil {
				return
			}
			raw.Control(func(fd uintptr) {
				const originalDestination = 80 // linux/netfilter_ipv4.h
				if a, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, originalDestination); err == nil {
					accepts <- binary.BigEndian.Uint16(a.Multiaddr[2:4])
				}
			})
			c.Close()
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

// hostAddress returns an address of the machine that belongs to no bridge: those of this test and of other servers are
// gateways.
func hostAddress(t testing.TB) netip.Addr {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if _, err := os.Stat(filepath.Join("/sys/class/net", link.Name, "bridge")); err == nil || link.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := link.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				return p.Addr()
			}
		}
	}
	return netip.MustParseAddr("127.0.0.1")
}

func TestOutboundPacketsLeaveWithTheHostsAddress(t *testing.T) {
	needRoot(t)
	n := open(t, network.Config{})
	destroyAfter(t, n)
	a := attach(t, n, "out", "blue")
	inet := internet(t)
	if err := dial(t, a, inet); err != nil {
		t.Fatalf("replica to the internet: %v", err)
	}
}

// A cloud gives credentials of the machine to whoever asks its metadata service.
func TestReplicasDoNotReachMetadata(t *testing.T) {
	for name, allowed := range map[string]bool{"blocked": false, "allowed": true} {
		t.Run(name, func(t *testing.T) {
			networktest.Run(t, func(t *testing.T, out *networktest.Gateway) {
				n := open(t, network.Config{LinkLocal: allowed})
				destroyAfter(t, n)
				a := attach(t, n, "curious", "blue")
				for _, to := range []string{"169.254.169.254:80", "169.254.0.1:53", "168.63.129.16:32526"} {
					at := netip.MustParseAddrPort(to)
					err := dial(t, a, at)
					arrived := func() bool { return len(out.Arrived(netip.PrefixFrom(at.Addr(), 32))) > 0 }
					switch {
					case allowed:
						for deadline := time.Now().Add(time.Minute); !arrived(); time.Sleep(time.Millisecond) {
							if time.Now().After(deadline) {
								t.Fatalf("%s: nothing arrived at the gateway", to)
							}
						}
					case !errors.Is(err, syscall.ECONNREFUSED):
						t.Errorf("%s: %v, want %v", to, err, syscall.ECONNREFUSED)
					case arrived():
						t.Errorf("%s: a packet left the machine", to)
					}
				}
			})
		})
	}
}

func TestAttachingAgainGivesTheSameNetwork(t *testing.T) {
	needRoot(t)
	cfg := network.Config{Dir: t.TempDir(), State: t.TempDir()}
	n := open(t, cfg)
	first := attach(t, n, "r1", "blue")
	second := attach(t, n, "r2", "blue")
	if again := attach(t, n, "r1", "blue"); again != first {
		t.Errorf("attached again: %+v, want %+v", again, first)
	}

	after := open(t, cfg) // as after a restart of the platform
	destroyAfter(t, after)
	if again := attach(t, after, "r1", "blue"); again != first {
		t.Errorf("after a restart: %+v, want %+v", again, first)
	}
	served := listen(t, &second, "0.0.0.0:8080")
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(second.Address, served.Port()).String(), 20*time.Second)
	if err != nil {
		t.Errorf("host to a replica from before the restart: %v", err)
	} else {
		conn.Close()
	}
	if third := attach(t, after, "r3", "blue"); third.Address == first.Address || third.Address == second.Address {
		t.Errorf("a new replica got %s, which another has", third.Address)
	}
	if got := len(after.Attached()); got != 3 {
		t.Errorf("%d attached, want 3", got)
	}
}

// A network that was lost in a reboot is created again with the same address. If another replica has that address by
// then, it is not shared.
func TestARestoredReplicaKeepsItsAddress(t *testing.T) {
	needRoot(t)
	cfg := network.Config{Dir: t.TempDir(), State: t.TempDir(), Instance: t.Name()}
	n := open(t, cfg)
	had := []network.Attachment{attach(t, n, "a", "env"), attach(t, n, "b", "env"), attach(t, n, "c", "env")}
	for _, name := range []string{"a", "b", "c"} {
		if err := n.Detach(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	n = open(t, cfg)
	destroyAfter(t, n)
	for i, name := range []string{"c", "b"} {
		want := had[2-i].Address
		if got, err := n.Restore(t.Context(), name, "env", want); err != nil || got.Address != want {
			t.Errorf("restored %s: %s, %v; want %s", name, got.Address, err, want)
		}
	}
	if got, err := n.Restore(t.Context(), "d", "env", had[1].Address); err != nil || got.Address != had[0].Address {
		t.Errorf("restored d, whose address is b's: %s, %v; want the free %s", got.Address, err, had[0].Address)
	}
	if got, err := n.Restore(t.Context(), "a", "env", netip.MustParseAddr("192.0.2.7")); err != nil || got.Address != had[2].Address.Next() {
		t.Errorf("restored a with an address of elsewhere: %s, %v; want the free %s", got.Address, err, had[2].Address.Next())
	}
}

func TestAnAddressThatWasAnothersAnswersAtOnce(t *testing.T) {
	needRoot(t)
	n := open(t, network.Config{})
	destroyAfter(t, n)
	var first netip.Addr
	for i := range 20 {
		a := attach(t, n, "r", "blue")
		if i == 0 {
			first = a.Address
		} else if a.Address != first {
			t.Fatalf("address %s, want %s again", a.Address, first)
		}
		port := listen(t, &a, "0.0.0.0:8080").Port()
		start := time.Now()
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(a.Address, port).String(), 5*time.Second)
		if err != nil {
			t.Fatalf("replica %d at that address: %v", i, err)
		}
		conn.Close()
		if took := time.Since(start); took > 950*time.Millisecond {
			t.Errorf("replica %d at that address answered after %v", i, took)
		}
		if err := n.Detach(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
	}
}

// Replicas that talk to the gateway know its hardware address. If that changed when another replica is added or
// removed, their packets would be lost for seconds.
func TestTheGatewayKeepsItsHardwareAddress(t *testing.T) {
	needRoot(t)
	n := open(t, network.Config{})
	destroyAfter(t, n)
	first := attach(t, n, "first", "blue")
	gateway := func() string {
		t.Helper()
		links, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			addresses, err := netlink.AddrList(l, netlink.FAMILY_V4)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range addresses {
				if a.IP.String() == first.Gateway.String() {
					return l.Attrs().HardwareAddr.String()
				}
			}
		}
		t.Fatalf("no device has the gateway's address %s", first.Gateway)
		return ""
	}
	want := gateway()
	for i := range 8 { // a bridge without an address of its own takes the lowest address of its ports
		attach(t, n, fmt.Sprintf("other%d", i), "blue")
		if got := gateway(); got != want {
			t.Errorf("with %d more replicas the gateway is %s, want %s", i+1, got, want)
		}
	}
	if err := n.Detach(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	if got := gateway(); got != want {
		t.Errorf("without the first replica the gateway is %s, want %s", got, want)
	}
}

func TestTwoInstancesUseDifferentRanges(t *testing.T) {
	needRoot(t)
	one := open(t, network.Config{Instance: t.Name() + "1"})
	destroyAfter(t, one)
	a := attach(t, one, "r", "blue")
	two := open(t, network.Config{Instance: t.Name() + "2"})
	destroyAfter(t, two)
	b := attach(t, two, "r", "blue")
	if one.Range().Overlaps(two.Range()) {
		t.Fatalf("ranges %s and %s overlap", one.Range(), two.Range())
	}
	port := listen(t, &b, "0.0.0.0:8080").Port()
	if err := dial(t, a, netip.AddrPortFrom(b.Address, port)); err == nil {
		t.Error("a replica reached one of another instance")
	}
	if err := one.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(b.Address, port).String(), 20*time.Second)
	if err != nil {
		t.Fatalf("after the other instance was destroyed: %v", err)
	}
	conn.Close()
}

func TestNothingIsLeftBehind(t *testing.T) {
	needRoot(t)
	cfg := network.Config{
		Dir: t.TempDir(), State: t.TempDir(), Instance: t.Name(),
		Host: netip.MustParseAddr("169.254.77.54"), Services: []network.Service{{Protocol: "tcp", Port: 80, Local: 1080}},
	}
	n := open(t, cfg)
	if !has(t, cfg.Host) {
		t.Errorf("the machine has no address %s", cfg.Host)
	}
	var tag string
	for range 3 {
		for i := range 3 {
			tag = tagOf(t, attach(t, n, fmt.Sprintf("r%d", i), "blue"))
		}
		for i := range 3 {
			if err := n.Detach(t.Context(), fmt.Sprintf("r%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Detach(t.Context(), "r0"); err != nil {
			t.Errorf("detached twice: %v", err)
		}
		if got := leftovers(t, tag, cfg.State); len(got) != 2 { // the bridge and the rules stay
			t.Errorf("after all were detached: %q", got)
		}
	}
	attach(t, n, "forgotten", "blue")
	if err := n.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := leftovers(t, tag, cfg.State); len(got) != 0 || has(t, cfg.Host) {
		t.Errorf("after destroy: %q; address %s: %v", got, cfg.Host, has(t, cfg.Host))
	}
	if entries, err := os.ReadDir(cfg.Dir); err != nil || len(entries) != 0 {
		t.Errorf("files left in dir: %v, %v", entries, err)
	}
}

// has reports whether the machine has an address.
func has(t testing.TB, a netip.Addr) bool {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(addrs, func(of net.Addr) bool { return strings.HasPrefix(of.String(), a.String()+"/") })
}

func TestAnEnvironmentKeepsItsAddresses(t *testing.T) {
	needRoot(t)
	n := open(t, network.Config{})
	destroyAfter(t, n)
	blue, gateway, err := n.Environment("blue")
	if err != nil {
		t.Fatal(err)
	}
	green, _, err := n.Environment("green")
	if err != nil || green.Overlaps(blue) {
		t.Errorf("blue %s and green %s: %v", blue, green, err)
	}
	if a := attach(t, n, "r", "blue"); !blue.Contains(a.Address) || a.Gateway != gateway {
		t.Errorf("a replica got %s by %s, want one of %s by %s", a.Address, a.Gateway, blue, gateway)
	}
}

// An instance can have 32 environments at a time, no matter how many it had before.
func TestADeletedEnvironmentGivesItsPlaceBack(t *testing.T) {
	needRoot(t)
	n := open(t, network.Config{})
	destroyAfter(t, n)
	for i := range 31 {
		if _, _, err := n.Environment(fmt.Sprintf("standing-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		name := fmt.Sprintf("passing-%d", i)
		a := attach(t, n, "r", name)
		if err := n.Release(name); err == nil || !strings.Contains(err.Error(), "replica r is attached") {
			t.Errorf("with a replica in it: got %v, want an error that names it", err)
		}
		if _, _, err := n.Environment("one too many"); err == nil {
			t.Error("a 33rd environment got a place")
		}
		if err := n.Detach(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
		bridge := bridgeOf(t, a.Gateway)
		for range 2 {
			if err := n.Release(name); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := netlink.LinkByName(bridge); err == nil {
			t.Errorf("the bridge %s is left", bridge)
		}
	}
	if got := n.Environments(); len(got) != 31 || slices.Contains(got, "passing-2") {
		t.Errorf("environments %v, want the 31 that stand", got)
	}
}

// Environments that were deleted while the platform was down, or while a replica was in them, are released at the next
// start.
func TestEnvironmentsThatAreNotKeptAreReleased(t *testing.T) {
	needRoot(t)
	n := open(t, network.Config{})
	destroyAfter(t, n)
	attach(t, n, "kept", "blue")
	attach(t, n, "busy", "green")
	if _, _, err := n.Environment("red"); err != nil {
		t.Fatal(err)
	}
	keep := map[string]bool{"blue": true, "never seen": true}
	err := n.ReleaseOthers(keep)
	if err == nil || !strings.Contains(err.Error(), "environment green: replica busy is attached") || strings.Contains(err.Error(), "red") {
		t.Errorf("got %v, want an error that names green and its replica alone", err)
	}
	if got := n.Environments(); !slices.Equal(got, []string{"blue", "green"}) {
		t.Errorf("environments %v, want blue, which is kept, and green, which has a replica", got)
	}
	if err := n.Detach(t.Context(), "busy"); err != nil {
		t.Fatal(err)
	}
	if err := n.ReleaseOthers(keep); err != nil {
		t.Error(err)
	}
	if got := n.Environments(); !slices.Equal(got, []string{"blue"}) {
		t.Errorf("environments %v, want blue", got)
	}
}

// bridgeOf returns the device that has the address of a gateway.
func bridgeOf(t testing.TB, gateway netip.Addr) string {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range addrs {
			if addr.IP.String() == gateway.String() {
				return l.Attrs().Name
			}
		}
	}
	t.Fatalf("no device has the gateway %s", gateway)
	return ""
}

// tagOf returns the part of the names that an instance's devices and tables share. It reads it from the bridge of a
// replica.
func tagOf(t testing.TB, a network.Attachment) string {
	t.Helper()
	return bridgeOf(t, a.Gateway)[2:7]
}

// leftovers lists the devices, tables, mounts and files of an instance.
func leftovers(t testing.TB, tag, state string) []string {
	t.Helper()
	var found []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.Contains(l.Attrs().Name, tag) {
			found = append(found, "device "+l.Attrs().Name)
		}
	}
	nft, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := nft.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if strings.Contains(table.Name, tag) {
			found = append(found, "table "+table.Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, state) {
			found = append(found, "mount "+line)
		}
	}
	entries, err := os.ReadDir(state + "/netns")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		found = append(found, "file "+e.Name())
	}
	return found
}

// internet returns a listener in a namespace that the host reaches through a separate device, and that has no route
// back to the replicas' addresses.
func internet(t testing.TB) netip.AddrPort {
	t.Helper()
	const device = "tstinet0"
	here, there := netip.MustParsePrefix("203.0.113.1/30"), netip.MustParsePrefix("203.0.113.2/30")
	a := network.Attachment{Namespace: t.TempDir() + "/ns"}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			home, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer home.Close()
			if err := os.WriteFile(a.Namespace, nil, 0o600); err != nil {
				return err
			}
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			if err := unix.Mount("/proc/thread-self/ns/net", a.Namespace, "", unix.MS_BIND, ""); err != nil {
				return err
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "eth0"
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: device, PeerNamespace: netlink.NsFd(home.Fd())}); err != nil {
				return err
			}
			return up("eth0", there)
		}()
	}()
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(device); err == nil {
			netlink.LinkDel(l)
		}
		unix.Unmount(a.Namespace, unix.MNT_DETACH)
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := up(device, here); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/forwarding", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(there.Addr(), listen(t, &a, "0.0.0.0:0").Port())
}

func up(device string, address netip.Prefix) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(address.String())
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

func TestWrongConfigurationIsRefusedByName(t *testing.T) {
	tests := map[string]struct {
		change func(*network.Config)
		want   string
	}{
		"relative folder": {func(c *network.Config) { c.Dir = "data" }, `network dir: want an absolute path, got "data"`},
		"no instance":     {func(c *network.Config) { c.Instance = "" }, "network instance: want a name, got none"},
		"small range":     {func(c *network.Config) { c.Range = netip.MustParsePrefix("10.1.0.0/24") }, "network range: want an IPv4 /16, got 10.1.0.0/24"},
		"protocol": {func(c *network.Config) {
			c.Host, c.Services = netip.MustParseAddr("169.254.9.9"), []network.Service{{Protocol: "sctp", Port: 1, Local: 2}}
		}, `network service: want tcp or udp and ports from 1 to 65535, got "sctp", 1 and 2`},
		"services on loopback": {func(c *network.Config) {
			c.Host, c.Services = netip.MustParseAddr("127.0.0.1"), []network.Service{{Protocol: "tcp", Port: 1, Local: 2}}
		}, `network host: want an IPv4 address beyond loopback, got 127.0.0.1`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := network.Config{Dir: "/a", State: "/b", Instance: "x", Log: slog.New(slog.DiscardHandler)}
			test.change(&cfg)
			if _, err := network.Open(t.Context(), cfg); err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestDamagedPlanIsRefused(t *testing.T) {
	needRoot(t)
	for name, plan := range map[string]string{
		"not JSON":      "{",
		"other version": `{"Version":9}`,
		"wrong range":   `{"Version":1,"Range":"10.0.0.0/8","Environments":{}}`,
		"wrong place":   `{"Version":1,"Range":"10.9.0.0/16","Environments":{"blue":99}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(dir+"/network.json", []byte(plan), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := network.Config{Dir: dir, State: t.TempDir(), Instance: t.Name(), Log: slog.New(slog.DiscardHandler)}
			if n, err := network.Open(t.Context(), cfg); err == nil {
				destroyAfter(t, n)
				t.Error("opened with a damaged plan")
			}
		})
	}
}

func TestReplicaNamesThatAreNoFileNamesAreRefused(t *testing.T) {
	needRoot(t)
	n := open(t, network.Config{})
	destroyAfter(t, n)
	for _, name := range []string{"", "../up", "a/b", ".", "a b"} {
		if _, err := n.Attach(t.Context(), name, "blue"); err == nil {
			t.Errorf("attached %q", name)
		}
	}
}
