package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// When CPU is short, the roles get eight times the share of a default group, so that containers at their limits cannot
// delay requests and scaling decisions. The default is 1024 in cgroup v1 and 100 in v2.
const (
	roleShares = 8 * 1024
	roleWeight = 8 * 100
)

// cgroups puts processes into <parent>/roles/<role>. A nil *cgroups does nothing.
type cgroups struct {
	root, parent string
	bases        []string // one per hierarchy, each "<mount>/<parent>/roles"
}

func newCgroups(root, parent string) (*cgroups, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("cgroups: %s: %w", root, err)
	}
	c := &cgroups{root: root, parent: parent}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		base := filepath.Join(root, parent, "roles")
		if err := os.MkdirAll(base, 0o755); err != nil {
			return nil, fmt.Errorf("cgroups: %w", err)
		}
		for _, dir := range []string{root, filepath.Dir(base), base} {
			if err := write(filepath.Join(dir, "cgroup.subtree_control"), "+cpu +memory"); err != nil {
				return nil, fmt.Errorf("cgroups: pass on controllers: %w", err)
			}
		}
		if err := write(filepath.Join(base, "cpu.weight"), strconv.Itoa(roleWeight)); err != nil {
			return nil, fmt.Errorf("cgroups: %w", err)
		}
		c.bases = []string{base}
		return c, nil
	}
	for _, controller := range []string{"cpu", "memory"} {
		mount := filepath.Join(root, controller)
		if _, err := os.Stat(filepath.Join(mount, "cgroup.procs")); err != nil {
			return nil, fmt.Errorf("cgroups: controller %s: %w", controller, err)
		}
		base := filepath.Join(mount, parent, "roles")
		if err := os.MkdirAll(base, 0o755); err != nil {
			return nil, fmt.Errorf("cgroups: %w", err)
		}
		c.bases = append(c.bases, base)
	}
	if err := write(filepath.Join(c.bases[0], "cpu.shares"), strconv.Itoa(roleShares)); err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	return c, nil
}

func (c *cgroups) add(role string, pid int) error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, base := range c.bases {
		dir := filepath.Join(base, role)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)))
	}
	return errors.Join(errs...)
}

// remove removes the empty cgroups of the instance, including those of the engine. Cgroups of containers and shims that
// still run are not empty and stay.
func (c *cgroups) remove() {
	if c == nil {
		return
	}
	tops, err := filepath.Glob(filepath.Join(c.root, "*", c.parent))
	if err != nil {
		return
	}
	for _, top := range append(tops, filepath.Join(c.root, c.parent)) {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) { // children first
			_ = syscall.Rmdir(dir)
		}
	}
}

func write(path, value string) error { return os.WriteFile(path, []byte(value), 0o644) }
