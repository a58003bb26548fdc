package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/supervisor"
)

// machine is a whole server as a user starts it: the program, its two roles, real containers.
type machine struct {
	data    string
	program string
	status  struct {
		HTTPPort  int
		HTTPSPort int
		Instance  string
		InFlight  int
	}
	client *http.Client
}

// program builds penstock once for all tests.
var program = sync.OnceValues(func() (string, error) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "penstock.e2e"), "../../cmd/penstock").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build penstock: %w: %s", err, out)
	}
	return filepath.Join(bin, "penstock.e2e"), nil
})

// bootMachine starts a server with an empty data folder, and ends it and sees that nothing is left of it.
func bootMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	for _, engine := range []string{"runc", "containerd-shim-runc-v2"} {
		if _, err := os.Stat("../../bin/" + engine); err != nil {
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
	m := &machine{data: filepath.Join(data, "data"), program: path, client: &http.Client{Timeout: time.Minute}}
	t.Cleanup(func() {
		m.must(t, "down")
		m.nothingLeft(t)
		if t.Failed() {
			if log, err := os.ReadFile(filepath.Join(m.data, "server.log")); err == nil {
				t.Logf("server log:\n%s", log)
			}
		}
		if err := os.RemoveAll(data); err != nil {
			t.Errorf("the data folder cannot be removed: %v", err)
		}
	})
	m.must(t, "up")
	m.client.Transport = &http.Transport{DialContext: m.dial, MaxIdleConnsPerHost: 64}
	return m
}

// dial leads every name to the server's http listener, as *.localhost does in browsers.
func (m *machine) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, "127.0.0.1:"+strconv.Itoa(m.status.HTTPPort))
}

// run is one command line.
func (m *machine) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(m.program, args...)
	cmd.Env = append(os.Environ(), "PENSTOCK_DATA="+m.data,
		"PENSTOCK_HTTP=127.0.0.1:0", "PENSTOCK_HTTPS=127.0.0.1:0", "PENSTOCK_ARM=127.0.0.1:0", "PENSTOCK_ENGINES="+filepath.Dir(m.program))
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("penstock %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), bad.String(), cmd.ProcessState.ExitCode()
}

// must is run for what has to succeed.
func (m *machine) must(t *testing.T, args ...string) string {
	t.Helper()
	out, bad, code := m.run(t, args...)
	if code != 0 {
		t.Fatalf("penstock %s: exit %d\n%s%s", strings.Join(args, " "), code, out, bad)
	}
	if args[0] == "up" && m.status.HTTPPort == 0 {
		m.readStatus(t)
	}
	return out
}

// readStatus asks the server who it is and where its listeners are.
func (m *machine) readStatus(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.data, "client.json"))
	if err != nil {
		t.Fatal(err)
	}
	var connection struct{ Endpoint, CA, TokenFile string }
	if err := json.Unmarshal(b, &connection); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(connection.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	to := reach(t, target{endpoint: connection.Endpoint, token: strings.TrimSpace(string(token))}, connection.CA)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to.endpoint+"/penstock/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+to.token)
	resp, err := to.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&m.status); err != nil || m.status.HTTPPort == 0 {
		t.Fatalf("status: %+v, %v", m.status, err)
	}
}

// apply writes a manifest and waits until the app is ready.
func (m *machine) apply(t *testing.T, manifest string) {
	t.Helper()
	m.must(t, "up", "-f", m.file(t, manifest))
}

func (m *machine) file(t *testing.T, manifest string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ask sends a request to an app.
func (m *machine) ask(t *testing.T, method, app, path, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+app+".penstock.localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.client.Do(r)
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

// image builds the example's program and its image.
func (m *machine) image(t *testing.T, name string) {
	t.Helper()
	dir := "../../examples/" + name
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", "bin/"+name, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build examples/%s: %v\n%s", name, err, out)
	}
	m.must(t, "build", "-t", name+":1", dir)
}

// processes are the pids of all containers, by replica.
func (m *machine) processes(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		files, err := filepath.Glob(filepath.Join(root, "penstock-"+m.status.Instance, "replicas", "*", "*", "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			pids, err := os.ReadFile(file)
			if err != nil {
				continue // ended meanwhile
			}
			found[filepath.Base(filepath.Dir(filepath.Dir(file)))] = strings.Join(strings.Fields(string(pids)), " ")
		}
	}
	return found
}

// role is the pid of one of the server's roles, the newest when an older one still drains; 0 when there is none.
func (m *machine) role(t *testing.T, name string) (pid int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", m.supervisor(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has ended
		}
		for child := range strings.FieldsSeq(string(children)) {
			command, err := os.ReadFile("/proc/" + child + "/cmdline")
			if err != nil || !strings.Contains(string(command), "role\x00"+name+"\x00") {
				continue
			}
			if n, err := strconv.Atoi(child); err == nil {
				pid = max(pid, n)
			}
		}
	}
	return pid
}

// supervisor is the pid of the process that holds the listeners.
func (m *machine) supervisor(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/run/penstock", m.status.Instance, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// nothingLeft looks for what a server that is down must not leave on the machine.
func (m *machine) nothingLeft(t *testing.T) {
	t.Helper()
	if m.status.Instance == "" {
		return
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), filepath.Dir(m.data)) {
		t.Errorf("mounts are left (%v):\n%s", err, mounts)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if strings.HasPrefix(a.String(), supervisor.Private(m.status.Instance).String()+"/") {
			t.Errorf("the address %s is left", a)
		}
	}
	for pattern, what := range map[string]string{
		"/sys/fs/cgroup/*/penstock-" + m.status.Instance + "/replicas/*": "cgroups",
		"/sys/fs/cgroup/penstock-" + m.status.Instance + "/replicas/*":   "cgroups",
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

// until waits for what comes true by itself.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("did not come true within %s: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// chatWeights makes the weights file that the image of examples/chat has as a layer.
func (m *machine) chatWeights(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("../../examples/chat/weights/model.safetensors"); err == nil {
		return
	}
	cmd := exec.Command("go", "run", "./weights", "-size", "64MiB", "-o", "weights/model.safetensors")
	cmd.Dir = "../../examples/chat"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("weights of examples/chat: %v\n%s", err, out)
	}
}
