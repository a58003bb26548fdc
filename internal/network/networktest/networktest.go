// Package networktest runs a test in a network of its own, whose only way out leads to the test itself. It is for tests
// whose packets would leave the machine if the product failed. Such a test can check what would have left.
package networktest

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// variable is the environment variable that names the test for which a process was started.
const variable = "PENSTOCK_NETWORKTEST"

// Device is the device of the default route in the test's network.
const Device = "uplink0"

// GatewayAddress is the address of the default gateway (RFC 5737).
var GatewayAddress = gateway.Addr()

// Addresses of the two ends of the link to the gateway.
var (
	gateway = netip.MustParsePrefix("192.0.2.1/24")
	machine = netip.MustParsePrefix("192.0.2.2/24")
)

// Run runs f in another process of the test binary, with its own network namespace and mount namespace. The network has
// loopback and a device to a default gateway, which the test controls. The test is skipped if it does not run as root.
func Run(t *testing.T, f func(t *testing.T, out *Gateway)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("missing: root, for network namespaces")
	}
	if os.Getenv(variable) == t.Name() {
		out, err := enter(t)
		if err != nil {
			t.Fatalf("network of the test: %v", err)
		}
		f(t, out)
		return
	}
	parts := strings.Split(t.Name(), "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	args := []string{"-test.v", "-test.count=1", "-test.run=" + strings.Join(parts, "/")}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(deadline).String())
	}
	var said strings.Builder
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.Stdout = io.MultiWriter(&said, t.Output())
	cmd.Stderr = cmd.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	cmd.WaitDelay = 10 * time.Second // in case the test leaves a program behind that holds the output open
	err := cmd.Run()
	switch {
	case err != nil:
		t.Fatalf("in a network of its own: %v", err)
	case strings.Contains(said.String(), "--- SKIP: "+t.Name()+" "):
		before, _, _ := strings.Cut(said.String(), "--- SKIP: "+t.Name()+" ")
		lines := strings.Split(strings.TrimSpace(before), "\n")
		_, reason, _ := strings.Cut(lines[len(lines)-1], ": ") // after the file and the line
		t.Skip(reason)
	case !strings.Contains(said.String(), "--- PASS: "+t.Name()+" "):
		t.Fatal("in a network of its own: the test did not run")
	}
}

// enter sets up the namespaces in which the process was started.
func enter(t *testing.T) (*Gateway, error) {
	// Network code reads /sys/class/net, which shows the network namespace of the process that mounted it. Cgroups stay
	// unchanged.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	cgroups := t.TempDir()
	for _, m := range []struct {
		from, to, kind string
		flags          uintptr
	}{
		{"/sys/fs/cgroup", cgroups, "", unix.MS_BIND | unix.MS_REC},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{cgroups, "/sys/fs/cgroup", "", unix.MS_BIND | unix.MS_REC},
	} {
		if err := unix.Mount(m.from, m.to, m.kind, m.flags, ""); err != nil {
			return nil, fmt.Errorf("mount %s on %s: %w", m.from, m.to, err)
		}
	}
	if err := unix.Unmount(cgroups, unix.MNT_DETACH); err != nil {
		return nil, fmt.Errorf("unmount %s: %w", cgroups, err)
	}
	g, err := openGateway(t)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if err := up("lo", nil); err != nil {
		return nil, err
	}
	return g, up(Device, &netlink.Route{Gw: gateway.Addr().AsSlice()}, machine)
}

// up sets a device up, with addresses and a route through it.
func up(device string, route *netlink.Route, addresses ...netip.Prefix) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	for _, a := range addresses {
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(a)}); err != nil {
			return fmt.Errorf("give %s %s: %w", device, a, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("up %s: %w", device, err)
	}
	if route == nil {
		return nil
	}
	route.LinkIndex = l.Attrs().Index
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("route through %s: %w", device, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
