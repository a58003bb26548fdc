package containerd_test

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"penstock/internal/runtimes/local"
	"penstock/internal/shim"
)

// needOwnShim skips the test if the shim is one that was built before Penstock had its own.
func needOwnShim(t *testing.T) {
	t.Helper()
	path, _ := needMachine(t)
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(program, []byte(shim.CgroupAnnotation)) {
		t.Skipf("missing: a newer %s, which make build makes", path)
	}
}

// Output that a container has printed before it ended is read by the next platform, no matter how much later, and only
// once.
func TestOutputOfAContainerThatEndedWhileThePlatformWasAway(t *testing.T) {
	t.Parallel()
	needOwnShim(t)
	l := newLab(t)
	r := l.run("leaver", nil)
	l.close()
	r.post("/print", url.Values{"lines": {"5000"}, "text": {"last words"}})
	r.post("/exit", url.Values{"code": {"3"}})
	until(t, "the server has ended", func() bool { return !dialed(r.address, 8080) })
	for range 2 {
		l.open()
		if _, c := l.only(r.name); c.State != local.Exited || c.Exit == nil || c.Exit.Code != 3 {
			t.Errorf("listed as %+v, exit %+v; want exit 3", c, c.Exit)
		}
		until(t, "its last words", func() bool { return strings.HasSuffix(l.console.String(r.id+"/stderr"), "last words 4999\n") })
		l.close()
	}
	l.open()
	if got := l.console.String(r.id + "/stderr"); got != lines("last words", 5000) {
		t.Errorf("standard error has %d bytes, want %d: none lost and none twice", len(got), len(lines("last words", 5000)))
	}
	if err := l.driver.Delete(t.Context(), r.id); err != nil {
		t.Fatal(err)
	}
}

// A container that prints more than its pipe holds while nobody reads does not block. The oldest lines are lost, and
// the reader is told how many.
func TestAFloodWhileThePlatformIsAway(t *testing.T) {
	t.Parallel()
	needOwnShim(t)
	l := newLab(t)
	r := l.run("chatter", nil)
	l.close()
	const all = 150_000
	text := strings.Repeat("word ", 10)
	r.post("/print", url.Values{"lines": {strconv.Itoa(all)}, "text": {text}})
	l.open()
	var got string
	until(t, "the last line", func() bool {
		got = l.console.String(r.id + "/stderr")
		return strings.HasSuffix(got, text+" "+strconv.Itoa(all-1)+"\n")
	})
	notice, rest, _ := strings.Cut(got, "\n")
	words := strings.Fields(notice)
	if len(words) < 3 || words[0] != "[penstock]" {
		t.Fatalf("the output begins with %q, want what was lost", notice)
	}
	lost, err := strconv.Atoi(words[1])
	if err != nil || lost == 0 {
		t.Fatalf("%q: want a number of lines", notice)
	}
	for i, line := range strings.Split(strings.TrimSuffix(rest, "\n"), "\n") {
		if want := text + " " + strconv.Itoa(lost+i); line != want {
			t.Fatalf("line %d behind the %d lost ones is %q, want %q", i, lost, line, want)
		}
	}
	if kept := len(rest); kept < 512<<10 {
		t.Errorf("%d bytes are kept, want half of the pipe at least", kept)
	}
}

// If a container's shim was killed too, nobody knows how the container ended.
func TestAContainerWhoseShimWasKilled(t *testing.T) {
	t.Parallel()
	needOwnShim(t)
	l := newLab(t)
	r := l.run("orphan", nil)
	its := parent(t, r.pid)
	l.close()
	for _, pid := range []int{its, r.pid} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the server has ended", func() bool { return !dialed(r.address, 8080) })
	l.open()
	if _, c := l.only(r.name); c.State != local.Exited || c.Exit == nil || c.Exit.Code != -1 || c.Exit.Reason != "Unknown" {
		t.Errorf("listed as %+v, exit %+v; want an unknown one", c, c.Exit)
	}
}

// A shim is not in this process's cgroup and does not have its environment variables.
func TestAShimIsItsOwn(t *testing.T) {
	needOwnShim(t)
	l := newLab(t)
	t.Setenv("PENSTOCK_TEST_SECRET", "value")
	r := l.run("shimmed", nil)
	its := strconv.Itoa(parent(t, r.pid))
	groups, err := os.ReadFile(filepath.Join("/proc", its, "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	want := ":/" + l.name + "/shims\n"
	for _, controller := range []string{":memory", "cpu,", ":pids", "0:"} {
		for line := range strings.Lines(string(groups)) {
			if strings.Contains(line, controller) && !strings.HasPrefix(line, "0:") && !strings.HasSuffix(line, want) {
				t.Errorf("cgroup %q, want /%s/shims", strings.TrimSpace(line), l.name)
			}
		}
	}
	if !strings.Contains(string(groups), want) {
		t.Errorf("cgroups of the shim:\n%swant /%s/shims", groups, l.name)
	}
	environment, err := os.ReadFile(filepath.Join("/proc", its, "environ"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"PENSTOCK_TEST_SECRET=", "HOME="} {
		if strings.Contains(string(environment), name) {
			t.Errorf("the shim has the variable %s", name)
		}
	}
}

// parent returns the PID of a process's parent, which for a container is its shim.
func parent(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	ppid, err := strconv.Atoi(strings.Fields(rest)[1])
	if err != nil || ppid < 2 {
		t.Fatalf("parent of %d: %d, %v", pid, ppid, err)
	}
	return ppid
}
