package network

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Service is a port on every gateway that replicas can reach. Traffic to it is redirected to Host and Local.
type Service struct {
	Protocol string // "tcp" or "udp"
	Port     uint16 // on the gateway
	Local    uint16 // on Config.Host
}

// Config says where a Network stores its state and what its replicas can reach.
type Config struct {
	// Dir keeps the address range and the environments' places in it across reboots.
	Dir string
	// State holds the network namespaces. A reboot can empty it, because it also ends them.
	State string
	// Instance distinguishes this platform's bridges, rules and addresses from those of another one on the machine.
	Instance string
	// Range is the /16 to use. With the zero value, a free one in 10.0.0.0/8 is chosen and kept.
	Range netip.Prefix
	// Host is the address that services listen on. It belongs to the machine and to no network; Open adds it to the
	// machine. The zero value is for no services.
	Host netip.Addr
	// Services lists what replicas can reach on their gateway: the ingress and the resolver.
	Services []Service
	// Exposed is the port on Host to which traffic for exposed ports of gateways is redirected; 0 means that no port
	// can be exposed.
	Exposed uint16
	// LinkLocal lets replicas reach link-local addresses beyond the machine, such as a cloud's metadata service.
	LinkLocal bool
	Log       *slog.Logger
}

func (c Config) validate() error {
	var errs []error
	for name, dir := range map[string]string{"dir": c.Dir, "state": c.State} {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("network %s: want an absolute path, got %q", name, dir))
		}
	}
	if c.Instance == "" {
		errs = append(errs, errors.New("network instance: want a name, got none"))
	}
	if c.Range.IsValid() && (!c.Range.Addr().Is4() || c.Range.Bits() != rangeBits) {
		errs = append(errs, fmt.Errorf("network range: want an IPv4 /%d, got %s", rangeBits, c.Range))
	}
	for _, s := range c.Services {
		if s.Port == 0 || s.Local == 0 || (s.Protocol != "tcp" && s.Protocol != "udp") {
			errs = append(errs, fmt.Errorf("network service: want tcp or udp and ports from 1 to 65535, got %q, %d and %d", s.Protocol, s.Port, s.Local))
		}
	}
	if (len(c.Services) > 0 || c.Exposed != 0) && (!c.Host.Is4() || c.Host.IsUnspecified() || c.Host.IsLoopback()) {
		// Loopback would need net.ipv4.conf.*.route_localnet, which opens all of the host's loopback to replicas.
		errs = append(errs, fmt.Errorf("network host: want an IPv4 address beyond loopback, got %s", c.Host))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("network log: want a logger, got none"))
	}
	return errors.Join(errs...)
}

// Network creates and removes the networks of replicas. Its methods can be called concurrently.
type Network struct {
	log    *slog.Logger
	dir    string
	netns  string // folder of the network namespaces
	host   netip.Addr
	tag    string // part of the names of this instance's devices and tables
	uplink uplink

	mu       sync.Mutex
	plan     plan
	bridged  map[string]bool       // environments whose bridge is up
	attached map[string]Attachment // by replica
	used     map[netip.Addr]bool
	plugged  map[string]bool // replicas whose devices are in place

	rules     ruleSet
	counts    map[string]int   // of the rules of each chain, as they were installed
	exposed   []netip.AddrPort // nil: as the table has them, because nobody has said otherwise yet
	destroyed bool
}

// Open brings up the bridges and rules of an instance and finds the attached replicas.
func Open(ctx context.Context, cfg Config) (*Network, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Network{
		log:      cfg.Log,
		dir:      cfg.Dir,
		netns:    filepath.Join(cfg.State, "netns"),
		host:     cfg.Host,
		tag:      tagOf(cfg.Instance),
		bridged:  map[string]bool{},
		attached: map[string]Attachment{},
		used:     map[netip.Addr]bool{},
		plugged:  map[string]bool{},
	}
	for _, dir := range []string{n.dir, n.netns} {
		// 0711: a container's root, which has no rights on the host, must be able to walk through it.
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("open network: %w", err)
		}
	}
	var err error
	if n.uplink, err = findUplink(); err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	if n.plan, err = loadPlan(n.planPath()); err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	if err := n.choose(cfg.Range); err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	// The protection comes first: replicas can be reached only after Open.
	if err := n.addCatchAll(); err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	n.rules = ruleSet{n.table(), n.bridgePrefix(), n.plan.Range, n.host, cfg.Services, cfg.Exposed, cfg.LinkLocal}
	if n.counts, err = installRules(n.rules, nil); err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	for key := range n.plan.Environments {
		if err := n.bridgeUp(key); err != nil {
			return nil, fmt.Errorf("open network: bridge of %s: %w", key, err)
		}
	}
	if n.host.IsValid() {
		if err := addHostAddress(n.host); err != nil {
			return nil, fmt.Errorf("open network: %w", err)
		}
	}
	foreign, err := droppingChains(n.table())
	if err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	for _, chain := range foreign {
		n.log.Warn("another firewall drops what it does not know, so replicas may not reach the internet or the ingress",
			"chain", chain, "accept", n.bridgePrefix()+"*")
	}
	if err := n.adopt(ctx); err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	return n, nil
}

