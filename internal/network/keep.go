package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// keepEvery is how often everything is looked at, in case a message of the kernel was lost.
	keepEvery = 10 * time.Second
	// keepPause is the shortest time between two looks. Each start of a replica changes devices.
	keepPause = 250 * time.Millisecond
)

// Keep puts back at once what somebody takes away while it runs: rules (Debian's nftables.service flushes all of them
// when it is reloaded), routes, bridges with their addresses, and the replicas' place in their bridge. told is called
// for each thing that was put back; environment is "" if it concerns all of them.
func (n *Network) Keep(ctx context.Context, told func(environment, what string)) {
	changed := make(chan struct{}, 1)
	var listeners sync.WaitGroup
	defer listeners.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listeners.Go(func() {
		n.listen(ctx, changed, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE)
	})
	listeners.Go(func() { n.listen(ctx, changed, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES) })
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
		if err := n.mend(told); err != nil {
			n.log.Error("the network of replicas cannot be put back in order; trying again", "in", keepEvery, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(keepPause):
		}
	}
}

// listen pokes changed for each message of a group of the kernel. What a message says does not matter: everything is
// looked at.
func (n *Network) listen(ctx context.Context, changed chan<- struct{}, protocol int, groups ...uint) {
	for ctx.Err() == nil {
		s, err := nl.Subscribe(protocol, groups...)
		if err == nil {
			stop := context.AfterFunc(ctx, s.Close)
			for err == nil {
				_, _, err = s.Receive()
				if errors.Is(err, unix.ENOBUFS) {
					err = nil // messages were lost
				}
				select {
				case changed <- struct{}{}:
				default:
				}
			}
			if stop() {
				s.Close()
			}
		}
		if ctx.Err() != nil {
			return
		}
		n.log.Warn("changes of the machine's network are not told; looking from time to time", "every", keepEvery, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(keepEvery):
		}
	}
}

// machine is what the kernel has.
type machine struct {
	links  []netlink.Link
	addrs  []netlink.Addr
	routes []netlink.Route
}

func look() (m machine, err error) {
	if m.links, err = whole(netlink.LinkList); err != nil {
		return m, fmt.Errorf("list links: %w", err)
	}
	if m.addrs, err = whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) }); err != nil {
		return m, fmt.Errorf("list addresses: %w", err)
	}
	if m.routes, err = whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) }); err != nil {
		return m, fmt.Errorf("list routes: %w", err)
	}
	return m, nil
}

func (m machine) link(is func(netlink.Link) bool) netlink.Link {
	if i := slices.IndexFunc(m.links, is); i >= 0 {
		return m.links[i]
	}
	return nil
}

func (m machine) named(name string) netlink.Link {
	return m.link(func(l netlink.Link) bool { return l.Attrs().Name == name })
}

func (m machine) has(link netlink.Link, p netip.Prefix) bool {
	return slices.ContainsFunc(m.addrs, func(a netlink.Addr) bool {
		return a.LinkIndex == link.Attrs().Index && a.IPNet.String() == p.String()
	})
}

// mend puts back what is missing.
func (n *Network) mend(told func(environment, what string)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.destroyed {
		return nil
	}
	var errs []error
	put := func(environment, what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
			return
		}
		told(environment, what)
	}
	complete, err := rulesComplete(n.rules.table, n.counts)
	if err != nil {
		return err
	}
	if !complete {
		var err error
		n.counts, err = installRules(n.rules, n.exposed)
		put("", "the firewall table "+n.rules.table, err)
	}
	m, err := look()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(m.routes, func(r netlink.Route) bool {
		return isCatchAll(r, n.metric()) && r.Dst != nil && r.Dst.String() == n.plan.Range.String()
	}) {
		put("", fmt.Sprintf("the unreachable route for %s", n.plan.Range), n.addCatchAll())
	}
	if lo := m.named("lo"); n.host.IsValid() && lo != nil && !m.has(lo, netip.PrefixFrom(n.host, 32)) {
		put("", fmt.Sprintf("the address %s of the ingress", n.host), addHostAddress(n.host))
	}
	for environment := range n.bridged {
		if lacks := n.bridgeLacks(m, environment); lacks != "" {
			put(environment, fmt.Sprintf("the bridge %s, which %s", n.bridgeName(environment), lacks), n.mendBridge(m, environment))
		}
	}
	errs = append(errs, n.mendCables(told))
	return errors.Join(errs...)
}

