package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// Attachment is a replica's place in the network.
type Attachment struct {
	Environment string
	Address     netip.Addr
	Gateway     netip.Addr
	// Namespace is the path of the network namespace.
	Namespace string
}

// A replica's name is a file's name here. It is checked because it may come from a client of the API.
var replicaName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)

// Attach creates the network of a replica, or returns the existing one. environment is any name that is the same for
// all replicas that share a bridge.
func (n *Network) Attach(ctx context.Context, replica, environment string) (Attachment, error) {
	return n.attach(ctx, replica, environment, netip.Addr{})
}

// Restore is like Attach for a replica that had a network before a reboot: it gets the same address again, unless
// another replica has it now.
func (n *Network) Restore(ctx context.Context, replica, environment string, had netip.Addr) (Attachment, error) {
	return n.attach(ctx, replica, environment, had)
}

func (n *Network) attach(ctx context.Context, replica, environment string, had netip.Addr) (Attachment, error) {
	if !replicaName.MatchString(replica) {
		return Attachment{}, fmt.Errorf("attach replica: want a name of letters, digits, '.', '_' and '-', got %q", replica)
	}
	n.mu.Lock()
	a, ok := n.attached[replica]
	if ok {
		n.mu.Unlock()
		return a, nil
	}
	a, err := n.reserve(replica, environment, had)
	n.mu.Unlock()
	if err != nil {
		return Attachment{}, fmt.Errorf("attach replica %s: %w", replica, err)
	}
	if err := n.plug(ctx, replica, a); err != nil {
		return Attachment{}, fmt.Errorf("attach replica %s: %w", replica, errors.Join(err, n.Detach(context.WithoutCancel(ctx), replica)))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.plugged[replica] = true
	return a, nil
}

// reserve assigns an address, the previous one if it is free, and ensures that the bridge exists. The caller holds
// n.mu.
func (n *Network) reserve(replica, environment string, had netip.Addr) (Attachment, error) {
	place, err := n.place(environment)
	if err != nil {
		return Attachment{}, err
	}
	if !n.bridged[environment] {
		if err := n.bridgeUp(environment); err != nil {
			return Attachment{}, fmt.Errorf("bridge of %s: %w", environment, err)
		}
	}
	subnet := n.plan.subnet(place)
	// The first address is the subnet, the second the gateway, the last the broadcast.
	first, last := add(subnet.Addr(), 2), add(subnet.Addr(), addressCount-2)
	addr := had
	if !had.IsValid() || had.Less(first) || last.Less(had) || n.used[had] {
		for addr = first; n.used[addr] && addr != last; addr = addr.Next() {
		}
	}
	if !n.used[addr] {
		a := Attachment{Environment: environment, Address: addr, Gateway: gatewayOf(subnet), Namespace: filepath.Join(n.netns, replica)}
		n.used[addr] = true
		n.attached[replica] = a
		return a, nil
	}
	return Attachment{}, fmt.Errorf("environment %s: %s holds %d replicas: %w", environment, subnet, addressCount-3, errFull)
}

func (n *Network) plug(ctx context.Context, replica string, a Attachment) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	// The record is written first, so anything found without one after a crash belongs to no replica.
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.Namespace+".json", b, 0o600); err != nil {
		return err
	}
	return plugNamespace(cable{
		namespace: a.Namespace,
		host:      n.vethName(a.Address),
		bridge:    n.bridgeName(a.Environment),
		address:   netip.PrefixFrom(a.Address, environmentBits),
		gateway:   a.Gateway,
		mtu:       n.uplink.mtu,
	})
}

// Detach removes all of a replica's network. It is not an error if the replica is not attached.
func (n *Network) Detach(_ context.Context, replica string) error {
	n.mu.Lock()
	a, ok := n.attached[replica]
	delete(n.plugged, replica)
	n.mu.Unlock()
	if !ok {
		return nil
	}
	if err := n.unplug(a); err != nil {
		return fmt.Errorf("detach replica %s: %w", replica, err)
	}
	n.mu.Lock()
	delete(n.attached, replica)
	delete(n.used, a.Address)
	n.mu.Unlock()
	return nil
}

func (n *Network) unplug(a Attachment) error {
	return errors.Join(
		removeLink(n.vethName(a.Address)),
		removeNamespace(a.Namespace),
		removeFile(a.Namespace+".json"),
	)
}

// adopt finds the namespaces that an earlier process created and removes the incomplete ones.
func (n *Network) adopt(ctx context.Context) error {
	entries, err := os.ReadDir(n.netns)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".json")
		path := filepath.Join(n.netns, name)
		if name == e.Name() {
			if _, err := os.Stat(path + ".json"); errors.Is(err, fs.ErrNotExist) {
				if err := removeNamespace(path); err != nil {
					return err
				}
			}
			continue
		}
		var a Attachment
		b, err := os.ReadFile(path + ".json")
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &a); err != nil {
			n.log.Warn("a replica's network has a damaged record; it is removed and made anew", "replica", name, "err", err)
			if err := errors.Join(removeNamespace(path), removeFile(path+".json")); err != nil {
				return err
			}
			continue
		}
		if !isNamespace(path) || n.plan.Environments == nil || !n.plan.Range.Contains(a.Address) || !linkExists(n.vethName(a.Address)) {
			if err := n.unplug(a); err != nil {
				return err
			}
			continue
		}
		n.attached[name] = a
		n.used[a.Address] = true
		n.plugged[name] = true
	}
	if err := removeLinks(n.vethPrefix(), n.hasVeth); err != nil {
		return err
	}
	return ctx.Err()
}

// hasVeth reports whether a device belongs to an attached replica.
func (n *Network) hasVeth(device string) bool {
	for _, a := range n.attached {
		if n.vethName(a.Address) == device {
			return true
		}
	}
	return false
}

// Attached lists the replicas that have a network.
func (n *Network) Attached() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := make([]string, 0, len(n.attached))
	for name := range n.attached {
		names = append(names, name)
	}
	return names
}

func (n *Network) vethName(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("%s%02x%02x", n.vethPrefix(), b[2], b[3])
}

func isNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

func removeNamespace(path string) error {
	// With MNT_DETACH, a process that still runs in the namespace keeps it alive but not its name.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return removeFile(path)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
