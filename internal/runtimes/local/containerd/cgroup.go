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

// cgroups reads the kernel's account of a cgroup from its files, which costs a fraction of asking the shim.
type cgroups struct {
	// unified is the mount of cgroup v2; "" where the controllers are in the hierarchies of v1.
	unified string
	v1      map[string]string // mount by controller
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
			g.v1["unified"] = where[4] // beside v1 it has few controllers, but runc makes a cgroup there too
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

// shimWeight is eight times that of all containers together: a start, an exec and a kill are work of the shims, which
// containers at their limits should not slow down. cgroup v1 counts from 1024, v2 from 100.
const shimWeight = 8

// makeShims makes the cgroup of the shims.
func (g cgroups) makeShims(cgroup string) error {
	file, weight := g.file("cpu", cgroup, "cpu.shares"), 1024*shimWeight
	if g.unified != "" {
		file, weight = g.file("", cgroup, "cpu.weight"), 100*shimWeight
		// A cgroup has the controllers that each one above it passes on.
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

// usage adds up a cgroup and all below it.
func (g cgroups) usage(cgroup string) (runtimes.Usage, error) {
	type counter struct {
		into                 *uint64
		controller, name, in string // in: the line of a file that has several; "" for a file of one number
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

// limit is a cgroup's memory limit; 0 when it has none.
func (g cgroups) limit(cgroup string) (uint64, error) {
	n, err := readCounter(g.file("memory", cgroup, g.name("memory.limit_in_bytes", "memory.max")), "")
	if n >= 1<<62 { // v1 writes "none" as the largest number of pages
		n = 0
	}
	return n, err
}

// oom says how many processes of a cgroup the kernel has killed at its limit, and what the limit and the peak are.
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

// remove removes a cgroup and those below it, which have no processes any more.
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
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}

// readCounter reads a file of one number, or the number behind a word at the start of a line.
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
