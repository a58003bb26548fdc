package doctor_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"penstock/internal/doctor"
)

// find returns the finding of a check.
func find(t *testing.T, found []doctor.Finding, check string) doctor.Finding {
	t.Helper()
	i := slices.IndexFunc(found, func(f doctor.Finding) bool { return f.Check == check })
	if i < 0 {
		t.Fatalf("no finding %q in %+v", check, found)
	}
	return found[i]
}

func TestMachineWithContainers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make mounts, networks and cgroups")
	}
	data := t.TempDir()
	found := doctor.Run(t.Context(), doctor.Options{
		Data: filepath.Join(data, "not", "there", "yet"), Engines: t.TempDir(), Runtime: "containerd", Domain: "penstock.localhost",
	})
	for _, check := range []string{"rights", "kernel", "cgroups", "overlayfs", "user namespaces", "nftables", "bridge and veth", "loop devices", "seccomp"} {
		if f := find(t, found, check); f.Level == doctor.Fail {
			t.Errorf("%s: got %+v, want it to work on the machines that tests run on", check, f)
		}
	}
	for _, check := range []string{"shim", "runc"} {
		if f := find(t, found, check); f.Level != doctor.Fail || f.Mend == "" {
			t.Errorf("%s in an empty folder: got %+v, want a failure and how to mend it", check, f)
		}
	}
	if !doctor.Failed(found) {
		t.Error("a machine without runc is said to be fine")
	}
	// It tries things and leaves nothing.
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), data) || strings.Contains(string(mounts), "penstock-doctor") {
		t.Errorf("left mounts: %v\n%s", err, mounts)
	}
	if left, err := os.ReadDir(data); err != nil || len(left) > 0 {
		t.Errorf("left in the data folder: %v %v", left, err)
	}
	if left, err := filepath.Glob("/sys/fs/cgroup/*/penstock-doctor-*"); err != nil || len(left) > 0 {
		t.Errorf("left cgroups: %v %v", left, err)
	}
	if _, err := net.InterfaceByName("pdoctor0"); err == nil {
		t.Error("left a bridge on the machine's network")
	}
}

func TestFakeRuntimeNeedsNoEngine(t *testing.T) {
	found := doctor.Run(t.Context(), doctor.Options{Data: t.TempDir(), Runtime: "fake", Domain: "localhost"})
	for _, f := range found {
		if f.Check == "runc" || f.Check == "cgroups" {
			t.Errorf("got %+v, want nothing of the engine", f)
		}
	}
	if f := find(t, found, "names"); f.Level == doctor.Fail {
		t.Errorf("got %+v; names that do not resolve are no reason to fail", f)
	}
}

func TestPorts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	run := func(address string, server int) doctor.Finding {
		return find(t, doctor.Run(t.Context(), doctor.Options{
			Data: t.TempDir(), Runtime: "fake", Domain: "localhost", Running: server,
			Listeners: []doctor.Listener{{Name: "http", Address: address, Setting: "--http"}},
		}), "http port")
	}
	f := run(ln.Addr().String(), 0)
	if f.Level != doctor.Fail || !strings.Contains(f.Found, "pid "+strconv.Itoa(os.Getpid())) || !strings.Contains(f.Mend, "--http") {
		t.Errorf("port in use: got %+v, want a failure that names this process and --http", f)
	}
	if f := run(ln.Addr().String(), os.Getpid()); f.Level != doctor.OK {
		t.Errorf("port of the running server: got %+v, want ok", f)
	}
	if f := run("127.0.0.1:0", 0); f.Level != doctor.OK {
		t.Errorf("free port: got %+v, want ok", f)
	}
	if f := run("192.0.2.1:8080", 0); f.Level != doctor.Fail { // an address for documentation (RFC 5737)
		t.Errorf("address of another machine: got %+v, want a failure", f)
	}
}

func TestRelease(t *testing.T) {
	tests := map[string]struct {
		release      string
		major, minor int
		wrong        bool
	}{
		"distribution": {"6.1.0-32-amd64", 6, 1, false},
		"plus":         {"5.19+", 5, 19, false},
		"short":        {"6.18", 6, 18, false},
		"one number":   {"6", 0, 0, true},
		"empty":        {"", 0, 0, true},
		"words":        {"six.one", 0, 0, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			major, minor, err := doctor.Release(tt.release)
			if major != tt.major || minor != tt.minor || (err != nil) != tt.wrong {
				t.Errorf("%q: got %d, %d, %v, want %d, %d", tt.release, major, minor, err, tt.major, tt.minor)
			}
		})
	}
}

func FuzzRelease(f *testing.F) {
	for _, s := range []string{"6.18.44-fc-v595", "5.19+", "6", "", "4.4.0-generic"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		major, minor, err := doctor.Release(s)
		if err == nil && (major < 0 || minor < 0) {
			t.Errorf("%q: got %d, %d", s, major, minor)
		}
	})
}

func TestVersion(t *testing.T) {
	tests := map[string]struct{ answer, want string }{
		"shim": {"containerd-shim-runc-v2:\n  Version:  v2.4.2\n  Revision: abc\n", "v2.4.2"},
		"runc": {"runc version 1.5.2\ncommit: abc\nspec: 1.3.0\n", "runc version 1.5.2"},
		"mute": {"", ""},
	}
	for name, tt := range tests {
		if got := doctor.Version(tt.answer); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
