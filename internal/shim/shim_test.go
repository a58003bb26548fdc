package shim_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/internal/shim"
)

// pipe creates a named pipe and the Output that holds it.
func pipe(t *testing.T) (path string, o *shim.Output) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "stdout")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := shim.Hold(path, "", os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return path, o
}

func print(t *testing.T, path string, from, to int) {
	t.Helper()
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := from; i < to; i++ {
		if _, err := fmt.Fprintf(w, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
}

// claim does what a restarted platform does: it claims the pipe and takes what was lost.
func claim(t *testing.T, path string) (*os.File, shim.Lost) {
	t.Helper()
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if err := shim.Claim(r); err != nil {
		t.Fatal(err)
	}
	lost, err := shim.TakeLost(path)
	if err != nil {
		t.Fatal(err)
	}
	return r, lost
}

func TestOutputIsKeptWhenItsWriterHasEnded(t *testing.T) {
	path, o := pipe(t)
	print(t, path, 0, 1000)
	r, lost := claim(t, path)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n != 1000 || !strings.HasSuffix(string(text), "line 999\n") || lost != (shim.Lost{}) {
		t.Errorf("%d lines, lost %+v; want all 1000 and none", n, lost)
	}
}

// Nobody reads, and the writer does not block: the oldest lines are dropped, whole, and counted.
func TestAFullPipeLosesItsOldestLines(t *testing.T) {
	path, o := pipe(t)
	const all = 200_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		print(t, path, 0, all)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the writer waits for a reader that is not there")
	}
	r, lost := claim(t, path)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if lost.Lines == 0 || int(lost.Lines)+len(lines) != all {
		t.Fatalf("%d lines lost and %d kept, want %d together", lost.Lines, len(lines), all)
	}
	for i, line := range lines {
		if want := "line " + strconv.Itoa(int(lost.Lines)+i); line != want {
			t.Fatalf("kept line %d is %q, want %q", i, line, want)
		}
	}
	if again, err := shim.TakeLost(path); err != nil || again != (shim.Lost{}) {
		t.Errorf("told again: %+v, %v", again, err)
	}
}

// While there is a reader, even a slow one, nothing is dropped.
func TestAReaderIsWaitedFor(t *testing.T) {
	path, o := pipe(t)
	r, _ := claim(t, path)
	const all = 100_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		print(t, path, 0, all)
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}()
	time.Sleep(1200 * time.Millisecond) // longer than the interval between Output's checks
	select {
	case <-done:
		t.Error("the writer did not wait")
	default:
	}
	text, err := io.ReadAll(r)
	if n := strings.Count(string(text), "\n"); err != nil || n != all {
		t.Errorf("read %d lines (%v), want %d", n, err, all)
	}
	<-done
}

func TestExitIsKept(t *testing.T) {
	dir := t.TempDir()
	if _, err := shim.ReadExit(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing kept: got %v, want ErrNotExist", err)
	}
	want := shim.Exit{PID: 7, Code: 137, At: time.Unix(1, 2).UTC()}
	if err := shim.KeepExit(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, err := shim.ReadExit(dir); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestSettleJoinsEachHierarchy(t *testing.T) {
	const v1 = `30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 25 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
`
	if got, want := shim.Hierarchies(v1), []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/pids"}; !slices.Equal(got, want) {
		t.Errorf("hierarchies %q, want %q", got, want)
	}
	a, b := t.TempDir(), t.TempDir()
	if err := shim.Join([]string{a, b}, "/penstock-x/shims", 42); err != nil {
		t.Fatal(err)
	}
	for _, mount := range []string{a, b} {
		if text, err := os.ReadFile(filepath.Join(mount, "penstock-x", "shims", "cgroup.procs")); err != nil || string(text) != "42" {
			t.Errorf("%q, %v; want the pid written", text, err)
		}
	}
	if err := shim.Join([]string{a}, "../../out", 42); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(a, "out", "cgroup.procs")); err != nil {
		t.Errorf("a path that leads out of the hierarchy: %v, want it kept inside", err)
	}
	file := filepath.Join(a, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := shim.Join([]string{file}, "/x", 42); err == nil || !strings.Contains(err.Error(), "/x") {
		t.Errorf("no such hierarchy: got %v, want an error that names the cgroup", err)
	}
}

func FuzzHierarchies(f *testing.F) {
	f.Add("30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
	f.Add(" - \n - - -")
	f.Fuzz(func(t *testing.T, text string) {
		for _, mount := range shim.Hierarchies(text) {
			if !strings.Contains(text, mount) {
				t.Errorf("%q is not in %q", mount, text)
			}
		}
	})
}
