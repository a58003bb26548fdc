package fake_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

// console keeps what containers print, by stream.
type console struct {
	mu     sync.Mutex
	opened []local.Output
	closed int
	lines  map[string]*bytes.Buffer
}

type stream struct {
	c    *console
	name string
}

func (c *console) Open(o local.Output) io.WriteCloser {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = append(c.opened, o)
	return stream{c, o.Stream}
}

func (s stream) Write(p []byte) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.c.lines[s.name] == nil {
		s.c.lines[s.name] = &bytes.Buffer{}
	}
	return s.c.lines[s.name].Write(p)
}

func (s stream) Close() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.closed++
	return nil
}

func newDriver(t *testing.T) (*fake.Driver, *console) {
	t.Helper()
	c := &console{lines: map[string]*bytes.Buffer{}}
	d := fake.New(fake.Options{Console: c})
	t.Cleanup(d.Close)
	return d, c
}

var revision = resource.AppID("s", "g", "a").Child("revisions", "a--1")

// run starts a container named main, and returns its address and PID.
func run(t *testing.T, d *fake.Driver, image string, env ...string) (netip.AddrPort, int) {
	t.Helper()
	addr, err := d.CreateSandbox(t.Context(), local.Sandbox{Replica: "r", Revision: revision})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Create(t.Context(), container(image, env...)); err != nil {
		t.Fatal(err)
	}
	pid, err := d.Start(t.Context(), "id")
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(addr, 8080), pid
}

func container(image string, env ...string) local.Container {
	c := local.Container{ID: "id", Replica: "r", Name: "main", Image: image}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		c.Env = append(c.Env, resource.EnvVar{Name: name, Value: value})
	}
	return c
}

// do sends a request. It retries while the port is closed.
func do(t *testing.T, method string, at netip.AddrPort, path, body string) *http.Response {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	end := time.Now().Add(20 * time.Second)
	for {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+at.String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err == nil {
			t.Cleanup(func() { _ = resp.Body.Close() })
			return resp
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func next(t *testing.T, events <-chan local.Event) local.Event {
	t.Helper()
	select {
	case ev := <-events:
		return ev
	case <-time.After(20 * time.Second):
		t.Fatal("no event came")
		return local.Event{}
	}
}

func watch(t *testing.T, d *fake.Driver) <-chan local.Event {
	t.Helper()
	events, err := d.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestAnswers(t *testing.T) {
	d, _ := newDriver(t)
	at, _ := run(t, d, fake.Echo)
	if got := text(t, do(t, http.MethodGet, at, "/", "")); got != "hello from r\n" {
		t.Errorf("GET /: got %q", got)
	}
	if got := text(t, do(t, http.MethodPost, at, "/", "what was sent")); got != "what was sent" {
		t.Errorf("POST /: got %q", got)
	}
	if got := do(t, http.MethodGet, at, "/?status=418", "").StatusCode; got != 418 {
		t.Errorf("status=418: got %d", got)
	}
	if got := do(t, http.MethodGet, at, "/?delay=soon", "").StatusCode; got != http.StatusBadRequest {
		t.Errorf("delay=soon: got %d", got)
	}
	began := time.Now()
	do(t, http.MethodGet, at, "/?delay=30ms", "")
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("delay=30ms: answered after %s", took)
	}
	resp := do(t, http.MethodGet, at, "/?events=3&delay=1ms", "")
	var events []string
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if lines.Text() != "" {
			events = append(events, lines.Text())
		}
	}
	if want := []string{"data: 0", "data: 1", "data: 2"}; !slices.Equal(events, want) || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("events=3: got %q as %q", events, resp.Header.Get("Content-Type"))
	}
}

func TestPort(t *testing.T) {
	for want, env := range map[uint16][]string{
		8080: nil, 9001: {"CONTAINER_APP_PORT=9001"}, 9002: {"CONTAINER_APP_PORT=9001", "PORT=9002"},
	} {
		d, _ := newDriver(t)
		at, _ := run(t, d, fake.Echo, env...)
		do(t, http.MethodGet, netip.AddrPortFrom(at.Addr(), want), "/", "")
	}
}

func TestLoading(t *testing.T) {
	d, _ := newDriver(t)
	at, _ := run(t, d, fake.Echo, "FAKE_START_DELAY=30ms", "FAKE_READY_AFTER=1h")
	began := time.Now()
	resp := do(t, http.MethodGet, at, "/", "") // waits until the port is open
	if took := time.Since(began); took < 20*time.Millisecond || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("loading: want 503 after 30ms, got %d after %s", resp.StatusCode, took)
	}
}

