package network_test

import (
	"maps"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

const portManifest = `
name: undeclared
properties:
  configuration:
    ingress: {external: true, allowInsecure: true}
  template:
    containers:
      - name: hello
        image: hello:1
        env: [{name: PORT, value: "8000"}]
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: 2, maxReplicas: 2}
`

// How replicas are reached.
func TestReplicaPorts(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	t.Run("a port that nobody names", func(t *testing.T) { undeclaredPort(t, m) })
	t.Run("TLS", func(t *testing.T) { tlsReplicas(t, m) })
}

// undeclaredPort has an app that names no port, on one that its image does not name either.
func undeclaredPort(t *testing.T, m *penstocktest.Machine) {
	m.Apply(t, portManifest)
	answers := func(when string) {
		t.Helper()
		if status, said := m.Ask(t, http.MethodGet, "undeclared", "/", ""); status != http.StatusOK {
			t.Errorf("%s: got %d %s, want 200", when, status, said)
		}
	}
	answers("at first")
	if _, said := m.Ask(t, http.MethodGet, "undeclared", "/env", ""); strings.Contains(said, "CONTAINER_APP_PORT=") {
		t.Errorf("the container is told a port that nobody named:\n%s", said)
	}
	if out := m.Must(t, "app", "events", "undeclared"); !strings.Contains(out, "Target port 8000 detected") {
		t.Errorf("no event tells the port:\n%s", out)
	}
	before, control := m.Processes(t), m.Role(t, "control")
	if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	penstocktest.Until(t, time.Minute, "control is back", func() bool {
		now := m.Role(t, "control")
		_, _, code := m.Run(t, "app", "list")
		return now != 0 && now != control && code == 0
	})
	penstocktest.Until(t, time.Minute, "the port is found again", func() bool {
		return strings.Count(m.Must(t, "app", "events", "undeclared"), "Target port 8000 detected") == 4
	})
	answers("after control came back")
	if after := m.Processes(t); !maps.Equal(before, after) {
		t.Errorf("processes before %v, after %v", before, after)
	}
}

const tlsManifest = `
name: secure
properties:
  configuration:
    ingress: {external: true, targetPortHttpScheme: https, transport: auto, allowInsecure: true}
  template:
    containers:
      - name: hello
        image: hello:1
        args: [tls]
        resources: {cpu: 0.25, memory: 0.5Gi}
        probes:
          - {type: Readiness, httpGet: {path: /, port: 8080, scheme: HTTPS}}
    scale: {minReplicas: 1, maxReplicas: 1}
`

// tlsReplicas has an app whose replicas speak TLS, with HTTP/1.1 and then with HTTP/2, and then with neither.
func tlsReplicas(t *testing.T, m *penstocktest.Machine) {
	m.Apply(t, tlsManifest)
	asked := func() string {
		_, said := m.Ask(t, http.MethodGet, "secure", "/proto", "")
		return strings.TrimSpace(said)
	}
	if got := asked(); got != "HTTP/1.1 true" {
		t.Errorf("transport auto: got %q, want HTTP/1.1 true", got)
	}
	before := m.Processes(t)
	m.Apply(t, strings.Replace(tlsManifest, "transport: auto", "transport: http2", 1))
	if got := asked(); got != "HTTP/2.0 true" {
		t.Errorf("transport http2: got %q, want HTTP/2.0 true", got)
	}
	m.Apply(t, strings.Replace(tlsManifest, "targetPortHttpScheme: https, ", "", 1))
	if got := asked(); !strings.Contains(got, "HTTP request to an HTTPS server") {
		t.Errorf("in the clear: got %q", got)
	}
	if after := m.Processes(t); !maps.Equal(before, after) {
		t.Errorf("a word about the ingress changed the replicas: %v, %v", before, after)
	}
}
