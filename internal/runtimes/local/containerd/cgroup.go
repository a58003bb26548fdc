package containerd

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroups reads a cgroup's usage from the kernel's files, which costs a fraction of a request to the shim.
type cgroups struct {
	// unified is the mount point of cgroup v2. It is "" if the controllers are in v1 hierarchies.
	unified string
	v1      map[string]string // mount point by controller
}

func findCgroups(root, mountinfo string) (cgroups, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return cgroups{}, fmt.Errorf("cgroups: %s: %w", root, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return cgroups{unified: root}, nil
	}
	f, err := os.Open(mountinfo)
	if err != nil {
		return cgroups{}, fmt.Errorf("cgroups: %w", err)
	}
	defer f.Close()
	g := cgroups{v1: map[string]string{}}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory" (proc_pid_mountinfo(5))
		before, after, ok := strings.Cut(lines.Text(), " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if !ok || len(where) < 5 || len(what) < 3 {
			continue
		}
		if what[0] == "cgroup2" {
			g.v1["unified"] = where[4] // next to v1 it has few controllers, but runc creates a cgroup there too
		}
		if what[0] != "cgroup" {
			continue
		}
		for name := range strings.SplitSeq(what[2], ",") {
			g.v1[name] = where[4]
		}
	}
	if err := lines.Err(); err != nil {
		return cgroups{}, fmt.Errorf("cgroups: %w", err)
	}
	for _, name := range []string{"memory", "cpu", "cpuacct", "pids"} {
		if g.v1[name] == "" {
			return cgroups{}, fmt.Errorf("cgroups: the %s controller is not mounted below %s", name, root)
		}
	}
	return g, nil
}

// shimWeight is eight times the weight of all containers together. Shims do the work of a start, an exec and a kill, and
// containers at their limits should not slow that down. The default weight is 1024 in cgroup v1, and 100 in v2.
const shimWeight = 8

// makeShims creates the cgroup of the shims.
func (g cgroups) makeShims(cgroup string) error {
	file, weight := g.file("cpu", cgroup, "cpu.shares"), 1024*shimWeight
	if g.unified != "" {
		file, weight = g.file("", cgroup, "cpu.weight"), 100*shimWeight
		// A cgroup has only the controllers that every cgroup above it passes on.
		for dir := filepath.Dir(cgroup); ; dir = filepath.Dir(dir) {
			if err := os.MkdirAll(filepath.Join(g.unified, dir), 0o755); err != nil {
				return err
			}
			if dir == "/" {
				break
			}
		}
		above := g.unified
		for part := range strings.SplitSeq(strings.Trim(cgroup, "/"), "/") {
			if err := os.WriteFile(filepath.Join(above, "cgroup.subtree_control"), []byte("+cpu +memory +pids"), 0o644); err != nil {
				return fmt.Errorf("pass on controllers: %w", err)
			}
			above = filepath.Join(above, part)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strconv.Itoa(weight)), 0o644)
}

func (g cgroups) file(controller, cgroup, name string) string {
	if g.unified != "" {
		return filepath.Join(g.unified, cgroup, name)
	}
	return filepath.Join(g.v1[controller], cgroup, name)
}

// usage returns the usage of a cgroup, including all cgroups below it.
func (g cgroups) usage(cgroup string) (runtimes.Usage, error) {
	type counter struct {
		into                 *uint64
		controller, name, in string // in: the key of the line in a file of several lines; "" for a file with one number
		scale                uint64
	}
	var u runtimes.Usage
	var used, inactive uint64
	counters := []counter{
		{&u.CPUNanos, "cpuacct", "cpuacct.usage", "", 1},
		{&used, "memory", "memory.usage_in_bytes", "", 1},
		{&inactive, "memory", "memory.stat", "total_inactive_file", 1},
		{&u.MemoryPeak, "memory", "memory.max_usage_in_bytes", "", 1},
		{&u.Processes, "pids", "pids.current", "", 1},
	}
	if g.unified != "" {
		counters = []counter{
			{&u.CPUNanos, "", "cpu.stat", "usage_usec", 1000},
			{&used, "", "memory.current", "", 1},
			{&inactive, "", "memory.stat", "inactive_file", 1},
			{&u.MemoryPeak, "", "memory.peak", "", 1},
			{&u.Processes, "", "pids.current", "", 1},
		}
	}
	for _, c := range counters {
		n, err := readCounter(g.file(c.controller, cgroup, c.name), c.in)
		if err != nil {
			return runtimes.Usage{}, err
		}
		*c.into = n * c.scale
	}
	u.WorkingSet = used - min(used, inactive)
	return u, nil
}

// limit returns a cgroup's memory limit, or 0 if it has none.
func (g cgroups) limit(cgroup string) (uint64, error) {
	n, err := readCounter(g.file("memory", cgroup, g.name("memory.limit_in_bytes", "memory.max")), "")
	if n >= 1<<62 { // v1 writes "no limit" as the largest number of pages
		n = 0
	}
	return n, err
}

// unevictable returns the memory of a cgroup that the kernel cannot free without swapping: anonymous and shared memory.
func (g cgroups) unevictable(cgroup string) (sum uint64, err error) {
	path := g.file("memory", cgroup, "memory.stat")
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for _, key := range []string{g.name("total_rss", "anon"), g.name("total_shmem", "shmem")} {
		n, err := parseCounter(string(b), key)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += n
	}
	return sum, nil
}

// oom returns how many processes of a cgroup the kernel has killed at the memory limit, together with the limit and the
// peak.
func (g cgroups) oom(cgroup string) (uint64, local.OOM, error) {
	kills, err := readCounter(g.file("memory", cgroup, g.name("memory.oom_control", "memory.events")), "oom_kill")
	if err != nil {
		return 0, local.OOM{}, err
	}
	limit, err := g.limit(cgroup)
	if err != nil {
		return kills, local.OOM{}, err
	}
	peak, err := readCounter(g.file("memory", cgroup, g.name("memory.max_usage_in_bytes", "memory.peak")), "")
	return kills, local.OOM{Limit: limit, Peak: peak}, err
}

func (g cgroups) name(v1, v2 string) string {
	if g.unified != "" {
		return v2
	}
	return v1
}

// remove removes a cgroup and those below it. It kills the processes that are still in one: a control that is killed while it
// creates a container leaves runc's first process there, which nobody else knows. The cgroup is gone with the next call then.
func (g cgroups) remove(cgroup string) error {
	mounts := []string{g.unified}
	if g.unified == "" {
		mounts = nil
		for _, m := range g.v1 {
			mounts = append(mounts, m)
		}
		slices.Sort(mounts)
		mounts = slices.Compact(mounts)
	}
	var errs []error
	for _, m := range mounts {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(m, cgroup), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
		for _, dir := range dirs {
			err := unix.Rmdir(dir)
			if errors.Is(err, unix.EBUSY) {
				killAll(dir)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}

// killAll kills the processes of a cgroup.
func killAll(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return // it has gone
	}
	for word := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
		}
	}
}

// readCounter reads a file with one number, or the number after a word at the start of a line.
func readCounter(path, key string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := parseCounter(string(b), key)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

func parseCounter(text, key string) (uint64, error) {
	value := strings.TrimSpace(text)
	if key != "" {
		found := false
		for line := range strings.Lines(text) {
			if word, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && word == key {
				value, found = strings.TrimSpace(rest), true
				break
			}
		}
		if !found {
			return 0, fmt.Errorf("has no line %q", key)
		}
	}
	if value == "max" { // v2's word for no limit
		return 0, nil
	}
	return strconv.ParseUint(value, 10, 64)
}
