package network

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"

	"penstock/internal/atomicfile"
)

const (
	rangeBits = 16 // size of an instance
	// A /21 has room for 2,045 replicas in addition to its gateway, which is more than Container Apps' 1,000 replicas
	// per app (learn.microsoft.com/azure/container-apps/scale-app). A range has room for 32 of them.
	environmentBits  = 21
	planVersion      = 1
	environmentCount = 1 << (environmentBits - rangeBits)
	addressCount     = 1 << (32 - environmentBits)
)

// errFull is wrapped when an instance or an environment has no address left.
var errFull = errors.New("no address left")

// plan is the part of the state that must survive a reboot: an address that a client has seen should still belong to
// the same environment.
type plan struct {
	Version      int
	Range        netip.Prefix
	Environments map[string]int // place in the range, by the environment's key
}

func loadPlan(path string) (plan, error) {
	p := plan{Version: planVersion, Environments: map[string]int{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	if p.Version != planVersion {
		return p, fmt.Errorf("%s: want version %d, got %d", path, planVersion, p.Version)
	}
	if !p.Range.Addr().Is4() || p.Range.Bits() != rangeBits {
		return p, fmt.Errorf("%s: range: want an IPv4 /%d, got %s", path, rangeBits, p.Range)
	}
	for key, place := range p.Environments {
		if place < 0 || place >= environmentCount {
			return p, fmt.Errorf("%s: environment %s: want a place from 0 to %d, got %d", path, key, environmentCount-1, place)
		}
	}
	return p, nil
}

// save replaces the plan's file in one step, so a crash leaves either the old plan or the new one.
func (p plan) save(path string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, b, 0o600)
}

// choose selects the range: the requested one, the previous one, or the first free one.
func (n *Network) choose(want netip.Prefix) error {
	taken, err := takenPrefixes(n.bridgePrefix(), n.metric())
	if err != nil {
		return err
	}
	overlaps := func(p netip.Prefix) (netip.Prefix, bool) {
		for _, t := range taken {
			if t.Bits() > 0 && t.Overlaps(p) {
				return t, true
			}
		}
		return netip.Prefix{}, false
	}
	if want.IsValid() && n.plan.Range.IsValid() && n.plan.Range != want.Masked() && len(n.plan.Environments) > 0 {
		return fmt.Errorf("range: this instance uses %s for %d environments and cannot change to %s", n.plan.Range, len(n.plan.Environments), want)
	}
	if want.IsValid() {
		n.plan.Range = want.Masked()
	}
	if n.plan.Range.IsValid() {
		if t, yes := overlaps(n.plan.Range); yes {
			if want.IsValid() || len(n.plan.Environments) > 0 {
				return fmt.Errorf("range %s: the machine has %s already; choose another", n.plan.Range, t)
			}
			n.plan.Range = netip.Prefix{}
		}
	}
	if !n.plan.Range.IsValid() {
		// Instances start searching at different places, so two that are created at once do not collide.
		var start uint32
		fmt.Sscanf(n.tag, "%x", &start)
		for i := range uint32(256) {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(start + i), 0, 0}), rangeBits)
			if _, yes := overlaps(p); !yes {
				n.plan.Range = p
				break
			}
		}
	}
	if !n.plan.Range.IsValid() {
		return errors.New("range: every /16 of 10.0.0.0/8 overlaps an address or a route of this machine; name one")
	}
	return n.plan.save(n.planPath())
}

// takenPrefixes lists the machine's routes and addresses, except those of this instance: its bridges, whose names start
// with own, and its catch-all route, which has the given metric.
func takenPrefixes(own string, metric int) ([]netip.Prefix, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	ours := map[int]bool{}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, own) {
			ours[l.Attrs().Index] = true
		}
	}
	var taken []netip.Prefix
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || ours[r.LinkIndex] || isCatchAll(r, metric) {
			continue
		}
		if p, err := netip.ParsePrefix(r.Dst.String()); err == nil {
			taken = append(taken, p.Masked())
		}
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if ours[a.LinkIndex] {
			continue
		}
		if p, err := netip.ParsePrefix(a.IPNet.String()); err == nil {
			taken = append(taken, p.Masked())
		}
	}
	return taken, nil
}

// place returns an environment's place in the range and assigns one if it has none. The caller holds n.mu.
func (n *Network) place(key string) (int, error) {
	if place, ok := n.plan.Environments[key]; ok {
		return place, nil
	}
	used := map[int]bool{}
	for _, place := range n.plan.Environments {
		used[place] = true
	}
	for place := range environmentCount {
		if used[place] {
			continue
		}
		n.plan.Environments[key] = place
		if err := n.plan.save(n.planPath()); err != nil {
			delete(n.plan.Environments, key)
			return 0, err
		}
		return place, nil
	}
	return 0, fmt.Errorf("environment %s: %s holds %d environments: %w", key, n.plan.Range, environmentCount, errFull)
}

// subnet returns the addresses of the environment at a place in the range.
func (p plan) subnet(place int) netip.Prefix {
	return netip.PrefixFrom(add(p.Range.Addr(), uint32(place)*addressCount), environmentBits)
}

// gatewayOf returns the first address of a subnet.
func gatewayOf(subnet netip.Prefix) netip.Addr { return subnet.Addr().Next() }

func add(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}
