package network

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

const (
	rangeBits = 16 // one instance
	// A /21 has 2,045 replicas beside its gateway, more than Container Apps' 1,000 replicas an app
	// (learn.microsoft.com/azure/container-apps/scale-app), and there are 32 of them.
	environmentBits  = 21
	planVersion      = 1
	environmentCount = 1 << (environmentBits - rangeBits)
	addressCount     = 1 << (32 - environmentBits)
)

// errFull is wrapped when an instance or an environment has no address left.
var errFull = errors.New("no address left")

// plan is what must stay the same over a reboot: an address that a client has seen should mean the same environment.
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

// save replaces the plan whole, so that a crash leaves the old or the new one.
func (p plan) save(path string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".network-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// choose settles the range: the one asked for, the one there was, or the first free one.
func (n *Network) choose(want netip.Prefix) error {
	taken, err := takenPrefixes(n.bridgePrefix())
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
		// Instances start looking at different places, so that two that are made at once do not meet.
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

// takenPrefixes lists what the machine routes or has, but for what the bridges of this instance have.
func takenPrefixes(own string) ([]netip.Prefix, error) {
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
		if r.Dst == nil || ours[r.LinkIndex] {
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

// place is an environment's place in the range; it gets one when it has none. The caller holds n.mu.
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

// subnet is the addresses of the environment at a place of the range.
func (p plan) subnet(place int) netip.Prefix {
	return netip.PrefixFrom(add(p.Range.Addr(), uint32(place)*addressCount), environmentBits)
}

// gatewayOf is the first address of a subnet.
func gatewayOf(subnet netip.Prefix) netip.Addr { return subnet.Addr().Next() }

func add(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}
