package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CgroupAnnotation is the annotation in a container's specification that names the cgroup of its shim.
const CgroupAnnotation = "penstock/shim-cgroup"

const cgroupRoot = "/sys/fs/cgroup"

// Settle moves this process to the cgroup named in the bundle (its working folder), so that it does not count towards
// the limits and usage of the role that started it. It also removes all environment variables that a shim does not
// read, because a shim needs no variables of the user who started the server.
func Settle(bundle string) error {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains(variables, name) {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	// A shim has little to do, and there is one per container. Each processor that may run its Go code costs memory,
	// and time too, because containerd's shim collects garbage twice a minute.
	runtime.GOMAXPROCS(1)
	b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return fmt.Errorf("read the bundle: %w", err)
	}
	var spec struct{ Annotations map[string]string }
	if err := json.Unmarshal(b, &spec); err != nil {
		return fmt.Errorf("read the bundle: %w", err)
	}
	cgroup := spec.Annotations[CgroupAnnotation]
	if cgroup == "" {
		return nil
	}
	mounts, err := mounted(cgroupRoot, "/proc/self/mountinfo")
	if err != nil {
		return err
	}
	return Join(mounts, cgroup, os.Getpid())
}

// variables are the environment variables that containerd's shim, Go and runc read.
var variables = []string{
	"TTRPC_ADDRESS", "GRPC_ADDRESS", "NAMESPACE", "MAX_SHIM_VERSION", "OTEL_SERVICE_NAME", "GOMAXPROCS", "PATH", "TMPDIR", "XDG_RUNTIME_DIR",
}

// controllers are pids and the cgroup v1 controllers in which the roles have cgroups.
var controllers = []string{"cpu", "cpuacct", "memory", "pids"}

// Join moves a process into a cgroup in each hierarchy. It creates the cgroup if it is missing.
func Join(mounts []string, cgroup string, pid int) error {
	var errs []error
	for _, mount := range mounts {
		dir := filepath.Join(mount, filepath.Clean("/"+cgroup))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("join cgroup %s: %w", cgroup, err)
	}
	return nil
}

// mounted returns the mount points of the cgroup hierarchies: the one of version 2, or those of version 1 with
// controllers that limit or count.
func mounted(root, mountinfo string) ([]string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("cgroups: %s: %w", root, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{root}, nil
	}
	text, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	return Hierarchies(string(text)), nil
}

// Hierarchies parses a list of mounts (proc_pid_mountinfo(5)) and returns the cgroup version 1 hierarchies with a
// controller that limits or counts.
func Hierarchies(mountinfo string) []string {
	var mounts []string
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if !ok || len(where) < 5 || len(what) < 3 || what[0] != "cgroup" {
			continue
		}
		for name := range strings.SplitSeq(what[2], ",") {
			if slices.Contains(controllers, name) && !slices.Contains(mounts, where[4]) {
				mounts = append(mounts, where[4])
			}
		}
	}
	return mounts
}
