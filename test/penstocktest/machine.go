// Package penstocktest starts whole Penstock servers for end-to-end tests: the program with its roles, real containers,
// and a data folder and ports of their own, so that tests of several packages can run beside each other.
package penstocktest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/internal/bench/rollout"
	"penstock/internal/supervisor"
)

// Machine is a whole server as a user starts it: the program, its two roles, real containers.
type Machine struct {
	Data    string // its data folder
	Program string // the path of the penstock binary
	Status  struct {
		HTTPPort  int
		HTTPSPort int
		Instance  string
		InFlight  int
	}
	Client *http.Client // sends every request to the server's HTTP listener
}

// Boot starts a server with an empty data folder. When the test ends, Boot stops the server and checks that it leaves
// nothing on the machine.
func Boot(t *testing.T) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	for _, engine := range []string{"runc", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(Path("bin", engine)); err != nil {
			t.Skipf("bin/%s is missing: make build", engine)
		}
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.MkdirTemp("", "penstock-e2e-") // t.TempDir's names are too long for sockets below them
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(data, 0o755); err != nil { // containers' users walk through it
		t.Fatal(err)
	}
	m := &Machine{Data: filepath.Join(data, "data"), Program: path, Client: &http.Client{Timeout: 2 * time.Minute}}
	t.Cleanup(func() {
		m.Must(t, "down")
		m.nothingLeft(t)
		log, err := os.ReadFile(filepath.Join(m.Data, "server.log"))
		if raceDetector() && bytes.Contains(log, []byte("WARNING: DATA RACE")) {
			t.Error("the server has a data race; its log follows")
		}
		if t.Failed() && err == nil {
			t.Logf("server log:\n%s", log)
		}
		if err := os.RemoveAll(data); err != nil {
			t.Errorf("the data folder cannot be removed: %v", err)
		}
	})
	m.Must(t, "up")
	m.Client.Transport = &http.Transport{DialContext: m.Dial, MaxIdleConnsPerHost: 64}
	return m
}

// Dial connects every host name to the server's HTTP listener, as *.localhost does in browsers.
func (m *Machine) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, "127.0.0.1:"+strconv.Itoa(m.Status.HTTPPort))
}

// Env returns the environment in which penstock commands reach the server.
func (m *Machine) Env() []string {
	return append(os.Environ(), "PENSTOCK_DATA="+m.Data,
		"PENSTOCK_HTTP=127.0.0.1:0", "PENSTOCK_HTTPS=127.0.0.1:0", "PENSTOCK_ARM=127.0.0.1:0", "PENSTOCK_STAY_UP=200ms", "PENSTOCK_ENGINES="+Path("bin"))
}

// Run runs one penstock command against the server.
func (m *Machine) Run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(m.Program, args...)
	cmd.Env = m.Env()
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("penstock %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), bad.String(), cmd.ProcessState.ExitCode()
}

// Must runs a penstock command that has to succeed, and returns what it prints.
func (m *Machine) Must(t *testing.T, args ...string) string {
	t.Helper()
	out, bad, code := m.Run(t, args...)
	if code != 0 {
		t.Fatalf("penstock %s: exit %d\n%s%s", strings.Join(args, " "), code, out, bad)
	}
	if args[0] == "up" && m.Status.HTTPPort == 0 {
		m.ReadStatus(t)
	}
	return out
}

// ReadStatus asks the server for its instance and its ports.
func (m *Machine) ReadStatus(t *testing.T) {
	t.Helper()
	m.API(t).get(t, "/penstock/v1/status", &m.Status)
	if m.Status.HTTPPort == 0 {
		t.Fatalf("status: %+v", m.Status)
	}
}

// Apply writes a manifest and waits until the app is ready.
func (m *Machine) Apply(t *testing.T, manifest string) {
	t.Helper()
	m.Must(t, "up", "-f", m.File(t, manifest))
}

// File writes text to a file that is removed when the test ends, and returns its path.
func (m *Machine) File(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Ask sends a request to an app. The status is 0 when there was no response; the answer then says why.
func (m *Machine) Ask(t *testing.T, method, app, path, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+app+".penstock.localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.Client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// processes finds the server's processes.
func (m *Machine) processes() rollout.Processes {
	return rollout.Processes{Instance: m.Status.Instance}
}

// Processes returns the pids of all containers, by replica.
func (m *Machine) Processes(t *testing.T) map[string]string {
	t.Helper()
	found, err := m.processes().Replicas()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Role returns the pid of one of the server's roles, the newest when an older one still drains; 0 when there is none.
func (m *Machine) Role(t *testing.T, name string) int {
	t.Helper()
	pid, err := m.processes().Role(name)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Supervisor returns the pid of the process that holds the listeners.
func (m *Machine) Supervisor(t *testing.T) int {
	t.Helper()
	pid, err := m.processes().Supervisor()
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// AllReady waits until every replica of the apps is ready, and there are no others.
func (m *Machine) AllReady(t *testing.T, apps map[string]int) {
	t.Helper()
	Until(t, 3*time.Minute, "all replicas are ready", func() bool {
		for _, name := range slices.Sorted(maps.Keys(apps)) {
			n := apps[name]
			out, _, code := m.Run(t, "replica", "list", name, "-o", "json")
			if code != 0 || strings.Count(out, `"runningState": "Running"`) < n || strings.Count(out, `"ready": true`) != n {
				return false
			}
		}
		return true
	})
}

// nothingLeft looks for what a stopped server must not leave on the machine.
func (m *Machine) nothingLeft(t *testing.T) {
	t.Helper()
	if m.Status.Instance == "" {
		return
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), filepath.Dir(m.Data)) {
		t.Errorf("mounts are left (%v):\n%s", err, mounts)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if strings.HasPrefix(a.String(), supervisor.Private(m.Status.Instance).String()+"/") {
			t.Errorf("the address %s is left", a)
		}
	}
	for pattern, what := range map[string]string{
		"/sys/fs/cgroup/*/penstock-" + m.Status.Instance + "/replicas/*": "cgroups",
		"/sys/fs/cgroup/penstock-" + m.Status.Instance + "/replicas/*":   "cgroups",
	} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range left {
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				t.Errorf("%s are left: %s", what, path)
			}
		}
	}
}

// Nightly skips a test that takes too long for each change, unless PENSTOCK_NIGHTLY is set, as `make check-nightly` has it.
// test/report/allowed.txt must name the test.
func Nightly(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("PENSTOCK_NIGHTLY") == "" {
		t.Skipf("%s: make check-nightly", why)
	}
}

// Until waits for what comes true by itself.
func Until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("did not come true within %s: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// FreePort returns a port of loopback that nobody listens on.
func FreePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
