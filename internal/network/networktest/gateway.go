package networktest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Gateway is the default gateway of the test's network. To that network it looks like all the hosts behind it: it
// accepts packets to any address and forwards none.
type Gateway struct {
	do     chan func() // functions to run in the gateway's network namespace
	packet *os.File    // receives all incoming packets

	mu      sync.Mutex
	arrived map[netip.Addr]map[string]int // packets by destination and kind
}

// openGateway creates the gateway in its own network namespace, and the device that leads to it in the present one.
func openGateway(t *testing.T) (*Gateway, error) {
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	g := &Gateway{do: make(chan func()), arrived: map[netip.Addr]map[string]int{}}
	var wg sync.WaitGroup
	ready := make(chan error)
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: a thread in another namespace must end with its goroutine
		err := g.enter(home)
		ready <- err
		if err != nil {
			return
		}
		for f := range g.do {
			f()
		}
	})
	if err := <-ready; err != nil {
		return nil, err
	}
	wg.Go(g.count)
	t.Cleanup(func() {
		close(g.do)
		g.packet.Close()
		wg.Wait()
	})
	return g, nil
}

// enter moves the calling thread to a new network namespace and sets that up.
func (g *Gateway) enter(home *os.File) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("new network namespace: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: Device, PeerNamespace: netlink.NsFd(home.Fd())}); err != nil {
		return fmt.Errorf("add %s: %w", Device, err)
	}
	if err := up("eth0", nil, gateway); err != nil {
		return err
	}
	// All addresses belong to the gateway, so it accepts connections to any of them.
	every := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if err := up("lo", &netlink.Route{Dst: ipNet(every), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST}); err != nil {
		return err
	}
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	ip := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP)) // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	g.packet = os.NewFile(uintptr(fd), "packets")
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: device.Index}),
	); err != nil {
		return errors.Join(fmt.Errorf("packet socket: %w", err), g.packet.Close())
	}
	return nil
}

// count counts incoming packets until the socket is closed.
func (g *Gateway) count() {
	b := make([]byte, 1<<16)
	for {
		n, err := g.packet.Read(b)
		if err != nil {
			return
		}
		to, kind, ok := describe(b[:n])
		if !ok {
			continue
		}
		g.mu.Lock()
		if g.arrived[to] == nil {
			g.arrived[to] = map[string]int{}
		}
		g.arrived[to][kind]++
		g.mu.Unlock()
	}
}

// describe returns the destination and the kind of an IPv4 packet. The kind is "tcp:8080" for a packet to TCP port
// 8080, and "reset" for one that only resets a TCP connection.
func describe(p []byte) (to netip.Addr, kind string, ok bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return netip.Addr{}, "", false
	}
	to = netip.AddrFrom4([4]byte(p[16:20]))
	protocol, payload := p[9], p[min(len(p), 4*int(p[0]&15)):]
	const reset = 4 // RFC 9293, 3.1
	switch protocol {
	case unix.IPPROTO_TCP:
		if len(payload) >= 20 && payload[13]&reset != 0 {
			return to, "reset", true
		}
		kind = "tcp"
	case unix.IPPROTO_UDP:
		kind = "udp"
	case unix.IPPROTO_ICMP:
		return to, "icmp", true
	default:
		return to, "protocol " + strconv.Itoa(int(protocol)), true
	}
	if len(payload) >= 4 {
		kind += ":" + strconv.Itoa(int(binary.BigEndian.Uint16(payload[2:])))
	}
	return to, kind, true
}

// Arrived returns how many packets to addresses of p have arrived, by kind: {"tcp:8080": 3} means 3 packets to TCP port
// 8080.
func (g *Gateway) Arrived(p netip.Prefix) map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := map[string]int{}
	for to, kinds := range g.arrived {
		if p.Contains(to) {
			for kind, n := range kinds {
				all[kind] += n
			}
		}
	}
	return all
}

// Serve answers HTTP requests to a port of any address with h, until the test ends.
func (g *Gateway) Serve(t *testing.T, port int, h http.Handler) {
	t.Helper()
	var ln net.Listener
	var err error
	done := make(chan struct{})
	g.do <- func() {
		defer close(done)
		ln, err = net.Listen("tcp4", ":"+strconv.Itoa(port))
	}
	<-done
	if err != nil {
		t.Fatalf("gateway: %v", err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("gateway: %v", err)
		}
	})
	t.Cleanup(func() {
		s.Close()
		wg.Wait()
	})
}
