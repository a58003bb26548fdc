package e2e_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const helloManifest = `
name: hello
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - name: hello
        image: hello:1
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: 20, maxReplicas: 20}
`

// What a user does and what may happen to the machine meanwhile, on one server.
func TestServer(t *testing.T) {
	m := bootMachine(t)
	m.image(t, "hello")
	t.Run("what is built again is neither packed nor sent", func(t *testing.T) {
		out := m.must(t, "build", "-t", "hello:1", "../../examples/hello", "-o", "json")
		if !strings.Contains(out, `"cached": true`) {
			t.Errorf("the second build says: %s", out)
		}
	})
	t.Run("bad containers", func(t *testing.T) { badContainers(t, m) })
	m.apply(t, helloManifest)
	t.Run("roles may be killed under load", func(t *testing.T) { killedRoles(t, m) })
	t.Run("a new server is handed over to", func(t *testing.T) { handOver(t, m) })
	m.must(t, "app", "delete", "hello")
	if left := m.processes(t); len(left) > 0 {
		t.Errorf("a deleted app leaves processes: %v", left)
	}
}

// load keeps asking from several clients until stop is called, which says how it went.
func load(t *testing.T, m *machine, app string) (stop func() (answered, failed int64, longest time.Duration)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var ok, bad, worst atomic.Int64
	for i := range 16 {
		// Half of the clients open a connection for each request.
		client := &http.Client{Transport: &http.Transport{DialContext: m.dial, DisableKeepAlives: i%2 == 0}, Timeout: 30 * time.Second}
		wg.Go(func() {
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				// A body that cannot be had again keeps the client's own transport from trying twice.
				body := io.NopCloser(strings.NewReader("x"))
				r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, "http://"+app+".penstock.localhost/", body)
				if err != nil {
					t.Error(err)
					return
				}
				from := time.Now()
				resp, err := client.Do(r)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				took := int64(time.Since(from))
				if took > int64(2*time.Second) {
					t.Logf("a request took %s", time.Duration(took))
				}
				for old := worst.Load(); took > old && !worst.CompareAndSwap(old, took); old = worst.Load() {
				}
				if err != nil || resp.StatusCode != http.StatusOK {
					bad.Add(1)
					t.Logf("a request failed after %s: %v %+v", time.Since(from), err, resp)
					continue
				}
				ok.Add(1)
			}
		})
	}
	return func() (int64, int64, time.Duration) {
		cancel()
		wg.Wait()
		return ok.Load(), bad.Load(), time.Duration(worst.Load())
	}
}

// killedRoles kills one role after the other under load. Control may lose nothing; ingress only what was on its way.
func killedRoles(t *testing.T, m *machine) {
	before := m.processes(t)
	if len(before) != 20 {
		t.Fatalf("%d replicas run, want 20", len(before))
	}
	for _, role := range []struct {
		name string
		lost int64
	}{{"control", 0}, {"ingress", 16}} {
		stop := load(t, m, "hello")
		pid := m.role(t, role.name)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %s (pid %d): %v", role.name, pid, err)
		}
		until(t, 20*time.Second, role.name+" is back", func() bool {
			now := m.role(t, role.name)
			return now != 0 && now != pid
		})
		from := time.Now()
		until(t, 20*time.Second, "the API and the ingress answer", func() bool {
			_, _, code := m.run(t, "app", "list")
			status, _ := m.ask(t, http.MethodGet, "hello", "/", "")
			return code == 0 && status == http.StatusOK
		})
		took := time.Since(from)
		answered, failed, longest := stop()
		t.Logf("%s killed: answering %s after it was started; %d requests answered, %d failed, the longest took %s",
			role.name, took.Round(time.Millisecond), answered, failed, longest.Round(time.Millisecond))
		if failed > role.lost {
			t.Errorf("%s killed: %d of %d requests failed, want at most the %d that were on their way", role.name, failed, answered+failed, role.lost)
		}
		if answered == 0 {
			t.Error("no request was answered")
		}
	}
	if after := m.processes(t); !maps.Equal(before, after) {
		t.Errorf("processes before %v, after %v", before, after)
	}
}

// handOver replaces both roles by SIGHUP, which loses nothing.
func handOver(t *testing.T, m *machine) {
	before := m.processes(t)
	ingress, control := m.role(t, "ingress"), m.role(t, "control")
	stop := load(t, m, "hello")
	if err := syscall.Kill(m.supervisor(t), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, 30*time.Second, "both roles are new", func() bool {
		i, c := m.role(t, "ingress"), m.role(t, "control")
		_, _, code := m.run(t, "app", "list")
		return i != 0 && c != 0 && i != ingress && c != control && code == 0
	})
	answered, failed, longest := stop()
	t.Logf("handed over: %d requests answered, %d failed, the longest took %s", answered, failed, longest.Round(time.Millisecond))
	if failed > 0 || answered == 0 {
		t.Errorf("%d requests answered, %d failed", answered, failed)
	}
	if after := m.processes(t); !maps.Equal(before, after) {
		t.Errorf("processes before %v, after %v", before, after)
	}
}

// badContainers are manifests that are right and do not work: each ends with its reason, and leaves nothing.
func badContainers(t *testing.T, m *machine) {
	tests := map[string]struct{ change, to, want string }{
		"a container that ends at once": {"image: hello:1", "image: hello:1\n        args: [exit, \"3\"]", "exit code 3"},
		"an image that is not there":    {"hello:1", "hello:2", `image "hello:2": not in this server's store`},
		"a program that is not there":   {"image: hello:1", "image: hello:1\n        command: [/nix]", "/nix"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			manifest := strings.ReplaceAll(helloManifest, "name: hello\nprop", "name: bad\nprop")
			manifest = strings.Replace(manifest, test.change, test.to, 1)
			manifest = strings.Replace(manifest, "minReplicas: 20, maxReplicas: 20", "minReplicas: 1, maxReplicas: 1", 1)
			_, said, code := m.run(t, "up", "-f", m.file(t, manifest))
			if code != 1 || !strings.Contains(said, test.want) {
				t.Errorf("exit %d, want 1 and %q in:\n%s", code, test.want, said)
			}
			if status, answer := m.ask(t, http.MethodGet, "bad", "/", ""); status != http.StatusServiceUnavailable && status != http.StatusNotFound {
				t.Errorf("a request to it: %d %s, want 503 or 404 at once", status, answer)
			}
			if _, said, code := m.run(t, "app", "delete", "bad"); code != 0 && code != 3 { // 3: it was refused and is not there
				t.Errorf("delete: exit %d: %s", code, said)
			}
		})
	}
}
