package restarts_test

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/internal/bench/rollout"
	"penstock/test/penstocktest"
)

// What a user does and what may happen to the machine meanwhile, on one server.
func TestServer(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	t.Run("what is built again is neither packed nor sent", func(t *testing.T) {
		out := m.Must(t, "build", "-t", "hello:1", "../../../examples/hello", "-o", "json")
		if !strings.Contains(out, `"cached": true`) {
			t.Errorf("the second build says: %s", out)
		}
	})
	t.Run("bad containers", func(t *testing.T) { badContainers(t, m) })
	t.Run("busy is not hung", func(t *testing.T) { busy(t, m) })
	m.Apply(t, penstocktest.Hello("hello", 20))
	t.Run("roles may be killed under load", func(t *testing.T) { killedRoles(t, m) })
	t.Run("roles are replaced under load", func(t *testing.T) { handOver(t, m) })
	t.Run("no end of a replica is lost with control", func(t *testing.T) { endsUnderKill(t, m) })
	m.Must(t, "app", "delete", "hello")
	if left := m.Processes(t); len(left) > 0 {
		t.Errorf("a deleted app leaves processes: %v", left)
	}
}

// killedRoles kills one role after the other under load. Control may lose nothing; ingress only what was on its way.
func killedRoles(t *testing.T, m *penstocktest.Machine) {
	before := m.Processes(t)
	if len(before) != 20 {
		t.Fatalf("%d replicas run, want 20", len(before))
	}
	for _, role := range []struct {
		name string
		lost int64
	}{{"control", 0}, {"ingress", int64(rollout.InHand())}} {
		stop := m.Press(t, "hello")
		pid := m.Role(t, role.name)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %s (pid %d): %v", role.name, pid, err)
		}
		penstocktest.Until(t, time.Minute, role.name+" is back", func() bool {
			now := m.Role(t, role.name)
			return now != 0 && now != pid
		})
		from := time.Now()
		penstocktest.Until(t, time.Minute, "the API and the ingress answer", func() bool {
			_, _, code := m.Run(t, "app", "list")
			status, _ := m.Ask(t, http.MethodGet, "hello", "/", "")
			return code == 0 && status == http.StatusOK
		})
		took := time.Since(from)
		p := stop()
		answered, failed, _ := p.Counts()
		t.Logf("%s killed: answering %s after it was started%s", role.name, took.Round(time.Millisecond), p)
		if failed > role.lost {
			t.Errorf("%s killed: %d of %d requests failed, want at most the %d that were on their way", role.name, failed, answered+failed, role.lost)
		}
		if answered == 0 {
			t.Error("no request was answered")
		}
	}
	if after := m.Processes(t); !maps.Equal(before, after) {
		t.Errorf("processes before %v, after %v", before, after)
	}
}

// endsUnderKill kills control while 20 replicas end, again and again. Each of their ends is told.
func endsUnderKill(t *testing.T, m *penstocktest.Machine) {
	before := m.Processes(t)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		m.Run(t, "app", "stop", "hello") // the server that it asks is killed
	}()
	penstocktest.Until(t, time.Minute, "the first replica has ended", func() bool { return len(m.Processes(t)) < len(before) })
	kills := 0
	for ; kills == 0 || len(m.Processes(t)) > 0; kills++ {
		control := m.Role(t, "control")
		if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
			t.Fatalf("kill control (pid %d): %v", control, err)
		}
		penstocktest.Until(t, time.Minute, "control is back", func() bool {
			now := m.Role(t, "control")
			_, _, code := m.Run(t, "app", "list")
			return now != 0 && now != control && code == 0
		})
	}
	t.Logf("control was killed %d times while %d replicas ended", kills, len(before))
	<-stopped
	ends := map[string]string{} // by replica
	penstocktest.Until(t, time.Minute, "all ends are told", func() bool {
		for line := range strings.Lines(m.Must(t, "app", "events", "hello", "--tail", "2000")) {
			if _, text, ok := strings.Cut(line, "Replica '"); ok && strings.Contains(line, "ReplicaEnded") {
				replica, _, _ := strings.Cut(text, "'")
				if was, told := ends[replica]; told && was != text {
					t.Fatalf("two ends of one replica:\n%s%s", was, text)
				}
				ends[replica] = text
			}
		}
		return len(ends) >= len(before)
	})
	if len(ends) != len(before) {
		t.Errorf("%d replicas ran and %d ends were told", len(before), len(ends))
	}
	m.Must(t, "app", "start", "hello")
	penstocktest.Until(t, 3*time.Minute, "all replicas are back", func() bool { return len(m.Processes(t)) == len(before) })
}

