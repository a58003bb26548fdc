package network

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// uplink is the device of the default route.
type uplink struct {
	name string // "" if the machine has no default route
	mtu  int
}

func findUplink() (uplink, error) {
	const ethernet = 1500
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return uplink{}, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		l, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			continue // it was removed between the two calls
		}
		// Replicas' packets leave through this device. A smaller MTU would fragment them, and a larger one could lose
		// them silently.
		return uplink{name: l.Attrs().Name, mtu: l.Attrs().MTU}, nil
	}
	return uplink{mtu: ethernet}, nil
}

func (n *Network) bridgeName(environment string) string {
	return fmt.Sprintf("%s%02x", n.bridgePrefix(), n.plan.Environments[environment])
}

// bridgeUp creates the bridge of an environment that has a place in the range, or repairs the existing one.
func (n *Network) bridgeUp(environment string) error {
	name := n.bridgeName(environment)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, n.uplink.mtu
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add: %w", err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find: %w", err)
	}
	// Set before it is up, so that it never has a link-local address through which the host could be reached.
	for key, value := range map[string]string{
		"net/ipv6/conf/" + name + "/disable_ipv6": "1",
		"net/ipv4/conf/" + name + "/forwarding":   "1",
	} {
		if err := setSysctl(key, value); err != nil {
			return err
		}
	}
	if n.uplink.name != "" {
		if err := setSysctl("net/ipv4/conf/"+n.uplink.name+"/forwarding", "1"); err != nil {
			return err
		}
	}
	subnet := n.plan.subnet(n.plan.Environments[environment])
	gateway := gatewayOf(subnet)
	// A bridge without an address of its own takes the lowest address of its ports, so it may change whenever a replica
	// is added or removed. The others would then send to the old address until their neighbour entries expire, which
	// takes seconds.
	if own := hardwareAddress(gateway); !bytes.Equal(l.Attrs().HardwareAddr, own) {
		if err := netlink.LinkSetHardwareAddr(l, own); err != nil {
			return fmt.Errorf("give it %s: %w", own, err)
		}
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(gateway, environmentBits))}
	if err := netlink.AddrReplace(l, addr); err != nil {
		return fmt.Errorf("give it %s: %w", addr.IPNet, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	n.bridged[environment] = true
	return nil
}

// addHostAddress adds an address to the machine. It is on loopback, so it depends on no other device, and has host
// scope, so no packet leaves the machine with it as its source.
func addHostAddress(a netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.AddrReplace(lo, hostAddress(a)); err != nil {
		return fmt.Errorf("give lo %s: %w", a, err)
	}
	return nil
}

func removeHostAddress(a netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.AddrDel(lo, hostAddress(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take %s from lo: %w", a, err)
	}
	return nil
}

func hostAddress(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, 32)), Scope: unix.RT_SCOPE_HOST}
}

// cable is a veth pair between a new network namespace and a bridge.
type cable struct {
	namespace string // path
	host      string // device on the host
	bridge    string
	address   netip.Prefix
	gateway   netip.Addr
	mtu       int
}

// plugNamespace creates the namespace and both ends of the cable.
func plugNamespace(c cable) error {
	done := make(chan error, 1)
	// A thread that has entered another namespace must not run other goroutines. It stays locked, so it ends with its
	// goroutine.
	go func() {
		runtime.LockOSThread()
		done <- c.inNewNamespace()
	}()
	if err := <-done; err != nil {
		return err
	}
	host, err := netlink.LinkByName(c.host)
	if err != nil {
		return fmt.Errorf("find %s: %w", c.host, err)
	}
	bridge, err := netlink.LinkByName(c.bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", c.bridge, err)
	}
	if err := plugIn(host, bridge); err != nil {
		return err
	}
	return waitForwarding(c.host)
}

// plugIn makes a replica's device a port of a bridge.
func plugIn(host, bridge netlink.Link) error {
	name := host.Attrs().Name
	if err := setSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if err := netlink.LinkSetMasterByIndex(host, bridge.Attrs().Index); err != nil {
		return fmt.Errorf("plug %s into %s: %w", name, bridge.Attrs().Name, err)
	}
	// Isolated ports of a bridge cannot reach each other, whatever net.bridge.bridge-nf-call-iptables says. The gateway
	// is not a port.
	if err := netlink.LinkSetIsolated(host, true); err != nil {
		return fmt.Errorf("isolate %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("up %s: %w", name, err)
	}
	return nil
}

// waitForwarding waits until the bridge forwards what arrives at a port. The kernel enables this a moment after the
// port is up, and a packet that is lost before that costs its sender a second.
func waitForwarding(port string) error {
	const forwarding = "3" // BR_STATE_FORWARDING, linux/if_bridge.h
	deadline := time.Now().Add(2 * time.Second)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		state, err := os.ReadFile(filepath.Join("/sys/class/net", port, "brport/state"))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(state)) == forwarding {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: its bridge does not forward (state %s)", port, strings.TrimSpace(string(state)))
		}
		time.Sleep(pause)
	}
}

func (c cable) inNewNamespace() error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("new network namespace: %w", err)
	}
	f, err := os.OpenFile(c.namespace, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := unix.Mount("/proc/thread-self/ns/net", c.namespace, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount network namespace: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "eth0", c.mtu
	attrs.HardwareAddr = hardwareAddress(c.address.Addr())
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: c.host, PeerNamespace: netlink.NsFd(home.Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth %s: %w", c.host, err)
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find eth0: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	for key, value := range map[string]string{
		// The namespace belongs to the host, so root in a container cannot change this setting for low ports.
		"net/ipv4/ip_unprivileged_port_start": "0",
		"net/ipv6/conf/eth0/disable_ipv6":     "1",
	} {
		if err := setSysctl(key, value); err != nil {
			return err
		}
	}
	if err := netlink.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(c.address)}); err != nil {
		return fmt.Errorf("give eth0 %s: %w", c.address, err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("up lo: %w", err)
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("up eth0: %w", err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: c.gateway.AsSlice()}); err != nil {
		return fmt.Errorf("default route by %s: %w", c.gateway, err)
	}
	return nil
}

// hardwareAddress depends only on the address. The host caches the mapping for half a minute and would otherwise send
// packets for the next owner of an address to a device that no longer exists.
func hardwareAddress(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return append(net.HardwareAddr{0x02, 0x70}, b[:]...) // 02: locally administered
}

// removeLink removes a device. If it is one end of a veth pair, the other end is removed too.
func removeLink(name string) error {
	l, err := netlink.LinkByName(name)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// removeLinks removes all devices whose names start with prefix, except those for which keep returns true.
func removeLinks(prefix string, keep func(device string) bool) error {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, prefix) && !keep(l.Attrs().Name) {
			errs = append(errs, removeLink(l.Attrs().Name))
		}
	}
	return errors.Join(errs...)
}

// whole repeats a listing if the kernel reports that the list changed while it was read (Linux, NLM_F_DUMP_INTR).
func whole[T any](list func() ([]T, error)) ([]T, error) {
	const tries = 50 // a machine on which another engine starts many containers changes its links all the time
	for range tries - 1 {
		if all, err := list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return list()
}

func linkExists(name string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/net", name))
	return err == nil
}

// setSysctl sets a value in the network namespace of the current thread. It skips IPv6 settings if the kernel has no
// IPv6.
func setSysctl(key, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(key, "net/ipv6/") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set %s to %s: %w", strings.ReplaceAll(key, "/", "."), value, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
