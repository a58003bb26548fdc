package containerd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
)

var _ local.Mapper = (*Driver)(nil)

// Mapped implements local.Mapper. It adds up the kernel's figures for each process of the replica (Linux,
// Documentation/filesystems/proc.rst, smaps_rollup).
func (d *Driver) Mapped(ctx context.Context, replica string) (runtimes.Mapped, error) {
	if _, err := d.sandbox(replica); err != nil {
		return runtimes.Mapped{}, fmt.Errorf("mapped memory: %w", err)
	}
	d.mu.Lock()
	var cgroups []string
	for _, c := range d.containers {
		if c.replica == replica {
			cgroups = append(cgroups, c.cgroup)
		}
	}
	d.mu.Unlock()
	var sum runtimes.Mapped
	for _, cgroup := range cgroups {
		pids, err := d.cgroups.processes(cgroup)
		if err != nil {
			return runtimes.Mapped{}, fmt.Errorf("mapped memory of %s: %w", replica, err)
		}
		for _, pid := range pids {
			if err := context.Cause(ctx); err != nil {
				return runtimes.Mapped{}, err
			}
			rollup, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
			if err != nil {
				continue // it has just ended
			}
			one, err := parseRollup(bufio.NewScanner(rollup))
			rollup.Close()
			if errors.Is(err, syscall.ESRCH) {
				continue
			}
			if err != nil {
				return runtimes.Mapped{}, fmt.Errorf("mapped memory of process %d: %w", pid, err)
			}
			sum.RSS += one.RSS
			sum.PSS += one.PSS
		}
	}
	return sum, nil
}

// parseRollup parses "Rss: 1234 kB" and "Pss: 617 kB".
func parseRollup(lines *bufio.Scanner) (m runtimes.Mapped, err error) {
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		var into *uint64
		switch name {
		case "Rss":
			into = &m.RSS
		case "Pss":
			into = &m.PSS
		default:
			continue
		}
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 53)
		if err != nil {
			return m, fmt.Errorf("%s: want a number of kB, got %q", name, value)
		}
		*into = kb << 10
	}
	return m, lines.Err()
}

// processes returns the processes of a cgroup and of the cgroups below it, or none if there is no such cgroup.
func (g cgroups) processes(cgroup string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(g.file("memory", cgroup, ""), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}
