package penstocktest

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// CutPower ends the server, its shims and its containers at once, and takes away all of them that is not on a disk.
func (m *Machine) CutPower(t *testing.T) {
	t.Helper()
	supervisor := m.Supervisor(t)
	kill := func(pid int) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	kill(supervisor) // first, so that it starts no role anew
	groups := m.cgroups(t)
	Until(t, time.Minute, "every process has ended", func() bool {
		left := 0
		for _, group := range groups {
			procs, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
			if err != nil {
				continue
			}
			for pid := range strings.FieldsSeq(string(procs)) {
				n, err := strconv.Atoi(pid)
				if err != nil {
					t.Fatal(err)
				}
				kill(n)
				left++
			}
		}
		return left == 0
	})
	state := filepath.Join("/run/penstock", m.Status.Instance)
	for _, path := range slices.Backward(MountsBelow(t, state, filepath.Dir(m.Data))) {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Fatalf("unmount %s: %v", path, err)
		}
	}
	for _, group := range slices.Backward(groups) {
		Until(t, time.Minute, group+" is removed", func() bool {
			err := os.Remove(group)
			return err == nil || os.IsNotExist(err)
		})
	}
	for _, l := range m.Links(t) {
		if err := netlink.LinkDel(l); err != nil && l.Type() != "veth" { // a cable goes with its namespace
			t.Errorf("remove %s: %v", l.Attrs().Name, err)
		}
	}
	tables, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	list, err := tables.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range list {
		if strings.HasSuffix(table.Name, "_"+m.tag()) {
			tables.DelTable(table)
		}
	}
	if err := tables.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	if left := m.Links(t); len(left) > 0 {
		t.Fatalf("%d network devices outlived the power cut", len(left))
	}
}

// tag is the part of the instance's name that is in the names of its network devices and tables.
func (m *Machine) tag() string {
	h := fnv.New32a()
	h.Write([]byte(m.Status.Instance))
	return fmt.Sprintf("%05x", h.Sum32()&0xfffff)
}

// Links returns the network devices of the server.
func (m *Machine) Links(t *testing.T) []netlink.Link {
	t.Helper()
	all, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) { // another program changed a link at that moment
		all, err = netlink.LinkList()
	}
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(l netlink.Link) bool { return !strings.HasPrefix(l.Attrs().Name, "ps"+m.tag()) })
}

// cgroups returns the folders of all cgroups of the server, in every hierarchy, parents first.
func (m *Machine) cgroups(t *testing.T) (dirs []string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/penstock-", "/sys/fs/cgroup/*/penstock-"} {
		tops, err := filepath.Glob(pattern + m.Status.Instance)
		if err != nil {
			t.Fatal(err)
		}
		for _, top := range tops {
			_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
		}
	}
	return dirs
}

// MountsBelow returns the mount points in the folders, in the order in which they were mounted.
func MountsBelow(t *testing.T, folders ...string) (points []string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		point := strings.Fields(line)[1]
		for _, folder := range folders {
			if strings.HasPrefix(point, folder+"/") {
				points = append(points, point)
			}
		}
	}
	return points
}
