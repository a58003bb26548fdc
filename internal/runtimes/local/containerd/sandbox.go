package containerd

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

	"penstock/internal/atomicfile"
	"penstock/internal/network"
	"penstock/internal/runtimes/local"
)

const (
	recordVersion = 1
	// idCount is how many user and group IDs a sandbox has: all that a 16-bit program knows.
	idCount = 65536
)

// sandbox is what the containers of a replica share.
type sandbox struct {
	local.Sandbox
	Version int
	Address netip.Addr
	Gateway netip.Addr
	Netns   string
	// FirstID is the host's user and group ID that is 0 inside the sandbox. It is 0 without a user namespace.
	FirstID uint32
}

// replicaName matches valid names. A replica's name is used as the name of a folder and a cgroup. It is checked because
// a client of the API chose a part of it.
var replicaName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)

func (d *Driver) sandboxDir(replica string) string {
	return filepath.Join(d.cfg.Root, "sandboxes", replica)
}

func (d *Driver) diskDir(replica string) string { return filepath.Join(d.sandboxDir(replica), "disk") }

func (d *Driver) imagePath(replica string) string {
	return filepath.Join(d.sandboxDir(replica), "disk.ext4")
}

// CreateSandbox implements local.Driver.
func (d *Driver) CreateSandbox(ctx context.Context, s local.Sandbox) (netip.Addr, error) {
	if !replicaName.MatchString(s.Replica) {
		return netip.Addr{}, fmt.Errorf("create sandbox: want a name of letters, digits, '.', '_' and '-', got %q", s.Replica)
	}
	d.mu.Lock()
	have, ok := d.sandboxes[s.Replica]
	d.mu.Unlock()
	if ok {
		return have.Address, nil
	}
	made, err := d.makeSandbox(ctx, s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("create sandbox %s: %w", s.Replica, errors.Join(err, d.undoSandbox(context.WithoutCancel(ctx), s.Replica)))
	}
	return made.Address, nil
}

func (d *Driver) makeSandbox(ctx context.Context, s local.Sandbox) (*sandbox, error) {
	dir := d.sandboxDir(s.Replica)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	at, err := d.cfg.Network.Attach(ctx, s.Replica, s.Environment.Key())
	if err != nil {
		return nil, err
	}
	made := &sandbox{Sandbox: s, Version: recordVersion, Address: at.Address, Gateway: at.Gateway, Netns: at.Namespace}
	if d.remap {
		made.FirstID = d.idsOf(at)
	}
	if err := d.disks.attach(ctx, d.imagePath(s.Replica), d.diskDir(s.Replica), s.DiskLimit); err != nil {
		return nil, err
	}
	if err := made.write(dir); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.sandboxes[s.Replica] = made
	d.mu.Unlock()
	return made, nil
}

// write stores the record for the next process. It is not synced: a crash of the machine that loses the record also
// ends the sandbox.
func (s *sandbox) write(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.WriteUnsynced(filepath.Join(dir, "record.json"), b, 0o600)
}

// firstID returns where an instance's user IDs start. The 32-bit IDs have 15 parts, each with room for 4,096 sandboxes.
// Instances differ in the second byte of their addresses, so two instances on a machine usually have different IDs too.
func firstID(addresses netip.Prefix) uint32 {
	const part = 1 << 28
	return part * (1 + uint32(addresses.Addr().As4()[1])%14)
}

// idsOf derives a sandbox's IDs from its address. They are unique while the sandbox lives, and need not be stored.
func (d *Driver) idsOf(at network.Attachment) uint32 {
	a := at.Address.As4()
	return d.firstID + (uint32(a[2])<<8|uint32(a[3]))%4096*idCount
}

// RemoveSandbox implements local.Driver.
func (d *Driver) RemoveSandbox(ctx context.Context, replica string) error {
	if !replicaName.MatchString(replica) {
		return nil // the sandbox was never created
	}
	d.mu.Lock()
	for _, c := range d.containers {
		if c.replica == replica {
			d.mu.Unlock()
			return fmt.Errorf("remove sandbox %s: its container %s has not been deleted", replica, c.name)
		}
	}
	d.mu.Unlock()
	if err := d.undoSandbox(ctx, replica); err != nil {
		return fmt.Errorf("remove sandbox %s: %w", replica, err)
	}
	return nil
}

// undoSandbox removes everything of a sandbox. The record is removed last, so that the removal can be repeated after a
// crash.
func (d *Driver) undoSandbox(ctx context.Context, replica string) error {
	err := errors.Join(
		d.cfg.Network.Detach(ctx, replica),
		d.disks.detach(ctx, d.imagePath(replica), d.diskDir(replica)),
		d.cgroups.remove(filepath.Join(d.cfg.CgroupParent, replica)),
	)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(d.secretsDir(replica)); err != nil {
		return err
	}
	if err := os.RemoveAll(d.sandboxDir(replica)); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.sandboxes, replica)
	d.mu.Unlock()
	return nil
}

// loadSandboxes finds the sandboxes of earlier processes. A reboot removes a sandbox's network and the mount of its
// disk. It then gets new ones, with the same address, and its containers are shown as exited.
func (d *Driver) loadSandboxes(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(d.cfg.Root, "sandboxes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		replica := e.Name()
		s, err := readRecord(filepath.Join(d.sandboxDir(replica), "record.json"))
		if err != nil {
			d.log.Warn("a sandbox has no good record; it is removed", "replica", replica, "err", err)
			if err := d.undoSandbox(ctx, replica); err != nil {
				return fmt.Errorf("remove sandbox %s: %w", replica, err)
			}
			continue
		}
		at, err := d.cfg.Network.Restore(ctx, replica, s.Environment.Key(), s.Address)
		if err != nil {
			return err
		}
		s.Netns = at.Namespace
		if at.Address != s.Address {
			d.log.Info("a sandbox has lost its network and got a new one", "replica", replica, "was", s.Address, "is", at.Address)
			s.Address, s.Gateway = at.Address, at.Gateway
			if s.FirstID != 0 {
				s.FirstID = d.idsOf(at) // its previous IDs may belong to the present owner of its previous address
			}
			if err := s.write(d.sandboxDir(replica)); err != nil {
				return fmt.Errorf("record of sandbox %s: %w", replica, err)
			}
		}
		if err := d.disks.attach(ctx, d.imagePath(replica), d.diskDir(replica), s.DiskLimit); err != nil {
			return fmt.Errorf("disk of sandbox %s: %w", replica, err)
		}
		d.mu.Lock()
		d.sandboxes[replica] = s
		d.mu.Unlock()
	}
	return nil
}

func readRecord(path string) (*sandbox, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &sandbox{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, err
	}
	if s.Version != recordVersion {
		return nil, fmt.Errorf("want version %d, got %d", recordVersion, s.Version)
	}
	return s, nil
}

func (d *Driver) sandbox(replica string) (*sandbox, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.sandboxes[replica]
	if !ok {
		return nil, fmt.Errorf("sandbox %s: %w", replica, local.ErrGone)
	}
	return s, nil
}
