package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// controllers are the cgroup controllers needed for limits, usage and freezing.
var controllers = []string{"cpu", "memory", "pids"}

func cgroups(context.Context, Options) []Finding {
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &fs); err != nil {
		return fail("memory and CPU limits cannot be enforced", "mount cgroups at "+cgroupRoot, "%s: %v", cgroupRoot, err)
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return unified()
	}
	found := "version 1"
	if err := unix.Statfs(filepath.Join(cgroupRoot, "unified"), &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		found = "hybrid, controllers in version 1"
	}
	return legacy(found)
}

// unified checks cgroup version 2.
func unified() []Finding {
	b, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return fail("memory and CPU limits cannot be enforced", "", "version 2: %v", err)
	}
	have := strings.Fields(string(b))
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return fail("memory and CPU limits cannot be enforced", "delegate the controllers to this process, as in systemd's Delegate=yes", "version 2 without %s", strings.Join(missing, ", "))
	}
	if err := try(cgroupRoot); err != nil {
		return fail("memory and CPU limits cannot be enforced", asRoot, "version 2: %v", err)
	}
	return ok("version 2 with %s, writable", strings.Join(controllers, ", "))
}

// legacy checks each hierarchy of cgroup version 1, in which the freezer is a separate controller.
func legacy(found string) []Finding {
	var errs []error
	want := append(slices.Clone(controllers), "freezer", "devices")
	for _, c := range want {
		if err := try(filepath.Join(cgroupRoot, c)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fail("memory and CPU limits cannot be enforced", asRoot+"; mount the missing controllers below "+cgroupRoot, "%s: %s", found, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return ok("%s with %s, writable", found, strings.Join(want, ", "))
}

// try creates a cgroup and removes it.
func try(hierarchy string) error {
	dir, err := os.MkdirTemp(hierarchy, "penstock-doctor-")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return errors.Join(errors.New("no cgroup file system"), os.Remove(dir))
	}
	return os.Remove(dir)
}
