package network_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

func TestNeighbours(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	domain := m.Environment(t, "far")
	m.Apply(t, penstocktest.Neighbour("front", "", true))
	m.Apply(t, penstocktest.Neighbour("back", "", false))
	m.Apply(t, penstocktest.Neighbour("stranger", "far", true))
	stranger := "stranger." + strings.TrimSuffix(domain, ".penstock.localhost")
	gateway := m.Gateway(t, "front")

	t.Run("by their names", func(t *testing.T) {
		for _, to := range []string{"back", "back.internal.penstock.localhost", "back.penstock.localhost", "front"} {
			for _, scheme := range []string{"http", "https"} {
				if scheme == "https" && !strings.Contains(to, ".") {
					continue // no certificate can be made out for it
				}
				name, _, _ := strings.Cut(to, ".")
				if status, answer := m.Inside(t, "front", scheme+"://"+to+"/", ""); status != http.StatusOK || answer != "hello, "+name+"\n" {
					t.Errorf("%s://%s from inside: %d %q", scheme, to, status, answer)
				}
			}
			if status, answer := m.Ask(t, http.MethodGet, "front", "/lookup?name="+to, ""); status != http.StatusOK || answer != gateway+"\n" {
				t.Errorf("lookup %s: %d %q, want %s", to, status, answer, gateway)
			}
		}
		for _, name := range []string{"nobody.penstock.localhost", "stranger.penstock.localhost"} {
			if status, answer := m.Ask(t, http.MethodGet, "front", "/lookup?name="+name, ""); !strings.Contains(answer, "no such host") {
				t.Errorf("lookup %s: %d %q, want no such host", name, status, answer)
			}
		}
		if status, answer := m.Inside(t, "front", "http://stranger."+domain+"/", ""); status != http.StatusOK || answer != "hello, stranger\n" {
			t.Errorf("another environment's external app: %d %q", status, answer)
		}
	})
	t.Run("revisions have names too", func(t *testing.T) {
		var revisions []struct{ Name string }
		if err := json.Unmarshal([]byte(m.Must(t, "revision", "list", "back", "-o", "json")), &revisions); err != nil || len(revisions) != 1 {
			t.Fatalf("revisions: %v, %v", revisions, err)
		}
		to := "http://" + revisions[0].Name + ".penstock.localhost/"
		if status, answer := m.Inside(t, "front", to, ""); status != http.StatusOK || answer != "hello, back\n" {
			t.Errorf("%s from inside: %d %q", to, status, answer)
		}
	})
	t.Run("an internal app answers only inside", func(t *testing.T) {
		for _, from := range []string{"back", "back.internal"} {
			if status, answer := m.Ask(t, http.MethodGet, from, "/", ""); status != http.StatusNotFound || !strings.Contains(answer, "does not exist") {
				t.Errorf("%s from outside: %d %s, want the 404 page", from, status, answer)
			}
		}
		far := m.Gateway(t, stranger)
		for _, host := range []string{"back", "back.penstock.localhost", "back.internal.penstock.localhost"} {
			if status, answer := m.Inside(t, stranger, "http://"+far+"/", host); status != http.StatusNotFound || !strings.Contains(answer, "does not exist") {
				t.Errorf("%s from another environment: %d %s, want the 404 page", host, status, answer)
			}
			if status, answer := m.Ask(t, http.MethodGet, stranger, "/lookup?name="+host, ""); status != http.StatusNotFound {
				t.Errorf("lookup %s in another environment: %d %q", host, status, answer)
			}
		}
	})
	t.Run("through restarts", func(t *testing.T) { neighboursThroughRestarts(t, m) })
}

// neighboursThroughRestarts lets an app call another by its name, again and again, while the roles are killed and handed
// over. Each call is a lookup and a new connection.
func neighboursThroughRestarts(t *testing.T, m *penstocktest.Machine) {
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
				status, answer := m.Inside(t, "front", "http://back/", "")
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
		penstocktest.Until(t, time.Minute, "calls after "+what, func() bool { return good.Load() >= more })
		failed := bad.Swap(0)
		t.Logf("%s: %d calls failed", what, failed)
		if failed > lost {
			t.Errorf("%s: %d calls failed, want at most %d", what, failed, lost)
		}
	}
	calls("nothing", 0)
	control := m.Role(t, "control")
	if err := syscall.Kill(control, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	penstocktest.Until(t, time.Minute, "control is back", func() bool { now := m.Role(t, "control"); return now != 0 && now != control })
	penstocktest.Until(t, time.Minute, "the API answers", func() bool { _, _, code := m.Run(t, "app", "list"); return code == 0 })
	calls("control was killed", 0)

	ingress := m.Role(t, "ingress")
	if err := syscall.Kill(m.Supervisor(t), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	penstocktest.Until(t, time.Minute, "the ingress is new", func() bool { now := m.Role(t, "ingress"); return now != 0 && now != ingress })
	penstocktest.Until(t, time.Minute, "the API answers", func() bool { _, _, code := m.Run(t, "app", "list"); return code == 0 })
	calls("a hand-over", 0)

	if err := syscall.Kill(m.Role(t, "ingress"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	calls("the ingress was killed", 8) // what was on its way, from outside and from inside
	close(stop)
	wg.Wait()
}
