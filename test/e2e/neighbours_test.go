package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// neighbour is the manifest of a hello that says its name. environment may be empty.
func neighbour(name, environment string, external bool) string {
	in := ""
	if environment != "" {
		in = "environmentId: " + environmentPath(environment)
	}
	return fmt.Sprintf(`
name: %s
properties:
  %s
  configuration:
    ingress: {external: %v, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - name: hello
        image: hello:1
        env: [{name: NAME, value: %s}]
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: 1, maxReplicas: 1}
`, name, in, external, name)
}

func environmentPath(name string) string {
	return "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default/providers/Microsoft.App/managedEnvironments/" + name
}

// api is the management API.
func (m *machine) api(t *testing.T) target {
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
	return reach(t, target{endpoint: connection.Endpoint, token: strings.TrimSpace(string(token))}, connection.CA)
}

// environment makes one and returns its domain.
func (m *machine) environment(t *testing.T, name string) string {
	t.Helper()
	to := m.api(t)
	call := func(method, body string) (domain, state string) {
		r, err := http.NewRequestWithContext(t.Context(), method, to.endpoint+environmentPath(name)+"?api-version=2025-01-01", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+to.token)
		r.Header.Set("Content-Type", "application/json")
		resp, err := to.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode > 299 {
			t.Fatalf("%s environment %s: %s %s %v", method, name, resp.Status, said, err)
		}
		var doc struct {
			Properties struct{ DefaultDomain, ProvisioningState string }
		}
		if err := json.Unmarshal(said, &doc); err != nil {
			t.Fatalf("%s: %v", said, err)
		}
		return doc.Properties.DefaultDomain, doc.Properties.ProvisioningState
	}
	call(http.MethodPut, `{"location":"local","properties":{}}`)
	var domain string
	until(t, 20*time.Second, "the environment is ready", func() (ready bool) {
		var state string
		domain, state = call(http.MethodGet, "")
		return state == "Succeeded"
	})
	return domain
}

// inside lets an app fetch a URL, as host if there is one.
func (m *machine) inside(t *testing.T, app, to, host string) (status int, answer string) {
	t.Helper()
	return m.ask(t, http.MethodGet, app, "/get?"+url.Values{"url": {to}, "host": {host}}.Encode(), "")
}

// gateway is where a replica of the app finds everything.
func (m *machine) gateway(t *testing.T, app string) string {
	t.Helper()
	status, conf := m.ask(t, http.MethodGet, app, "/file?path=/etc/resolv.conf", "")
	fields := strings.Fields(conf)
	if status != http.StatusOK || len(fields) < 2 || fields[0] != "nameserver" {
		t.Fatalf("resolv.conf of %s: %d %q", app, status, conf)
	}
	return fields[1]
}

