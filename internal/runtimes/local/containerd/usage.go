package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

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
	var below []string
	for _, c := range d.containers {
		if c.replica == replica {
			below = append(below, c.cgroup)
		}
	}
	d.mu.Unlock()
	for _, cgroup := range below {
		limit, err := d.cgroups.limit(cgroup)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return runtimes.Usage{}, fmt.Errorf("usage of %s: %w", replica, err)
		}
		u.MemoryLimit += limit
	}
	return u, nil
}
