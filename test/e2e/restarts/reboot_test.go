package restarts_test

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// A machine that loses its power keeps its disks and nothing else. After it one command, or the service manager, brings
// back all that was served.
func TestReboot(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	apps := map[string]int{"front": 8, "back": 2}
	for name, n := range apps {
		m.Apply(t, penstocktest.Hello(name, n))
	}
	m.AllReady(t, apps)
	before := m.Processes(t)
	tests := map[string]func(t *testing.T){
		"a power cut": func(*testing.T) {},
		// Names are synced by the file system's journal before the data that they lead to.
		"a power cut that loses what was written last": func(t *testing.T) {
			records, err := filepath.Glob(filepath.Join(m.Data, "containerd", "sandboxes", "*", "record.json"))
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
			m.CutPower(t)
			loses(t)
			from := time.Now()
			m.Status.HTTPPort = 0
			m.Must(t, "up")
			up := time.Since(from)
			penstocktest.Until(t, time.Minute, "both apps answer", func() bool {
				for name := range apps {
					if status, _ := m.Ask(t, http.MethodGet, name, "/", ""); status != http.StatusOK {
						return false
					}
				}
				return true
			})
			answered := time.Since(from)
			m.AllReady(t, apps)
			t.Logf("after a reboot: the server is up after %s, both apps answer after %s, all 10 replicas are ready after %s",
				up.Round(time.Millisecond), answered.Round(time.Millisecond), time.Since(from).Round(time.Millisecond))

			after := m.Processes(t)
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
			onlyOf(t, m, slices.Sorted(maps.Keys(after)))
		})
	}
}

// onlyOf checks that the machine holds what these replicas need, and nothing of others.
func onlyOf(t *testing.T, m *penstocktest.Machine, replicas []string) {
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
	state := filepath.Join("/run/penstock", m.Status.Instance)
	for what, pattern := range map[string]string{
		"sandboxes":          filepath.Join(m.Data, "containerd", "sandboxes", "*"),
		"network namespaces": filepath.Join(state, "net", "netns", "*"),
		"cgroups":            "/sys/fs/cgroup/memory/penstock-" + m.Status.Instance + "/replicas/*",
	} {
		if got := names(pattern); !slices.Equal(got, replicas) {
			t.Errorf("%s (%s): %q, want those of %q", what, pattern, got, replicas)
		}
	}
	cables := 0
	for _, l := range m.Links(t) {
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
	for _, point := range penstocktest.MountsBelow(t, m.Data) {
		if filepath.Base(point) == "disk" {
			disks++
		}
	}
	if disks != 0 && disks != len(replicas) {
		t.Errorf("%d disks are mounted, want %d", disks, len(replicas))
	}
}