// Range returns the range of all addresses of this instance.
func (n *Network) Range() netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.plan.Range
}

// Environment returns the address range of an environment's replicas and the gateway, on which they reach the services.
// It assigns the environment a place in the range if it has none yet.
func (n *Network) Environment(environment string) (addresses netip.Prefix, gateway netip.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	place, err := n.place(environment)
	if err != nil {
		return netip.Prefix{}, netip.Addr{}, err
	}
	addresses = n.plan.subnet(place)
	return addresses, gatewayOf(addresses), nil
}

// Gateway returns the gateway of an environment, as an address that the machine has.
func (n *Network) Gateway(environment string) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	place, err := n.place(environment)
	if err != nil {
		return netip.Addr{}, err
	}
	if !n.bridged[environment] {
		if err := n.bridgeUp(environment); err != nil {
			return netip.Addr{}, fmt.Errorf("bridge of %s: %w", environment, err)
		}
	}
	return gatewayOf(n.plan.subnet(place)), nil
}

// Environments lists the environments that have a place in the range.
func (n *Network) Environments() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.plan.Environments))
}

// Release frees the place of a deleted environment for another one. It fails while a replica is attached. It is not an
// error if the environment has no place.
func (n *Network) Release(environment string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	place, ok := n.plan.Environments[environment]
	if !ok {
		return nil
	}
	for replica, a := range n.attached {
		if a.Environment == environment {
			return fmt.Errorf("release environment %s: replica %s is attached", environment, replica)
		}
	}
	if err := removeLink(n.bridgeName(environment)); err != nil {
		return fmt.Errorf("release environment %s: %w", environment, err)
	}
	delete(n.bridged, environment)
	delete(n.plan.Environments, environment)
	if err := n.plan.save(n.planPath()); err != nil {
		n.plan.Environments[environment] = place // the file still has it
		return fmt.Errorf("release environment %s: %w", environment, err)
	}
	return nil
}

// ReleaseOthers releases all environments whose keys are not in keep, as far as possible. Its error names those that
// have a replica attached.
func (n *Network) ReleaseOthers(keep map[string]bool) error {
	var errs []error
	for _, environment := range n.Environments() {
		if !keep[environment] {
			errs = append(errs, n.Release(environment))
		}
	}
	return errors.Join(errs...)
}

// Expose sets the ports that replicas can reach on their gateways in addition to the services. Each is the address of a
// gateway and a port on it. The rules do not change, so the cost does not depend on the number of environments.
func (n *Network) Expose(ports []netip.AddrPort) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exposed = append([]netip.AddrPort{}, ports...)
	return setExposed(n.table(), ports)
}

// Destroy removes every namespace, bridge, rule and route of the instance, and its plan.
func (n *Network) Destroy(ctx context.Context) error {
	n.mu.Lock()
	n.destroyed = true // so that nothing is put back
	names := make([]string, 0, len(n.attached))
	for name := range n.attached {
		names = append(names, name)
	}
	n.mu.Unlock()
	var errs []error
	for _, name := range names {
		errs = append(errs, n.Detach(ctx, name))
	}
	none := func(string) bool { return false }
	errs = append(errs, removeLinks(n.bridgePrefix(), none), removeRules(n.table()), n.removeCatchAlls())
	if n.host.IsValid() {
		errs = append(errs, removeHostAddress(n.host))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("destroy network: %w", err)
	}
	if err := os.RemoveAll(n.planPath()); err != nil {
		return fmt.Errorf("destroy network: %w", err)
	}
	return nil
}

func (n *Network) planPath() string { return filepath.Join(n.dir, "network.json") }
func (n *Network) table() string    { return "penstock_" + n.tag }

// A device's name has at most 15 bytes: "ps", 5 of the instance, one letter, and 4 of the address.
func (n *Network) bridgePrefix() string { return "ps" + n.tag + "b" }
func (n *Network) vethPrefix() string   { return "ps" + n.tag + "v" }

// tagOf shortens an instance's name so that it fits into the name of a device.
func tagOf(instance string) string {
	h := fnv.New32a()
	h.Write([]byte(instance))
	return fmt.Sprintf("%05x", h.Sum32()&0xfffff)
}
