package build

import "golang.org/x/sys/unix"

// hybrid reports whether the machine has the hierarchies of cgroup v1 and, beside them, that of v2 (systemd.io,
// CGROUP_DELEGATION, "Three Different Tree Setups").
func hybrid() bool {
	var unified, both unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &unified) == nil && unified.Type != unix.CGROUP2_SUPER_MAGIC &&
		unix.Statfs("/sys/fs/cgroup/unified", &both) == nil && both.Type == unix.CGROUP2_SUPER_MAGIC
}
