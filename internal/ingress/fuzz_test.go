package ingress_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// Whatever the host, the answer is the app's or none's, and the same host in another spelling has the same.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{host, "APP.test:80", "app.test.", "[::1]:80", "", ":", "app.test:", "app.test..", "other", "\u212aelvin", "a]b:c"} {
		f.Add(seed)
	}
	in := ingress.New(ingress.Config{})
	table := replicas()
	table.Revisions[0].Failed = "on purpose"
	in.Apply(table)
	handler := in.Handler("http")
	ask := func(host string) int {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	f.Fuzz(func(t *testing.T, given string) {
		got := ask(given)
		if got != 404 && got != 503 {
			t.Errorf("%q: got %d, want 404 or 503", given, got)
		}
		if got == 503 && !strings.HasPrefix(strings.ToLower(given), host) {
			t.Errorf("%q reached %s", given, host)
		}
		if !strings.ContainsAny(given, ":[]") {
			if port := ask(given + ":8080"); port != got {
				t.Errorf("%q: got %d, and with a port %d", given, got, port)
			}
		}
	})
}

// Any table can be applied, one after another, and the counts stay right.
func FuzzApply(f *testing.F) {
	for _, seed := range []link.Table{{}, replicas("127.0.0.1:1"), tableOf(
		link.Revision{ID: "a", Replicas: []link.Replica{{Name: "r", Addr: "x"}, {Name: "r", Addr: "y"}}},
		link.Revision{ID: "a", Failed: "f", Settings: resource.Settings{MaxConcurrency: -1, QueueLimit: -1, QueueTimeout: -1}},
	), {Routes: []link.Route{{}, {Host: "*", Targets: []link.Target{{Revision: "none", Weight: -5}, {Weight: 1 << 40}}}},
		Certificates: []link.Certificate{{Names: []string{"*.", "", "."}, Cert: []byte("x")}}}} {
		text, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	in := ingress.New(ingress.Config{})
	handler := in.Handler("https")
	f.Fuzz(func(t *testing.T, text string) {
		var table link.Table
		if json.Unmarshal([]byte(text), &table) != nil {
			return
		}
		in.Apply(table)
		if got := in.Report(); !got.Covers(table.Epoch, table.Version) || len(got.InFlight)+len(got.Waiting) > 0 {
			t.Errorf("got %+v, want the version of the table and nothing in flight", got)
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = "nobody.has.this.host"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != 404 {
			t.Errorf("got %d, want 404", w.Code)
		}
	})
}
