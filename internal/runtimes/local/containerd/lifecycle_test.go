package containerd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/internal/runtimes/local"
)

func dialed(a netip.Addr, port uint16) bool {
	c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, port).String(), time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// only returns the only container of a replica, as the driver lists it.
func (l *lab) only(replica string) (local.SandboxStatus, local.ContainerStatus) {
	l.Helper()
	list, err := l.driver.List(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	for _, s := range list {
		if s.Replica == replica && len(s.Containers) == 1 {
			return s, s.Containers[0]
		}
	}
	l.Fatalf("no container of %s in %+v", replica, list)
	return local.SandboxStatus{}, local.ContainerStatus{}
}

func lines(text string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %d\n", text, i)
	}
	return b.String()
}

func TestContainerOutlivesTheDriver(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("survivor", nil)
	s, c := l.only(r.name)
	if c.State != local.Running || c.PID != r.pid || c.Started.IsZero() || c.ID != r.id || c.Name != "main" {
		t.Fatalf("listed as %+v, want running with pid %d", c, r.pid)
	}
	r.post("/print", url.Values{"lines": {"100"}, "text": {"before"}})
	until(t, "the lines before", func() bool {
		return strings.HasSuffix(l.console.String(r.id+"/stderr"), "before 99\n")
	})

	l.close()
	r.post("/print", url.Values{"lines": {"1000"}, "text": {"away"}}) // nobody reads now
	l.open()

	s2, c2 := l.only(r.name)
	if c2.State != local.Running || c2.PID != r.pid || !c2.Started.Equal(c.Started) {
		t.Errorf("adopted as %+v, want %+v", c2, c)
	}
	if s2.Address != s.Address || string(s2.Record) != "record of survivor" || s2.Environment != s.Environment {
		t.Errorf("adopted sandbox %+v, want %+v", s2, s)
	}
	if got := r.get("/", nil); got != "hello, survivor\n" {
		t.Errorf("answer %q", got)
	}
	r.post("/print", url.Values{"lines": {"100"}, "text": {"after"}})
	want := lines("before", 100) + lines("away", 1000) + lines("after", 100)
	until(t, "the lines after", func() bool {
		return strings.HasSuffix(l.console.String(r.id+"/stderr"), "after 99\n")
	})
	if got := l.console.String(r.id + "/stderr"); got != want {
		t.Errorf("standard error has %d bytes, want %d: none lost and none twice", len(got), len(want))
	}
	until(t, "standard output too", func() bool {
		return strings.HasSuffix(l.console.String(r.id+"/stdout"), want)
	})

	events := l.watch()
	if err := l.driver.Kill(t.Context(), r.id, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); e.Container != r.id || e.Exit == nil || e.Exit.Code != 0 {
		t.Errorf("end of an adopted container: %+v", e)
	}
}

func TestExitWhileNobodyWatched(t *testing.T) {
	t.Parallel()
	needOwnShim(t)
	l := newLab(t)
	unseen := l.run("unseen", nil)
	seen := l.run("seen", nil)
	events := l.watch()
	seen.post("/exit", url.Values{"code": {"9"}})
	if e := next(t, events); e.Container != seen.id || e.Exit.Code != 9 {
		t.Fatalf("got %+v, want exit 9", e)
	}
	unseen.post("/exit", url.Values{"code": {"9"}, "after": {"200"}})
	l.close()
	until(t, "the server has ended", func() bool { return !dialed(unseen.address, 8080) })
	l.open()
	_, c := l.only("unseen")
	if c.State != local.Exited || c.Exit == nil || c.Exit.Code != 9 || c.Exit.Reason != "Error" || time.Since(c.Exit.At) > time.Minute {
		t.Errorf("ended unseen: %+v, exit %+v", c, c.Exit)
	}
	_, c = l.only("seen")
	if c.State != local.Exited || c.Exit == nil || c.Exit.Code != 9 || c.Exit.Reason != "Error" {
		t.Errorf("ended and seen: %+v, exit %+v", c, c.Exit)
	}
	// A new process in the old sandbox, as after a crash.
	if err := l.driver.Delete(t.Context(), unseen.id); err != nil {
		t.Fatal(err)
	}
	if err := l.driver.Create(t.Context(), l.containerOf("unseen", l.push(nil))); err != nil {
		t.Fatal(err)
	}
	if _, err := l.driver.Start(t.Context(), unseen.id); err != nil {
		t.Fatal(err)
	}
	unseen.waitReady()
}

// TestMain lets this binary act as the platform that a test kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PENSTOCK_TEST_VICTIM"); dir != "" {
		os.Exit(victim(dir))
	}
	os.Exit(m.Run())
}