// handOver replaces both roles by SIGHUP, and kills control, over and over; neither loses anything. PENSTOCK_HANDOVERS
// sets how often.
func handOver(t *testing.T, m *penstocktest.Machine) {
	rounds := penstocktest.Times("PENSTOCK_HANDOVERS", 1)
	before := m.Processes(t)
	replaced := func(ingress, control int) bool {
		i, c := m.Role(t, "ingress"), m.Role(t, "control")
		_, _, code := m.Run(t, "app", "list")
		return i != 0 && c != 0 && i != ingress && c != control && code == 0
	}
	for _, way := range []struct {
		what string
		do   func()
	}{
		{"hand-overs", func() {
			ingress, control := m.Role(t, "ingress"), m.Role(t, "control")
			if err := syscall.Kill(m.Supervisor(t), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			penstocktest.Until(t, time.Minute, "both roles are new", func() bool { return replaced(ingress, control) })
		}},
		{"restarts of control", func() {
			control := m.Role(t, "control")
			if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			penstocktest.Until(t, time.Minute, "control is new", func() bool { return replaced(0, control) })
		}},
	} {
		recorded := requests(t, m, "hello")
		stop := m.Press(t, "hello")
		began := time.Now()
		for range rounds {
			way.do()
		}
		took := time.Since(began)
		p := stop()
		answered, failed, longest := p.Counts()
		t.Logf("%d %s in %s%s", rounds, way.what, took.Round(time.Millisecond), p)
		if failed > 0 || answered == 0 {
			t.Errorf("%d %s: %d requests answered, %d failed", rounds, way.what, answered, failed)
		}
		if longest > penstocktest.LongestRequest {
			t.Errorf("%d %s: a request took %s", rounds, way.what, longest)
		}
		if recorded+int(answered) < mostRequests {
			penstocktest.Until(t, time.Minute, "a record of each request", func() bool { return requests(t, m, "hello")-recorded >= int(answered) })
		}
	}
	if after := m.Processes(t); !maps.Equal(before, after) {
		t.Errorf("processes before %v, after %v", before, after)
	}
}

// mostRequests is how many records the API answers at once.
const mostRequests = 100_000

// requests counts the access records of an app.
func requests(t *testing.T, m *penstocktest.Machine, app string) int {
	t.Helper()
	return strings.Count(m.Must(t, "app", "requests", app, "--tail", strconv.Itoa(mostRequests), "-o", "json"), "\n")
}

// badContainers are manifests that are right and do not work: each ends with its reason, and leaves nothing.
func badContainers(t *testing.T, m *penstocktest.Machine) {
	tests := map[string]struct{ change, to, want string }{
		"a container that ends at once": {"image: hello:1", "image: hello:1\n        args: [exit, \"3\"]", "exit code 3"},
		"an image that is not there":    {"hello:1", "hello:2", `image "hello:2": not in this server's store`},
		"a program that is not there":   {"image: hello:1", "image: hello:1\n        command: [/nix]", "/nix"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			manifest := strings.Replace(penstocktest.Hello("bad", 1), test.change, test.to, 1)
			_, said, code := m.Run(t, "up", "-f", m.File(t, manifest))
			if code != 1 || !strings.Contains(said, test.want) {
				t.Errorf("exit %d, want 1 and %q in:\n%s", code, test.want, said)
			}
			if status, answer := m.Ask(t, http.MethodGet, "bad", "/", ""); status != http.StatusServiceUnavailable && status != http.StatusNotFound {
				t.Errorf("a request to it: %d %s, want 503 or 404 at once", status, answer)
			}
			if _, said, code := m.Run(t, "app", "delete", "bad"); code != 0 && code != 3 { // 3: it was refused and is not there
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
func busy(t *testing.T, m *penstocktest.Machine) {
	m.Apply(t, busyManifest)
	status, text := m.Ask(t, http.MethodGet, "busy", "/stream?ms=4500", "")
	if status != http.StatusOK || !strings.HasSuffix(text, "end\n") {
		t.Errorf("the stream of a busy replica: status %d, ends with %q", status, text[max(0, len(text)-20):])
	}
	if out := m.Must(t, "app", "events", "busy"); !strings.Contains(out, "while the replica was answering; not counted") {
		t.Errorf("no event tells that probes were not counted:\n%s", out)
	}
	m.Must(t, "app", "delete", "busy")
}
