package supervisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/internal/supervisor"
)

// running is a supervisor in this process with its roles.
type running struct {
	*supervisor.Supervisor
	dir     string
	upgrade chan struct{}
	cancel  context.CancelFunc
	result  chan error
	log     *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func options(t *testing.T, dir string) supervisor.Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return supervisor.Options{
		Data: dir, Run: filepath.Join(dir, "run"), Exe: exe,
		Listeners: []supervisor.Listener{
			{Name: "http", Network: "tcp", Address: "127.0.0.1:0", Setting: "--http"},
			{Name: "other", Network: "unix", Address: "other.sock"},
			{Name: "packets", Network: "udp", Address: "127.0.0.1:0"},
			{Name: "private", Network: "udp", Address: ":0", Private: true},
		},
		ReadyLimit: 6 * time.Second, StopLimit: 10 * time.Second,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// begin runs a supervisor and returns when its roles are ready.
func begin(t *testing.T, change func(*supervisor.Options)) *running {
	t.Helper()
	dir := t.TempDir()
	setMode(t, dir, "serve")
	log := &syncBuffer{}
	o := options(t, dir)
	o.Log = slog.New(slog.NewTextHandler(io.MultiWriter(log, t.Output()), nil))
	if change != nil {
		change(&o)
	}
	s, err := supervisor.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Supervisor: s, dir: dir, upgrade: make(chan struct{}), cancel: cancel, result: make(chan error, 1), log: log}
	ready := make(chan struct{})
	go func() { r.result <- s.Run(ctx, roles(dir), r.upgrade, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-r.result:
		case <-time.After(time.Minute):
			t.Error("the supervisor did not end")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-r.result:
		r.result <- err
		t.Fatalf("ended before it was ready: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("roles are not ready")
	}
	return r
}

// end stops the supervisor and returns what Run returned.
func (r *running) end(t *testing.T) error {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.result:
		r.result <- err // for the clean-up
		return err
	case <-time.After(time.Minute):
		t.Fatal("the supervisor did not end")
		return nil
	}
}

func setMode(t *testing.T, dir, mode string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "mode"), []byte(mode), 0o644); err != nil {
		t.Fatal(err)
	}
}

func diary(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "diary"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Fields(strings.ReplaceAll(strings.ReplaceAll(string(b), " ", "_"), "\n", " "))
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("did not come: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// pid asks a role who serves it, over a connection of its own.
func pid(t *testing.T, addr net.Addr) int {
	t.Helper()
	n, err := ask(addr, "/")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ask(addr net.Addr, path string) (int, error) {
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, addr.Network(), addr.String())
		},
	}}
	resp, err := c.Get("http://role" + path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(b))
}

func TestRoleThatDiesIsStartedAgainAndTheOtherIsNotDisturbed(t *testing.T) {
	r := begin(t, nil)
	first, second := pid(t, r.Addr("http")), pid(t, r.Addr("other"))
	if first == second || first == os.Getpid() {
		t.Fatalf("roles are not processes of their own: %d, %d", first, second)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Connections made while nobody serves wait for the next process; none is refused.
	began := time.Now()
	var next int
	eventually(t, "another process serves", func() bool {
		n, err := ask(r.Addr("http"), "/")
		if errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal("refused while the role was away")
		}
		next = n
		return err == nil && n != first
	})
	t.Logf("another process served %s after the kill", time.Since(began).Round(time.Millisecond))
	if got := pid(t, r.Addr("other")); got != second {
		t.Errorf("second role is process %d, want %d as before", got, second)
	}
	if err := syscall.Kill(next, 0); err != nil {
		t.Error(err)
	}
}

func TestHandOverUnderLoadLosesNothing(t *testing.T) {
	r := begin(t, nil)
	base := "http://" + r.Addr("http").String()
	var sent, lost atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	// load sends requests that no client may repeat, one after another.
	load := func(path string, keepAlive bool, pause time.Duration) {
		transport := &http.Transport{DisableKeepAlives: !keepAlive}
		defer transport.CloseIdleConnections()
		c := &http.Client{Transport: transport, Timeout: 20 * time.Second}
		for {
			select {
			case <-stop:
				return
			default:
			}
			sent.Add(1)
			resp, err := c.Post(base+path, "text/plain", io.NopCloser(strings.NewReader("body")))
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if err != nil {
				if lost.Add(1) < 5 {
					t.Error(err)
				}
			}
			time.Sleep(pause)
		}
	}
	for i := range 6 {
		wg.Go(func() { load("/", true, time.Duration(i)*time.Millisecond) })
		wg.Go(func() { load("/", false, 3*time.Millisecond) })
		wg.Go(func() { load("/", true, 150*time.Millisecond) })
	}
	for range 3 {
		wg.Go(func() { load("/stream", true, 0) })
	}
	before := pid(t, r.Addr("http"))
	for i := range 3 {
		if i == 2 {
			setMode(t, r.dir, "die")
		}
		goal := sent.Load() + 500
		eventually(t, "load between two hand-overs", func() bool { return sent.Load() >= goal })
		was := pid(t, r.Addr("http"))
		outcome := "hand-over done"
		if i == 2 {
			outcome = "hand-over failed"
		}
		seen := strings.Count(r.log.String(), outcome)
		r.upgrade <- struct{}{}
		eventually(t, outcome, func() bool { return strings.Count(r.log.String(), outcome) > seen })
		now := pid(t, r.Addr("http"))
		if i == 2 != (now == was) {
			t.Errorf("hand-over %d: served by %d, before by %d", i, now, was)
		}
	}
	close(stop)
	wg.Wait()
	if n := lost.Load(); n > 0 {
		t.Errorf("%d of %d requests lost", n, sent.Load())
	}
	eventually(t, "the first process has drained", func() bool { return errors.Is(syscall.Kill(before, 0), syscall.ESRCH) })
	t.Logf("%d requests over three hand-overs, one of them failing, %d lost", sent.Load(), lost.Load())
}