func TestKilledPlatformLeavesItsContainers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	image := l.push(nil)
	l.close()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "PENSTOCK_TEST_VICTIM="+l.dir, "PENSTOCK_TEST_IMAGE="+image)
	child.Stderr = t.Output()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if err := errors.Join(err, child.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	child.Wait() // it was killed, so this returns an error

	var pid int
	var address string
	if _, err := fmt.Sscan(said, &pid, &address); err != nil {
		t.Fatalf("victim said %q: %v", said, err)
	}
	start := time.Now()
	l.open()
	t.Logf("open after kill -9: %v", time.Since(start))
	_, running := l.only("running")
	if running.State != local.Running || running.PID != pid {
		t.Errorf("adopted as %+v, want running with pid %d", running, pid)
	}
	_, created := l.only("created")
	if created.State != local.Created {
		t.Errorf("adopted as %+v, want created", created)
	}
	if _, err := l.driver.Start(t.Context(), created.ID); err != nil {
		t.Errorf("start of a container that a killed platform created: %v", err)
	}
	r := &replica{lab: l, name: "running", id: running.ID, address: netip.MustParseAddr(address)}
	r.post("/print", url.Values{"lines": {"3"}, "text": {"still here"}})
	until(t, "its lines", func() bool {
		return strings.Contains(l.console.String(r.id+"/stdout"), lines("still here", 3))
	})
}

// victim runs the platform that will be killed. It has one running and one created container.
func victim(dir string) int {
	l := &lab{TB: crude{}, dir: dir, name: filepath.Base(dir), console: &console{}, log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	l.open()
	image := os.Getenv("PENSTOCK_TEST_IMAGE")
	r := l.run("running", func(_ *local.Sandbox, c *local.Container) { c.Image = image })
	if _, err := l.driver.CreateSandbox(context.Background(), l.sandbox("created")); err != nil {
		l.Fatal(err)
	}
	if err := l.driver.Create(context.Background(), l.containerOf("created", image)); err != nil {
		l.Fatal(err)
	}
	fmt.Println(r.pid, r.address)
	select {}
}

func TestAPushIsTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	events := l.watch()
	image := l.push(nil)
	select {
	case e := <-events:
		if !strings.HasSuffix(e.Image, image) || e.Exit != nil || e.OOM != nil {
			t.Errorf("got %+v, want the name of %s", e, image)
		}
	case <-time.After(15 * time.Second):
		t.Errorf("%s was pushed, and nobody was told", image)
	}
}

func TestCallsThatFindNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ctx := t.Context()
	if err := l.driver.Delete(ctx, "nobody"); err != nil {
		t.Errorf("delete: %v, want none", err)
	}
	if err := l.driver.RemoveSandbox(ctx, "nobody"); err != nil {
		t.Errorf("remove sandbox: %v, want none", err)
	}
	if _, err := l.driver.Start(ctx, "nobody"); !errors.Is(err, local.ErrGone) {
		t.Errorf("start: %v, want ErrGone", err)
	}
	if err := l.driver.Kill(ctx, "nobody", syscall.SIGTERM); !errors.Is(err, local.ErrGone) {
		t.Errorf("kill: %v, want ErrGone", err)
	}
	if _, err := l.driver.Usage(ctx, "nobody"); !errors.Is(err, local.ErrGone) {
		t.Errorf("usage: %v, want ErrGone", err)
	}
	if err := l.driver.Create(ctx, l.containerOf("nobody", "x")); !errors.Is(err, local.ErrGone) {
		t.Errorf("create without a sandbox: %v, want ErrGone", err)
	}
	if _, err := l.driver.Image(ctx, "not-there:1"); !errors.Is(err, local.ErrImageNotFound) {
		t.Errorf("image: %v, want ErrImageNotFound", err)
	}
	if _, err := l.driver.CreateSandbox(ctx, l.sandbox("../up")); err == nil {
		t.Error("a sandbox named ../up was made")
	}
}

func TestCommandThatDoesNotExistLeavesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	image := l.push(nil)
	if _, err := l.driver.CreateSandbox(t.Context(), l.sandbox("r")); err != nil {
		t.Fatal(err)
	}
	c := l.containerOf("r", image)
	c.Command = []string{"/not-there"}
	err := l.driver.Create(t.Context(), c)
	if err == nil {
		_, err = l.driver.Start(t.Context(), c.ID)
	}
	if err == nil || !strings.Contains(err.Error(), "/not-there") {
		t.Errorf("got %v, want an error that names /not-there", err)
	}
	if err := l.driver.Delete(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
	if err := l.driver.RemoveSandbox(t.Context(), "r"); err != nil {
		t.Error(err)
	}
	if left := l.leftovers(); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestOutputOfAProgramThatEndsAtOnceIsComplete(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	image := l.push(nil)
	for i := range 5 {
		r := l.start(fmt.Sprintf("short-%d", i), func(_ *local.Sandbox, c *local.Container) {
			c.Image, c.Command = image, []string{"/hello", "exit", "0"}
		})
		if err := l.driver.Delete(t.Context(), r.id); err != nil { // reads to the end
			t.Fatal(err)
		}
		if got := l.console.String(r.id + "/stdout"); got != "exiting with 0\n" && got != "" {
			t.Errorf("printed %q", got)
		}
	}
}

func TestTwoDriversSideBySide(t *testing.T) {
	t.Parallel()
	one, two := newLab(t), newLab(t)
	a, b := one.run("same-name", nil), two.run("same-name", nil)
	if a.get("/", nil) != b.get("/", nil) {
		t.Error("different answers")
	}
	if err := one.driver.Delete(t.Context(), a.id); err != nil {
		t.Fatal(err)
	}
	if got := b.get("/", nil); got != "hello, same-name\n" {
		t.Errorf("after the other's container was deleted: %q", got)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	image := l.push(nil)
	if _, err := l.driver.Image(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		name := fmt.Sprintf("cycle-%d", i)
		r := l.run(name, func(_ *local.Sandbox, c *local.Container) { c.Image = image })
		if err := l.driver.RemoveSandbox(t.Context(), name); err == nil {
			t.Fatal("a sandbox with a running container was removed")
		}
		if err := l.driver.Delete(t.Context(), r.id); err != nil {
			t.Fatal(err)
		}
		if err := l.driver.RemoveSandbox(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "shims have ended", func() bool { return len(l.leftovers()) == 0 || len(l.processes()) == 0 })
	if left := l.leftovers(); len(left) != 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// processes returns the processes that run from this lab's folders.
func (l *lab) processes() []string {
	l.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		l.Fatal(err)
	}
	var found []string
	for _, path := range commands {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), l.dir) {
			found = append(found, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

// leftovers returns everything that is left of containers that were not removed completely.
func (l *lab) leftovers() []string {
	l.Helper()
	found := l.processes()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		l.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.dir) && !strings.Contains(line, "/netns/") && !strings.Contains(line, l.dir+"/s/m ") {
			found = append(found, "mount "+line)
		}
	}
	for _, dir := range []string{"s/t", "s/s", "s/runc/penstock", "s/m/c/io.containerd.runtime.v2.task/penstock", "s/m/x", "s/m/v"} {
		entries, _ := os.ReadDir(filepath.Join(l.dir, dir))
		for _, e := range entries {
			found = append(found, "file "+filepath.Join(dir, e.Name()))
		}
	}
	for _, m := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "unified", ""} {
		for _, below := range []string{"*/cgroup.procs", "*/*/cgroup.procs"} {
			entries, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", m, l.name, "replicas", below))
			for _, e := range entries {
				found = append(found, "cgroup "+e)
			}
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range loops {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), l.dir) {
			found = append(found, "loop device of "+string(b))
		}
	}
	return found
}

// crude is a testing.TB for a process that is not a test.
type crude struct{ testing.TB }

func (crude) Helper()                  {}
func (crude) Context() context.Context { return context.Background() }
func (crude) Output() io.Writer        { return os.Stderr }
func (crude) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}
func (c crude) Fatalf(format string, args ...any) { c.Fatal(fmt.Sprintf(format, args...)) }

// sandboxes returns the folders and namespaces of replicas.
func (l *lab) sandboxes() []string {
	l.Helper()
	var found []string
	for _, pattern := range []string{"root/sandboxes/*", "s/netns/*"} {
		paths, err := filepath.Glob(filepath.Join(l.dir, pattern))
		if err != nil {
			l.Fatal(err)
		}
		found = append(found, paths...)
	}
	return found
}

// A platform that is killed in the wrong moment leaves a shim without a container. The next one ends it, and no other.
func TestShimWithoutAContainerIsEnded(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("kept", nil)
	l.close()
	stray := exec.Command("sh", "-c", "trap '' TERM; while :; do sleep 1; done", "shim", "-id", "nobodys")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stray.Wait() }()
	defer stray.Process.Kill()
	for _, controller := range []string{"cpu", ""} {
		procs := filepath.Join("/sys/fs/cgroup", controller, l.name, "shims/cgroup.procs")
		if _, err := os.Stat(procs); err != nil {
			continue
		}
		if err := os.WriteFile(procs, []byte(strconv.Itoa(stray.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	l.open()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the shim without a container goes on")
	}
	if err := l.driver.Kill(t.Context(), r.id, syscall.SIGCONT); err != nil {
		t.Errorf("the shim of the other: %v", err)
	}
	r.get("/", nil)
}