func TestEnds(t *testing.T) {
	tests := map[string]struct {
		image string
		env   []string
		do    func(*testing.T, *fake.Driver, netip.AddrPort)
		code  int
	}{
		"SIGTERM":    {fake.Echo, nil, func(t *testing.T, d *fake.Driver, _ netip.AddrPort) { kill(t, d, syscall.SIGTERM) }, 0},
		"SIGKILL":    {fake.Deaf, nil, func(t *testing.T, d *fake.Driver, _ netip.AddrPort) { kill(t, d, syscall.SIGKILL) }, 137},
		"exit image": {fake.Exit, nil, nil, 3},
		"exit after": {fake.Echo, []string{"FAKE_EXIT_AFTER=20ms", "FAKE_EXIT_CODE=7"}, nil, 7},
		"a crash":    {fake.Echo, nil, func(_ *testing.T, d *fake.Driver, _ netip.AddrPort) { d.Crash("r", 9) }, 9},
		"crash on a path": {fake.Echo, []string{"FAKE_CRASH_ON=/crash"}, func(t *testing.T, _ *fake.Driver, at netip.AddrPort) {
			resp, err := http.Get("http://" + at.String() + "/crash")
			if err == nil {
				t.Errorf("want no answer, got %s", resp.Status)
				_ = resp.Body.Close()
			}
		}, 1},
		"port in use": {fake.Echo, []string{"PORT=9999"}, nil, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d, out := newDriver(t)
			events := watch(t, d)
			if name == "port in use" {
				addr, err := d.CreateSandbox(t.Context(), local.Sandbox{Replica: "r"})
				if err != nil {
					t.Fatal(err)
				}
				taken := &http.Server{Addr: netip.AddrPortFrom(addr, 9999).String(), ReadTimeout: time.Second}
				listening := make(chan struct{})
				go func() { close(listening); _ = taken.ListenAndServe() }()
				<-listening
				do(t, http.MethodGet, netip.AddrPortFrom(addr, 9999), "/", "")
				defer taken.Close()
			}
			at, pid := run(t, d, test.image, test.env...)
			if test.do != nil {
				do(t, http.MethodGet, at, "/", "")
				test.do(t, d, at)
			}
			ev := next(t, events)
			if ev.Exit == nil || ev.Exit.Code != test.code || ev.PID != pid || ev.Container != "id" {
				t.Errorf("want the exit of process %d with code %d, got %+v", pid, test.code, ev)
			}
			list, err := d.List(t.Context())
			if err != nil || list[0].Containers[0].State != local.Exited || list[0].Containers[0].Exit.Code != test.code {
				t.Errorf("list: got %+v, %v", list, err)
			}
			if err := d.Delete(t.Context(), "id"); err != nil {
				t.Error(err)
			}
			out.mu.Lock()
			defer out.mu.Unlock()
			if len(out.opened) != 2 || out.closed != 2 || out.opened[0].Revision != revision && name != "port in use" || out.opened[0].Replica != "r" {
				t.Errorf("console: want stdout and stderr opened and closed, got %+v, %d closed", out.opened, out.closed)
			}
			if name == "port in use" && !strings.Contains(out.lines["stderr"].String(), "address already in use") {
				t.Errorf("stderr: got %q", out.lines["stderr"])
			}
		})
	}
}

func kill(t *testing.T, d *fake.Driver, s syscall.Signal) {
	t.Helper()
	if err := d.Kill(t.Context(), "id", s); err != nil {
		t.Error(err)
	}
}

