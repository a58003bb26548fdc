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

// CgroupAnnotation of a container's specification names the cgroup that its shim goes to.
const CgroupAnnotation = "penstock/shim-cgroup"

const cgroupRoot = "/sys/fs/cgroup"

// Settle makes this process a shim's: in the cgroup that the bundle, its working folder, asks for, so that neither the
// limits nor the account of the role that started it include it; and with only the variables that a shim reads, as
// those of the user who started the server are none of its business.
func Settle(bundle string) error {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains(variables, name) {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	// It has next to nothing to do, and each processor that may run its Go costs memory and, as containerd's shim
	// collects its garbage twice a minute, time: there are as many shims as containers.
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

// variables are those that containerd's shim, Go and runc read.
var variables = []string{
	"TTRPC_ADDRESS", "GRPC_ADDRESS", "NAMESPACE", "MAX_SHIM_VERSION", "OTEL_SERVICE_NAME", "GOMAXPROCS", "PATH", "TMPDIR", "XDG_RUNTIME_DIR",
}

// controllers are those whose groups the roles have, and that of the count of processes.
var controllers = []string{"cpu", "cpuacct", "memory", "pids"}

// Join puts a process into a cgroup of each hierarchy, which is made when it is missing.
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

// mounted finds the hierarchies: the one of version 2, or those of version 1 that count.
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

// Hierarchies reads from a list of mounts those of cgroup version 1 that have a controller which limits or counts
// (proc_pid_mountinfo(5)).
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
