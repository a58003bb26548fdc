package e2e_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"net/http"
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

const rebootManifest = `
name: %s
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - name: main
        image: hello:1
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: %d, maxReplicas: %d}
`

// A machine that loses its power keeps its disks and nothing else. After it one command, or the service manager, brings
// back all that was served.
func TestReboot(t *testing.T) {
	m := bootMachine(t)
	m.image(t, "hello")
	apps := map[string]int{"front": 8, "back": 2}
	for name, n := range apps {
		m.apply(t, fmt.Sprintf(rebootManifest, name, n, n))
	}
	allReady(t, m, apps)
	before := m.processes(t)
	tests := map[string]func(t *testing.T){
		"a power cut": func(*testing.T) {},
		// Names are synced by the file system's journal before the data that they lead to.
		"a power cut that loses what was written last": func(t *testing.T) {
			records, err := filepath.Glob(filepath.Join(m.data, "containerd", "sandboxes", "*", "record.json"))
			if err != nil || len(records) != 10 {
				t.Fatalf("records %q: %v", records, err)
			}
			for _, path := range records[:3] {
				if err := os.Truncate(path, 0); err != nil {
					t.Fatal(err)
				}
			}
			for _, path := range records[3:5] {
				if err := os.RemoveAll(filepath.Dir(path)); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
	for name, loses := range tests {
		t.Run(name, func(t *testing.T) {
			m.cutPower(t)
			loses(t)
			from := time.Now()
			m.status.HTTPPort = 0
			m.must(t, "up")
			up := time.Since(from)
			until(t, time.Minute, "both apps answer", func() bool {
				for name := range apps {
					if status, _ := m.ask(t, http.MethodGet, name, "/", ""); status != http.StatusOK {
						return false
					}
				}
				return true
			})
			answered := time.Since(from)
			allReady(t, m, apps)
			t.Logf("after a reboot: the server is up after %s, both apps answer after %s, all 10 replicas are ready after %s",
				up.Round(time.Millisecond), answered.Round(time.Millisecond), time.Since(from).Round(time.Millisecond))

			after := m.processes(t)
			if len(after) != len(before) {
				t.Errorf("replicas with processes before %v, after %v", before, after)
			}
			owners := map[string]string{}
			for replica, pids := range after {
				ids, err := os.ReadFile("/proc/" + strings.Fields(pids)[0] + "/uid_map")
				if err != nil {
					t.Error(err)
				}
				if other := owners[string(ids)]; other != "" && strings.Fields(string(ids))[1] != "0" {
					t.Errorf("replicas %s and %s have the same user ids: %s", replica, other, ids)
				}
				owners[string(ids)] = replica
			}
			m.onlyOf(t, slices.Sorted(maps.Keys(after)))
		})
	}
}

// allReady waits until every replica of the apps is ready, and there are no others.
func allReady(t *testing.T, m *machine, apps map[string]int) {
	t.Helper()
	until(t, 2*time.Minute, "all replicas are ready", func() bool {
		for name, n := range apps {
			out, _, code := m.run(t, "replica", "list", name, "-o", "json")
			if code != 0 || strings.Count(out, `"runningState": "Running"`) < n || strings.Count(out, `"ready": true`) != n {
				return false
			}
		}
		return true
	})
}

// cutPower ends the server, its shims and its containers at once, and takes away all of them that is not on a disk.
func (m *machine) cutPower(t *testing.T) {
	t.Helper()
	supervisor := m.supervisor(t)
	kill := func(pid int) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	kill(supervisor) // first, so that it starts no role anew
	groups := m.cgroups(t)
	until(t, 20*time.Second, "every process has ended", func() bool {
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
	state := filepath.Join("/run/penstock", m.status.Instance)
	for _, path := range slices.Backward(mountsBelow(t, state, filepath.Dir(m.data))) {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Fatalf("unmount %s: %v", path, err)
		}
	}
	for _, group := range slices.Backward(groups) {
		until(t, 10*time.Second, group+" is removed", func() bool {
			err := os.Remove(group)
			return err == nil || os.IsNotExist(err)
		})
	}
	for _, l := range m.links(t) {
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
	if left := m.links(t); len(left) > 0 {
		t.Fatalf("%d network devices outlived the power cut", len(left))
	}
}

// tag is the part of the instance's name that its devices and tables have.
func (m *machine) tag() string {
	h := fnv.New32a()
	h.Write([]byte(m.status.Instance))
	return fmt.Sprintf("%05x", h.Sum32()&0xfffff)
}

func (m *machine) links(t *testing.T) []netlink.Link {
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

// cgroups are the folders of all cgroups of the server, in every hierarchy, parents first.
func (m *machine) cgroups(t *testing.T) (dirs []string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/penstock-", "/sys/fs/cgroup/*/penstock-"} {
		tops, err := filepath.Glob(pattern + m.status.Instance)
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

// mountsBelow are the mount points in the folders, in the order in which they were mounted.
func mountsBelow(t *testing.T, folders ...string) (points []string) {
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

// onlyOf checks that the machine holds what these replicas need, and nothing of others.
func (m *machine) onlyOf(t *testing.T, replicas []string) {
	t.Helper()
	names := func(pattern string) (found []string) {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if info, err := os.Stat(path); err == nil && (info.IsDir() || strings.Contains(pattern, "netns")) && !strings.HasSuffix(path, ".json") {
				found = append(found, filepath.Base(path))
			}
		}
		return found
	}
	state := filepath.Join("/run/penstock", m.status.Instance)
	for what, pattern := range map[string]string{
		"sandboxes":          filepath.Join(m.data, "containerd", "sandboxes", "*"),
		"network namespaces": filepath.Join(state, "net", "netns", "*"),
		"cgroups":            "/sys/fs/cgroup/memory/penstock-" + m.status.Instance + "/replicas/*",
	} {
		if got := names(pattern); !slices.Equal(got, replicas) {
			t.Errorf("%s (%s): %q, want those of %q", what, pattern, got, replicas)
		}
	}
	cables := 0
	for _, l := range m.links(t) {
		if l.Type() == "veth" {
			cables++
		}
	}
	if cables != len(replicas) {
		t.Errorf("%d cables, want %d", cables, len(replicas))
	}
	if got := names(filepath.Join(state, "c", "t", "*")); len(got) != len(replicas) {
		t.Errorf("run folders of %d containers, want %d", len(got), len(replicas))
	}
	disks := 0
	for _, point := range mountsBelow(t, m.data) {
		if filepath.Base(point) == "disk" {
			disks++
		}
	}
	if disks != 0 && disks != len(replicas) {
		t.Errorf("%d disks are mounted, want %d", disks, len(replicas))
	}
}
