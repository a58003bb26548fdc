package containerd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A process that nobody knows does not keep a replica from being removed.
func TestRemoveKillsWhatIsLeftInACgroup(t *testing.T) {
	const mount = "/sys/fs/cgroup/systemd"
	cgroup := fmt.Sprintf("penstock-test-%d", os.Getpid())
	dir := filepath.Join(mount, cgroup, "replica", "container")
	if os.Getuid() != 0 || os.MkdirAll(dir, 0o755) != nil {
		t.Skip("needs root and a cgroup hierarchy at " + mount)
	}
	left := exec.CommandContext(t.Context(), "sleep", "600")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, left.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	g := cgroups{v1: map[string]string{"systemd": mount}}
	if err := g.remove(cgroup); err == nil {
		t.Error("the first call: got no error, want the cgroup to be busy")
	}
	if err := left.Wait(); err == nil || left.ProcessState.Success() {
		t.Errorf("the process ended with %v, want it killed", err)
	}
	for end := time.Now().Add(10 * time.Second); g.remove(cgroup) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the cgroup is still there")
		}
	}
}