func TestHandOverThatFailsKeepsTheOldProcess(t *testing.T) {
	for mode, want := range map[string]string{"die": "ended before it was ready", "silent": "not ready within"} {
		t.Run(mode, func(t *testing.T) {
			r := begin(t, nil)
			first, second := pid(t, r.Addr("http")), pid(t, r.Addr("other"))
			setMode(t, r.dir, mode)
			r.upgrade <- struct{}{}
			eventually(t, "the failure is logged", func() bool {
				log := r.log.String()
				return strings.Contains(log, "hand-over failed") && strings.Contains(log, want)
			})
			if got := pid(t, r.Addr("http")); got != first {
				t.Errorf("first role is process %d, want %d as before", got, first)
			}
			if got := pid(t, r.Addr("other")); got != second {
				t.Errorf("second role is process %d, want %d as before", got, second)
			}
			setMode(t, r.dir, "serve")
			r.upgrade <- struct{}{}
			eventually(t, "a good program is handed over to", func() bool {
				return pid(t, r.Addr("http")) != first && pid(t, r.Addr("other")) != second
			})
		})
	}
}

func TestRolesEndInOrder(t *testing.T) {
	r := begin(t, nil)
	if err := r.end(t); err != nil {
		t.Fatal(err)
	}
	want := []string{"first_got_SIGTERM", "first_ended", "second_got_SIGTERM", "second_ended"}
	if got := diary(t, r.dir); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRoleThatDoesNotEndIsKilled(t *testing.T) {
	r := begin(t, func(o *supervisor.Options) { o.StopLimit = 200 * time.Millisecond })
	setMode(t, r.dir, "stubborn")
	first := pid(t, r.Addr("http"))
	r.upgrade <- struct{}{}
	var stubborn int
	eventually(t, "a new process serves", func() bool { stubborn = pid(t, r.Addr("http")); return stubborn != first })
	eventually(t, "hand-over is done", func() bool { return strings.Contains(r.log.String(), "hand-over done") })
	if err := r.end(t); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(stubborn, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v, want it gone", stubborn, err)
	}
}

func TestServerMayEndDuringAHandOver(t *testing.T) {
	r := begin(t, func(o *supervisor.Options) { o.ReadyLimit = time.Hour })
	first := pid(t, r.Addr("http"))
	setMode(t, r.dir, "silent")
	r.upgrade <- struct{}{}
	// The new process takes connections too and never says that it is ready.
	eventually(t, "the new process runs", func() bool { return pid(t, r.Addr("http")) != first })
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(first, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v, want it gone", first, err)
	}
}

func TestRoleMayEndTheServer(t *testing.T) {
	r := begin(t, nil)
	if _, err := ask(r.Addr("other"), "/stop"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-r.result:
		r.result <- err
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the supervisor did not end")
	}
}

func TestRoleThatNeverStartsEndsTheServer(t *testing.T) {
	dir := t.TempDir()
	setMode(t, dir, "die")
	s, err := supervisor.New(options(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Run(t.Context(), roles(dir), nil, func() { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), "did not start in 3 attempts") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want that a role did not start, and how it ended", err)
	}
}

func TestPacketsAreHandedOverToo(t *testing.T) {
	r := begin(t, nil)
	conn, err := net.Dial("udp", r.Addr("packets").String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() int {
		buf := make([]byte, 100)
		n := 0
		eventually(t, "an answer", func() bool {
			conn.SetDeadline(time.Now().Add(time.Second))
			if _, err := conn.Write([]byte("who")); err != nil {
				return false
			}
			n, err = conn.Read(buf)
			return err == nil
		})
		pid, err := strconv.Atoi(string(buf[:n]))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	before := ask()
	if want := pid(t, r.Addr("http")); before != want {
		t.Errorf("process %d answered, want %d", before, want)
	}
	r.upgrade <- struct{}{}
	eventually(t, "the new process answers", func() bool { return ask() != before })
}

func TestPrivateListenersNeedNoAddressOfTheMachine(t *testing.T) {
	r := begin(t, nil)
	addr := r.Addr("private").(*net.UDPAddr).AddrPort()
	if addr.Addr() != supervisor.Private(r.Instance()) || addr.Port() == 0 || !addr.Addr().IsLinkLocalUnicast() {
		t.Errorf("listens on %s, want a port of the link-local address %s", addr, supervisor.Private(r.Instance()))
	}
}

func TestOneServerADataFolder(t *testing.T) {
	r := begin(t, nil)
	_, err := supervisor.New(options(t, r.dir))
	locked, ok := errors.AsType[*supervisor.LockedError](err)
	if !ok || locked.PID != os.Getpid() || !strings.Contains(err.Error(), r.dir) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v, want an error that names %s and pid %d", err, r.dir, os.Getpid())
	}
	if got, err := supervisor.Running(r.dir); err != nil || got != os.Getpid() {
		t.Errorf("running: got %d, %v, want %d", got, err, os.Getpid())
	}
	if got, err := supervisor.Running(t.TempDir()); err != nil || got != 0 {
		t.Errorf("running on an empty folder: got %d, %v, want 0", got, err)
	}
}

// Who can open a file can lock it, and so keep a server from starting.
func TestLocksBelongToRoot(t *testing.T) {
	dir := t.TempDir()
	before := filepath.Join(dir, "lock") // as earlier versions made it
	if err := os.WriteFile(before, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := supervisor.New(options(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := supervisor.Exclusive(t.Context(), s.State(), "control"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{before, filepath.Join(s.State(), "control.lock")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: want it to be readable by root only, got %v, %v", path, info, err)
		}
	}
}

func TestTwoServersSideBySide(t *testing.T) {
	a, b := begin(t, nil), begin(t, nil)
	if a.Instance() == b.Instance() || a.State() == b.State() {
		t.Errorf("both are instance %s with state %s", a.Instance(), a.State())
	}
	if err := a.end(t); err != nil {
		t.Fatal(err)
	}
	pid(t, b.Addr("http"))
}

func TestInstanceIsKept(t *testing.T) {
	dir := t.TempDir()
	open := func() (*supervisor.Supervisor, error) { return supervisor.New(options(t, dir)) }
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	id := s.Instance()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = open(); err != nil {
		t.Fatal(err)
	}
	if s.Instance() != id || len(id) != 8 {
		t.Errorf("got instance %q, want %q as before", s.Instance(), id)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "instance"), []byte("../x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "eight hex digits") {
		t.Errorf("damaged instance: got %v, want an error that says what would be right", err)
	}
}

func TestPortInUseNamesEveryListenerAndWhoHasIt(t *testing.T) {
	var busy []net.Listener
	o := options(t, t.TempDir())
	o.Listeners = nil
	for _, name := range []string{"http", "arm"} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		busy = append(busy, ln)
		o.Listeners = append(o.Listeners, supervisor.Listener{Name: name, Network: "tcp", Address: ln.Addr().String(), Setting: "--" + name})
	}
	_, err := supervisor.New(o)
	if err == nil {
		t.Fatal("opened ports that are in use")
	}
	for i, name := range []string{"http", "arm"} {
		for _, want := range []string{name + " listener " + busy[i].Addr().String(), "pid " + strconv.Itoa(os.Getpid()), "--" + name} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %q, want it to name %q", err, want)
			}
		}
	}
}

func TestRolesHaveCgroupsOfTheirOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make cgroups")
	}
	r := begin(t, func(o *supervisor.Options) { o.CgroupRoot = "/sys/fs/cgroup" })
	want := "/" + supervisor.CgroupParent(r.Instance()) + "/roles/second"
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid(t, r.Addr("other"))))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), want) {
		t.Errorf("got\n%swant a line with %s", b, want)
	}
	if err := r.end(t); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*/" + supervisor.CgroupParent(r.Instance()))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestMissingCgroupsAreAWarning(t *testing.T) {
	r := begin(t, func(o *supervisor.Options) { o.CgroupRoot = t.TempDir() })
	if !strings.Contains(r.log.String(), "roles share the server's cgroup") {
		t.Errorf("got log\n%s\nwant a warning about cgroups", r.log)
	}
}

func TestKilledSupervisorLeavesNoOrphansAndCanBeStartedAgain(t *testing.T) {
	dir := t.TempDir()
	setMode(t, dir, "serve")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr()
	ln.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := func() *exec.Cmd {
		t.Helper()
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), roleVariable+"=supervisor", dataVariable+"="+dir, "SUPERVISOR_TEST_ADDRESS="+addr.String())
		cmd.Stderr = t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		})
		eventually(t, "the server is ready", func() bool {
			_, err := os.Stat(filepath.Join(dir, "ready"))
			return err == nil
		})
		if err := os.Remove(filepath.Join(dir, "ready")); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	cmd := start()
	role := pid(t, addr)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	start()
	if got := pid(t, addr); got == role {
		t.Errorf("process %d of the killed server still serves", got)
	}
	eventually(t, "the old role is gone", func() bool { return errors.Is(syscall.Kill(role, 0), syscall.ESRCH) })
}
