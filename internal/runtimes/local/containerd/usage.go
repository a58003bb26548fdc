package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"penstock/internal/runtimes"
)

// Usage implements local.Driver. It reads the sandbox's cgroup, whose counters continue when containers restart.
func (d *Driver) Usage(_ context.Context, replica string) (runtimes.Usage, error) {
	if _, err := d.sandbox(replica); err != nil {
		return runtimes.Usage{}, fmt.Errorf("usage: %w", err)
	}
	u, err := d.cgroups.usage(filepath.Join(d.cfg.CgroupParent, replica))
	if errors.Is(err, fs.ErrNotExist) {
		return runtimes.Usage{}, nil // no container yet
	}
	if err != nil {
		return runtimes.Usage{}, fmt.Errorf("usage of %s: %w", replica, err)
	}
	d.mu.Lock()
	below := map[string]string{} // cgroup by container
	for _, c := range d.containers {
		if c.replica == replica {
			below[c.name] = c.cgroup
		}
	}
	d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(below)) {
		m := runtimes.ContainerMemory{Container: name}
		m.Limit, err = d.cgroups.limit(below[name])
		if err == nil {
			m.Used, err = d.cgroups.unevictable(below[name])
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			return runtimes.Usage{}, fmt.Errorf("usage of %s: %w", replica, err)
		}
		u.MemoryLimit += m.Limit
		u.Containers = append(u.Containers, m)
	}
	return u, nil
}
