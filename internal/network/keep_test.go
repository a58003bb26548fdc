package network_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"penstock/internal/network"
	"penstock/internal/network/networktest"
)

// What somebody takes away from the network of replicas is put back at once, and told.
func TestWhatIsTakenAwayIsPutBack(t *testing.T) {
	networktest.Run(t, func(t *testing.T, _ *networktest.Gateway) {
		host := netip.MustParseAddr("169.254.77.56")
		service := listen(t, nil, host.String()+":0")
		n := open(t, network.Config{Host: host, Services: []network.Service{{Protocol: "tcp", Port: 80, Local: service.Port()}}})
		destroyAfter(t, n)
		a, b := attach(t, n, "a", "blue"), attach(t, n, "b", "green")
		gateway := netip.AddrPortFrom(a.Gateway, 80)
		said := &telling{}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); n.Keep(ctx, said.add) }()
		defer func() { stop(); <-ended }()

		for _, fault := range []struct {
			what, want string
			do         func(bridge netlink.Link) error
		}{
			{"all rules are flushed", ": the firewall table penstock_", func(netlink.Link) error { return flush(func(c *nftables.Conn, _ *nftables.Table) { c.FlushRuleset() }) }},
			{"the table is flushed", ": the firewall table penstock_", func(netlink.Link) error { return flush((*nftables.Conn).FlushTable) }},
			{"the table is deleted", ": the firewall table penstock_", func(netlink.Link) error { return flush((*nftables.Conn).DelTable) }},
			{"the bridge is deleted", "blue: the bridge NAME, which was deleted", netlink.LinkDel},
			{"the bridge is down", "blue: the bridge NAME, which was down", netlink.LinkSetDown},
			{"the bridge is renamed", "blue: the bridge NAME, which had another name", func(l netlink.Link) error {
				if err := netlink.LinkSetDown(l); err != nil {
					return err
				}
				return netlink.LinkSetName(l, "renamed0")
			}},
			{"the bridge has no address", "blue: the bridge NAME, which had no address", func(l netlink.Link) error {
				return netlink.AddrDel(l, &netlink.Addr{IPNet: prefix(a.Gateway, 21)})
			}},
			{"the bridge has no route", "blue: the bridge NAME, which had no route", func(l netlink.Link) error {
				return netlink.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: prefix(netip.PrefixFrom(a.Gateway, 21).Masked().Addr(), 21), Scope: unix.RT_SCOPE_LINK})
			}},
			{"a replica is unplugged", "blue: the connection of 1 replicas to the bridge NAME", func(l netlink.Link) error {
				return unplugAll(l.Attrs().Index)
			}},
			{"the unreachable route is removed", ": the unreachable route for 10.", func(netlink.Link) error {
				routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Type: unix.RTN_UNREACHABLE}, netlink.RT_FILTER_TYPE)
				if err == nil && len(routes) != 1 {
					err = fmt.Errorf("unreachable routes %v, want one", routes)
				}
				if err != nil {
					return err
				}
				return netlink.RouteDel(&routes[0])
			}},
			{"the ingress has no address", ": the address 169.254.77.56 of the ingress", func(netlink.Link) error {
				lo, err := netlink.LinkByName("lo")
				if err != nil {
					return err
				}
				return netlink.AddrDel(lo, &netlink.Addr{IPNet: prefix(host, 32)})
			}},
		} {
			t.Run(fault.what, func(t *testing.T) {
				bridge := bridgeWith(t, a.Gateway)
				want := strings.ReplaceAll(fault.want, "NAME", bridge.Attrs().Name)
				said.clear()
				began := time.Now()
				if err := fault.do(bridge); err != nil {
					t.Fatal(err)
				}
				for deadline := began.Add(time.Minute); !said.has(want); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("not told: %q; told was %q", want, said.all())
					}
				}
				t.Logf("told after %s", time.Since(began).Round(time.Millisecond))
				// A second fault of the same look may be mended a moment later.
				for deadline := began.Add(time.Minute); dial(t, a, gateway) != nil; time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("a replica does not reach the ingress again")
					}
				}
				if err := dial(t, a, netip.AddrPortFrom(b.Address, 80)); err == nil {
					t.Error("a replica reaches another environment")
				}
				if _, err := netlink.LinkByName("renamed0"); err == nil {
					t.Error("there is a second bridge")
				}
			})
		}
		stop()
		<-ended
		if err := n.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What the network itself removes is not put back.
func TestADestroyedNetworkStaysSo(t *testing.T) {
	networktest.Run(t, func(t *testing.T, _ *networktest.Gateway) {
		n := open(t, network.Config{})
		attach(t, n, "a", "blue")
		said := &telling{}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); n.Keep(ctx, said.add) }()
		if err := n.Detach(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if err := n.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
		// Keep looks at least once more: it is told of what Destroy removed.
		time.Sleep(time.Second)
		stop()
		<-ended
		if all := said.all(); len(all) != 0 {
			t.Errorf("put back: %q", all)
		}
		links, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if l.Type() == "bridge" {
				t.Errorf("there is the bridge %s", l.Attrs().Name)
			}
		}
	})
}

// telling collects what Keep told.
type telling struct {
	mu   sync.Mutex
	said []string
}

func (s *telling) add(environment, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, fmt.Sprintf("%s: %s", environment, what))
}

func (s *telling) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.said...)
}

func (s *telling) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = nil
}

func (s *telling) has(start string) bool {
	for _, said := range s.all() {
		if strings.HasPrefix(said, start) {
			return true
		}
	}
	return false
}

// flush does something to the only table.
func flush(do func(*nftables.Conn, *nftables.Table)) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := c.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		do(c, t)
	}
	return c.Flush()
}

// unplugAll takes all ports out of a bridge.
func unplugAll(bridge int) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == bridge {
			if err := netlink.LinkSetNoMaster(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func bridgeWith(t *testing.T, gateway netip.Addr) netlink.Link {
	t.Helper()
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if a.IP.String() == gateway.String() {
			l, err := netlink.LinkByIndex(a.LinkIndex)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
	}
	t.Fatalf("no device has %s", gateway)
	return nil
}

func prefix(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}