// bridgeLacks says what an environment's bridge lacks, or "".
func (n *Network) bridgeLacks(m machine, environment string) string {
	subnet := n.plan.subnet(n.plan.Environments[environment])
	gateway := gatewayOf(subnet)
	l := m.named(n.bridgeName(environment))
	switch {
	case l == nil && n.renamed(m, gateway) != nil:
		return "had another name"
	case l == nil:
		return "was deleted"
	case l.Type() != "bridge":
		return "was a device of another kind"
	case l.Attrs().Flags&net.FlagUp == 0:
		return "was down"
	case !bytes.Equal(l.Attrs().HardwareAddr, hardwareAddress(gateway)):
		return "had another hardware address"
	case !m.has(l, netip.PrefixFrom(gateway, environmentBits)):
		return "had no address"
	case !slices.ContainsFunc(m.routes, func(r netlink.Route) bool {
		return r.LinkIndex == l.Attrs().Index && r.Dst != nil && r.Dst.String() == subnet.String()
	}):
		return "had no route"
	}
	return ""
}

// renamed finds a bridge that has the hardware address of an environment's and another name.
func (n *Network) renamed(m machine, gateway netip.Addr) netlink.Link {
	return m.link(func(l netlink.Link) bool {
		return l.Type() == "bridge" && bytes.Equal(l.Attrs().HardwareAddr, hardwareAddress(gateway)) && !strings.HasPrefix(l.Attrs().Name, n.bridgePrefix())
	})
}

func (n *Network) mendBridge(m machine, environment string) error {
	name := n.bridgeName(environment)
	subnet := n.plan.subnet(n.plan.Environments[environment])
	gateway := gatewayOf(subnet)
	switch l := m.named(name); {
	case l != nil && l.Type() != "bridge":
		if err := netlink.LinkDel(l); err != nil {
			return fmt.Errorf("remove what has its name: %w", err)
		}
	case l == nil:
		if other := n.renamed(m, gateway); other != nil {
			if err := errors.Join(netlink.LinkSetDown(other), netlink.LinkSetName(other, name)); err != nil {
				return fmt.Errorf("rename %s: %w", other.Attrs().Name, err)
			}
		}
	}
	if err := n.bridgeUp(environment); err != nil {
		return err
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find it: %w", err)
	}
	// The kernel adds the route with the address or when the bridge comes up. This adds one that was removed.
	err = netlink.RouteReplace(&netlink.Route{
		LinkIndex: l.Attrs().Index, Dst: ipNet(subnet), Src: gateway.AsSlice(), Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_KERNEL,
	})
	if err != nil {
		return fmt.Errorf("route for %s: %w", subnet, err)
	}
	return nil
}

// mendCables puts replicas that have lost their place in the bridge back into it. The caller holds n.mu.
func (n *Network) mendCables(told func(environment, what string)) error {
	links, err := whole(netlink.LinkList) // as they are after the bridges were mended
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	m := machine{links: links}
	var errs []error
	back := map[string]int{}
	for replica := range n.plugged {
		a := n.attached[replica]
		bridge, l := m.named(n.bridgeName(a.Environment)), m.named(n.vethName(a.Address))
		if bridge == nil || l == nil || l.Attrs().MasterIndex == bridge.Attrs().Index && l.Attrs().Flags&net.FlagUp != 0 {
			continue
		}
		if err := plugIn(l, bridge); err != nil {
			errs = append(errs, fmt.Errorf("replica %s: %w", replica, err))
			continue
		}
		back[a.Environment]++
	}
	for environment, replicas := range back {
		told(environment, fmt.Sprintf("the connection of %d replicas to the bridge %s", replicas, n.bridgeName(environment)))
	}
	return errors.Join(errs...)
}
