package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The catch-all is an unreachable route for the whole range of an instance. The bridges' routes are more specific and
// take precedence. If one of them is missing, because its bridge is deleted or down or somebody removed the route,
// senders get an error at once; otherwise the default gateway would get the packets.

// metric distinguishes the catch-all of this instance from that of another. It has no effect on precedence: the
// bridges' routes are more specific.
func (n *Network) metric() int {
	tag, err := strconv.ParseUint(n.tag, 16, 20)
	if err != nil {
		panic(fmt.Sprintf("network: tag %q is not of tagOf", n.tag))
	}
	return 1 + int(tag) // 0 would leave the choice to the kernel
}

func (n *Network) catchAll(p netip.Prefix) *netlink.Route {
	return &netlink.Route{
		Dst: ipNet(p), Type: unix.RTN_UNREACHABLE, Priority: n.metric(),
		// Sockets that send without a gateway (package direct) skip routes of a wider scope.
		Scope: unix.RT_SCOPE_LINK,
		// systemd-networkd removes routes that it does not know when it starts, except for those of the kernel.
		Protocol: unix.RTPROT_KERNEL,
	}
}

func isCatchAll(r netlink.Route, metric int) bool {
	return r.Type == unix.RTN_UNREACHABLE && r.Priority == metric
}

// addCatchAll adds the catch-all for the range, and removes that of a range that the instance had before.
func (n *Network) addCatchAll() error {
	if err := netlink.RouteReplace(n.catchAll(n.plan.Range)); err != nil {
		return fmt.Errorf("unreachable route for %s: %w", n.plan.Range, err)
	}
	return n.removeCatchAllsBut(n.plan.Range)
}

func (n *Network) removeCatchAlls() error { return n.removeCatchAllsBut(netip.Prefix{}) }

func (n *Network) removeCatchAllsBut(keep netip.Prefix) error {
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	var errs []error
	for _, r := range routes {
		if !isCatchAll(r, n.metric()) || r.Dst == nil {
			continue
		}
		p, err := netip.ParsePrefix(r.Dst.String())
		if err != nil || p == keep {
			continue
		}
		if err := netlink.RouteDel(n.catchAll(p)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove unreachable route for %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}