// A server that gets SIGTERM completes the responses that it has begun.
func TestSIGTERMFinishesRequests(t *testing.T) {
	d, out := newDriver(t)
	events := watch(t, d)
	at, _ := run(t, d, fake.Echo)
	resp := do(t, http.MethodGet, at, "/?events=3&delay=20ms", "") // sends its headers at once
	kill(t, d, syscall.SIGTERM)
	if got := strings.Count(text(t, resp), "data:"); got != 3 {
		t.Errorf("got %d events, want 3", got)
	}
	if ev := next(t, events); ev.Exit == nil || ev.Exit.Code != 0 {
		t.Errorf("got %+v", ev)
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	for _, want := range []string{"listening on", "SIGTERM", "ended with code 0"} {
		if !strings.Contains(out.lines["stdout"].String(), want) {
			t.Errorf("stdout: want %q in %q", want, out.lines["stdout"])
		}
	}
}

func TestOOMComesBeforeTheExit(t *testing.T) {
	d, _ := newDriver(t)
	events := watch(t, d)
	at, _ := run(t, d, fake.Echo, "FAKE_OOM_ON=/oom")
	do(t, http.MethodGet, at, "/", "")
	if resp, err := http.Get("http://" + at.String() + "/oom"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("want no answer, got %s", resp.Status)
	}
	if ev := next(t, events); ev.OOM == nil || ev.Exit != nil {
		t.Errorf("first: want an OOM, got %+v", ev)
	}
	if ev := next(t, events); ev.Exit == nil || ev.Exit.Code != 137 {
		t.Errorf("then: want exit 137, got %+v", ev)
	}
}

func TestUnseenExitIsUnknown(t *testing.T) {
	d, _ := newDriver(t)
	run(t, d, fake.Exit)
	end := time.Now().Add(20 * time.Second)
	for {
		list, err := d.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c := list[0].Containers[0]; c.State == local.Exited {
			if c.Exit.Code != -1 || c.Exit.Reason != "Unknown" {
				t.Errorf("got %+v", c.Exit)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("it does not end")
		}
	}
}

func TestImages(t *testing.T) {
	d, _ := newDriver(t)
	image, err := d.Image(t.Context(), fake.Echo+":1")
	if err != nil {
		t.Fatal(err)
	}
	for ref, found := range map[string]bool{
		fake.Echo: true, fake.Deaf: true, fake.Exit: true, fake.Echo + "@" + image.Digest: true,
		fake.Deaf + "@" + image.Digest: false, "nginx": false, "": false, "fake/": false,
	} {
		if _, err := d.Image(t.Context(), ref); errors.Is(err, local.ErrImageNotFound) == found {
			t.Errorf("image %q: want it found: %t, got %v", ref, found, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	d, _ := newDriver(t)
	ctx := t.Context()
	if err := d.Create(ctx, container(fake.Echo)); !errors.Is(err, local.ErrGone) {
		t.Errorf("Create without a sandbox: got %v", err)
	}
	if _, err := d.CreateSandbox(ctx, local.Sandbox{Replica: "r"}); err != nil {
		t.Fatal(err)
	}
	for _, env := range []string{"PORT=http", "PORT=0", "FAKE_EXIT_CODE=x", "FAKE_READY_AFTER=5", "FAKE_CREATE_ERROR=no"} {
		if err := d.Create(ctx, container(fake.Echo, env)); err == nil {
			t.Errorf("Create with %s: want an error", env)
		}
	}
	if _, err := d.Start(ctx, "id"); !errors.Is(err, local.ErrGone) {
		t.Errorf("Start of what could not be created: got %v", err)
	}
	if err := d.Create(ctx, container(fake.Echo)); err != nil {
		t.Fatal(err)
	}
	if err := d.Create(ctx, container(fake.Echo)); err == nil {
		t.Error("Create of the same again: want an error")
	}
	if err := d.Kill(ctx, "id", syscall.SIGKILL); err != nil {
		t.Errorf("Kill of what does not run: %v", err)
	}
	if err := d.RemoveSandbox(ctx, "r"); err == nil {
		t.Error("RemoveSandbox with a container in it: want an error")
	}
	for range 2 {
		if err := d.Delete(ctx, "id"); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if err := d.RemoveSandbox(ctx, "r"); err != nil {
			t.Errorf("RemoveSandbox: %v", err)
		}
	}
	if _, err := d.Usage(ctx, "r"); !errors.Is(err, local.ErrGone) {
		t.Errorf("Usage of what is gone: got %v", err)
	}
}

func TestSandboxIsMadeOnce(t *testing.T) {
	d, _ := newDriver(t)
	first, err := d.CreateSandbox(t.Context(), local.Sandbox{Replica: "r"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.CreateSandbox(t.Context(), local.Sandbox{Replica: "r"})
	if err != nil || again != first || !first.IsLoopback() {
		t.Errorf("want %s again, got %s, %v", first, again, err)
	}
	other, err := d.CreateSandbox(t.Context(), local.Sandbox{Replica: "other"})
	if err != nil || other == first {
		t.Errorf("want another address than %s, got %s, %v", first, other, err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	d, _ := newDriver(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := d.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case _, open := <-events:
		if open {
			t.Error("want it closed")
		}
	case <-time.After(20 * time.Second):
		t.Error("not closed")
	}
}