func TestNeighbours(t *testing.T) {
	m := bootMachine(t)
	m.image(t, "hello")
	domain := m.environment(t, "far")
	m.apply(t, neighbour("front", "", true))
	m.apply(t, neighbour("back", "", false))
	m.apply(t, neighbour("stranger", "far", true))
	stranger := "stranger." + strings.TrimSuffix(domain, ".penstock.localhost")
	gateway := m.gateway(t, "front")

	t.Run("by their names", func(t *testing.T) {
		for _, to := range []string{"back", "back.internal.penstock.localhost", "back.penstock.localhost", "front"} {
			for _, scheme := range []string{"http", "https"} {
				if scheme == "https" && !strings.Contains(to, ".") {
					continue // no certificate can be made out for it
				}
				name, _, _ := strings.Cut(to, ".")
				if status, answer := m.inside(t, "front", scheme+"://"+to+"/", ""); status != http.StatusOK || answer != "hello, "+name+"\n" {
					t.Errorf("%s://%s from inside: %d %q", scheme, to, status, answer)
				}
			}
			if status, answer := m.ask(t, http.MethodGet, "front", "/lookup?name="+to, ""); status != http.StatusOK || answer != gateway+"\n" {
				t.Errorf("lookup %s: %d %q, want %s", to, status, answer, gateway)
			}
		}
		for _, name := range []string{"nobody.penstock.localhost", "stranger.penstock.localhost"} {
			if status, answer := m.ask(t, http.MethodGet, "front", "/lookup?name="+name, ""); !strings.Contains(answer, "no such host") {
				t.Errorf("lookup %s: %d %q, want no such host", name, status, answer)
			}
		}
		if status, answer := m.inside(t, "front", "http://stranger."+domain+"/", ""); status != http.StatusOK || answer != "hello, stranger\n" {
			t.Errorf("another environment's external app: %d %q", status, answer)
		}
	})
	t.Run("revisions have names too", func(t *testing.T) {
		var revisions []struct{ Name string }
		if err := json.Unmarshal([]byte(m.must(t, "revision", "list", "back", "-o", "json")), &revisions); err != nil || len(revisions) != 1 {
			t.Fatalf("revisions: %v, %v", revisions, err)
		}
		to := "http://" + revisions[0].Name + ".penstock.localhost/"
		if status, answer := m.inside(t, "front", to, ""); status != http.StatusOK || answer != "hello, back\n" {
			t.Errorf("%s from inside: %d %q", to, status, answer)
		}
	})
	t.Run("an internal app answers only inside", func(t *testing.T) {
		for _, from := range []string{"back", "back.internal"} {
			if status, answer := m.ask(t, http.MethodGet, from, "/", ""); status != http.StatusNotFound || !strings.Contains(answer, "does not exist") {
				t.Errorf("%s from outside: %d %s, want the 404 page", from, status, answer)
			}
		}
		far := m.gateway(t, stranger)
		for _, host := range []string{"back", "back.penstock.localhost", "back.internal.penstock.localhost"} {
			if status, answer := m.inside(t, stranger, "http://"+far+"/", host); status != http.StatusNotFound || !strings.Contains(answer, "does not exist") {
				t.Errorf("%s from another environment: %d %s, want the 404 page", host, status, answer)
			}
			if status, answer := m.ask(t, http.MethodGet, stranger, "/lookup?name="+host, ""); status != http.StatusNotFound {
				t.Errorf("lookup %s in another environment: %d %q", host, status, answer)
			}
		}
	})
	t.Run("through restarts", func(t *testing.T) { neighboursThroughRestarts(t, m) })
}

// neighboursThroughRestarts lets an app call another by its name, again and again, while the roles are killed and handed
// over. Each call is a lookup and a new connection.
func neighboursThroughRestarts(t *testing.T, m *machine) {
	// The way in from here is cut too when the ingress is killed, so calls come from a process in the replica's place:
	// one request from outside that the app answers by many from inside.
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var good, bad atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, answer := m.inside(t, "front", "http://back/", "")
				if status == http.StatusOK && answer == "hello, back\n" {
					good.Add(1)
				} else {
					bad.Add(1)
					t.Logf("a call failed: %d %q", status, answer)
				}
			}
		})
	}
	calls := func(what string, lost int64) {
		t.Helper()
		more := good.Load() + 50
		until(t, 30*time.Second, "calls after "+what, func() bool { return good.Load() >= more })
		failed := bad.Swap(0)
		t.Logf("%s: %d calls failed", what, failed)
		if failed > lost {
			t.Errorf("%s: %d calls failed, want at most %d", what, failed, lost)
		}
	}
	calls("nothing", 0)
	control := m.role(t, "control")
	if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "control is back", func() bool { now := m.role(t, "control"); return now != 0 && now != control })
	until(t, 20*time.Second, "the API answers", func() bool { _, _, code := m.run(t, "app", "list"); return code == 0 })
	calls("control was killed", 0)

	ingress := m.role(t, "ingress")
	if err := syscall.Kill(m.supervisor(t), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, 30*time.Second, "the ingress is new", func() bool { now := m.role(t, "ingress"); return now != 0 && now != ingress })
	until(t, 30*time.Second, "the API answers", func() bool { _, _, code := m.run(t, "app", "list"); return code == 0 })
	calls("a hand-over", 0)

	if err := syscall.Kill(m.role(t, "ingress"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	calls("the ingress was killed", 8) // what was on its way, from outside and from inside
	close(stop)
	wg.Wait()
}
