package e2e_test

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
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
	t.Run("busy is not hung", func(t *testing.T) { busy(t, m) })
	m.apply(t, helloManifest)
	t.Run("roles may be killed under load", func(t *testing.T) { killedRoles(t, m) })
	t.Run("roles are replaced under load", func(t *testing.T) { handOver(t, m) })
	m.must(t, "app", "delete", "hello")
	if left := m.processes(t); len(left) > 0 {
		t.Errorf("a deleted app leaves processes: %v", left)
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
	}{{"control", 0}, {"ingress", 8 + 8 + streamsOpen}} {
		stop := press(t, m, "hello")
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
		p := stop()
		answered, failed, _ := p.counts()
		t.Logf("%s killed: answering %s after it was started%s", role.name, took.Round(time.Millisecond), p)
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

// handOver replaces both roles by SIGHUP, and kills control, over and over; neither loses anything. PENSTOCK_HANDOVERS
// sets how often.
func handOver(t *testing.T, m *machine) {
	rounds := times("PENSTOCK_HANDOVERS", 1)
	before := m.processes(t)
	replaced := func(ingress, control int) bool {
		i, c := m.role(t, "ingress"), m.role(t, "control")
		_, _, code := m.run(t, "app", "list")
		return i != 0 && c != 0 && i != ingress && c != control && code == 0
	}
	for _, way := range []struct {
		what string
		do   func()
	}{
		{"hand-overs", func() {
			ingress, control := m.role(t, "ingress"), m.role(t, "control")
			if err := syscall.Kill(m.supervisor(t), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			until(t, 30*time.Second, "both roles are new", func() bool { return replaced(ingress, control) })
		}},
		{"restarts of control", func() {
			control := m.role(t, "control")
			if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			until(t, 30*time.Second, "control is new", func() bool { return replaced(0, control) })
		}},
	} {
		recorded := requests(t, m, "hello")
		stop := press(t, m, "hello")
		began := time.Now()
		for range rounds {
			way.do()
		}
		took := time.Since(began)
		p := stop()
		answered, failed, longest := p.counts()
		t.Logf("%d %s in %s%s", rounds, way.what, took.Round(time.Millisecond), p)
		if failed > 0 || answered == 0 {
			t.Errorf("%d %s: %d requests answered, %d failed", rounds, way.what, answered, failed)
		}
		if longest > 5*time.Second {
			t.Errorf("%d %s: a request took %s", rounds, way.what, longest)
		}
		if recorded+int(answered) < mostRequests {
			until(t, 5*time.Second, "a record of each request", func() bool { return requests(t, m, "hello")-recorded >= int(answered) })
		}
	}
	if after := m.processes(t); !maps.Equal(before, after) {
		t.Errorf("processes before %v, after %v", before, after)
	}
}

// mostRequests is how many records the API answers at once.
const mostRequests = 100_000

// requests counts the access records of an app.
func requests(t *testing.T, m *machine, app string) int {
	t.Helper()
	return strings.Count(m.must(t, "app", "requests", app, "--tail", strconv.Itoa(mostRequests), "-o", "json"), "\n")
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

const busyManifest = `
name: busy
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - name: hello
        image: hello:1
        resources: {cpu: 0.25, memory: 0.5Gi}
        probes:
          - {type: Liveness, httpGet: {path: /hang, port: 8080}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 3}
    terminationGracePeriodSeconds: 0
    scale: {minReplicas: 1, maxReplicas: 1}
`

// busy streams for longer than three failures of a liveness probe take, from a replica that never answers it.
func busy(t *testing.T, m *machine) {
	m.apply(t, busyManifest)
	status, text := m.ask(t, http.MethodGet, "busy", "/stream?ms=4500", "")
	if status != http.StatusOK || !strings.HasSuffix(text, "end\n") {
		t.Errorf("the stream of a busy replica: status %d, ends with %q", status, text[max(0, len(text)-20):])
	}
	if out := m.must(t, "app", "events", "busy"); !strings.Contains(out, "while the replica was answering; not counted") {
		t.Errorf("no event tells that probes were not counted:\n%s", out)
	}
	m.must(t, "app", "delete", "busy")
}
