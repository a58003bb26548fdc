package admin_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/admin"
	"penstock/internal/admin/wire"
	"penstock/internal/backup"
	"penstock/internal/link"
	"penstock/internal/oci"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/scale"
)

// The documentation and the handler have the same endpoints.
func TestDocumentedEndpoints(t *testing.T) {
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^### `([A-Z]+ /[^`]*)`$").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, m[1])
	}
	served := admin.Endpoints()
	for _, e := range served {
		if !slices.Contains(documented, e) {
			t.Errorf("%s: want a section of docs/api.md, got none", e)
		}
	}
	for _, e := range documented {
		if !slices.Contains(served, e) {
			t.Errorf("docs/api.md: section %s: want an endpoint that the server has", e)
		}
	}
	if len(documented) != len(served) {
		t.Errorf("docs/api.md has %d endpoints, the server %d", len(documented), len(served))
	}
}

func TestStatus(t *testing.T) {
	s := newServer(t, true)
	s.traffic.inFlight, s.traffic.waiting = map[string]int{"r1": 2, "r2": 3}, map[string]int{"rev": 4}
	got := get[wire.Status](t, s, http.MethodGet, wire.StatusPath, "")
	want := wire.Status{
		Instance: "0badcafe", Runtime: "containerd", Domain: "apps.test", HTTPPort: 8080, HTTPSPort: 8443, TCPHost: "127.0.0.1",
		InFlight: 5, Waiting: 4,
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if status, _ := s.do(t, http.MethodPost, wire.StatusPath, ""); status != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d, want 405", status)
	}
	if status, _ := s.do(t, http.MethodGet, wire.Prefix+"none", ""); status != http.StatusNotFound {
		t.Errorf("an unknown path: got %d, want 404", status)
	}
}

func TestShutdown(t *testing.T) {
	s := newServer(t, true)
	for _, query := range []string{"", "?containers=keep", "?containers=stop"} {
		if status, body := s.do(t, http.MethodPost, wire.ShutdownPath+query, ""); status != http.StatusNoContent || body != "" {
			t.Errorf("%q: got %d %s, want 204 without a body", query, status, body)
		}
	}
	s.refuse(t, http.MethodPost, wire.ShutdownPath+"?containers=kill", "", http.StatusBadRequest, "InvalidParameterValue", `want stop or keep, got "kill"`)
	if want := []string{"keep", "keep", "stop"}; !slices.Equal(s.stopped, want) {
		t.Errorf("got shutdowns %v, want %v", s.stopped, want)
	}
	s.shutdownErr = errors.New("a replica does not end")
	s.refuse(t, http.MethodPost, wire.ShutdownPath+"?containers=stop", "", http.StatusInternalServerError, "ShutdownFailed", "a replica does not end")
}

func writeDatabase(_ context.Context, path string) error {
	return os.WriteFile(path, []byte("database"), 0o600)
}

func TestBackup(t *testing.T) {
	s := newServer(t, true)
	for query, images := range map[string]bool{"": false, "?images=false": false, "?images=true": true} {
		status, body := s.do(t, http.MethodGet, wire.BackupPath+query, "")
		info, err := backup.Check(strings.NewReader(body))
		if status != http.StatusOK || err != nil || info.Images != images || info.Instance != "0badcafe" || info.Version != "v1" || time.Since(info.Created) > time.Minute {
			t.Errorf("%q: got %d, %+v, %v, want a whole backup of this server", query, status, info, err)
		}
	}
	s.refuse(t, http.MethodGet, wire.BackupPath+"?images=some", "", http.StatusBadRequest, "InvalidParameterValue", `images: want true or false, got "some"`)
	newServer(t, false).refuse(t, http.MethodGet, wire.BackupPath+"?images=true", "", http.StatusBadRequest, "InvalidParameterValue", "images: want false")

	s.images.err = errors.New("disk failed")
	resp, err := s.Client().Get(s.URL + wire.BackupPath + "?images=true")
	if err == nil {
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a backup that fails midway: the response looks whole, want it cut off")
	}
}

func TestUsage(t *testing.T) {
	s := newServer(t, true)
	asleep := resource.AppID("s", "g", "asleep")
	one, two := chat.Child("revisions", "chat--1"), chat.Child("revisions", "chat--2")
	s.machine.replicas = []resource.Replica{
		{Name: "chat--1-b", Revision: one, State: resource.ReplicaReady},
		{Name: "chat--1-a", Revision: one, State: resource.ReplicaReady},
		{Name: "stray"},
	}
	s.machine.usage = map[string]runtimes.Usage{
		"chat--1-a": {WorkingSet: 100, MemoryLimit: 1000}, "chat--1-b": {WorkingSet: 10, MemoryLimit: 1000},
	}
	s.machine.counts = []scale.Count{{Revision: one, Wanted: 2, Reason: "busy"}, {Revision: asleep.Child("revisions", "asleep--1"), Reason: "nobody asks"}}
	s.traffic.inFlight = map[string]int{"chat--1-a": 2, "chat--1-b": 1}
	s.traffic.waiting = map[string]int{two.String(): 7, "of no revision": 9}
	fast, slow := link.Rate{Requests: 10, Errors: 1}, link.Rate{Requests: 5}
	for range 10 {
		fast.Latency.Add(time.Millisecond)
	}
	slow.Latency.Add(time.Second)
	s.traffic.rates = link.Rates{
		Replicas: map[string]link.Rate{"chat--1-a": fast, "chat--1-b": slow},
		Refused:  map[string]float64{one.String(): 2, two.String(): 0},
	}
	got := get[wire.Usage](t, s, http.MethodGet, wire.UsagePath, "")
	if time.Since(got.At) > time.Minute || len(got.Apps) != 3 {
		t.Fatalf("got %+v, want now, and three apps", got)
	}
	if stray := got.Apps[0]; stray.ID != "" || stray.Name != "" || len(stray.Replicas) != 1 || stray.Replicas[0].Name != "stray" {
		t.Errorf("got %+v, want the replica that has no app", stray)
	}
	if a := got.Apps[1]; a.Name != "asleep" || a.Wanted != 0 || a.Reason != "nobody asks" || a.Replicas == nil {
		t.Errorf("got %+v, want the app that is at zero, and why", a)
	}
	app := got.Apps[2]
	if app.ID != chat.String() || app.Name != "chat" || app.Waiting != 7 || app.Wanted != 2 || app.Reason != "busy" || app.InFlight != 3 || app.MemoryBytes != 110 || app.MemoryLimitBytes != 2000 {
		t.Errorf("got %+v, want the sum of the replicas of chat", app)
	}
	if app.RequestsPerSecond != 17 || app.ErrorsPerSecond != 3 {
		t.Errorf("got %g requests and %g errors a second, want 17 and 3: those of replicas and the refused ones", app.RequestsPerSecond, app.ErrorsPerSecond)
	}
	if app.P50Ms < 0.9 || app.P50Ms > 1.2 || app.P95Ms < 900 {
		t.Errorf("got p50 %g ms and p95 %g ms, want about 1 and 1000", app.P50Ms, app.P95Ms)
	}
	if len(app.Replicas) != 2 || app.Replicas[0].Name != "chat--1-a" || app.Replicas[0].Revision != "chat--1" || app.Replicas[0].State != string(resource.ReplicaReady) {
		t.Errorf("got %+v, want both replicas by name", app.Replicas)
	}
	s.machine.err = errors.New("no engine")
	s.refuse(t, http.MethodGet, wire.UsagePath, "", http.StatusInternalServerError, "UsageFailed", "no engine")
}

func TestCPUSampler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{replicas: []resource.Replica{{Name: "a"}, {Name: "b"}}, usage: map[string]runtimes.Usage{"a": {}, "b": {}}}
		stop := make(chan struct{})
		go func() { // a uses half a vCPU, b two
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
					m.mu.Lock()
					m.usage["a"] = runtimes.Usage{CPUNanos: m.usage["a"].CPUNanos + 5e6}
					m.usage["b"] = runtimes.Usage{CPUNanos: m.usage["b"].CPUNanos + 20e6}
					m.mu.Unlock()
				}
			}
		}()
		defer close(stop)
		sample := admin.NewCPUSampler(m)
		check := func(when string, want time.Duration) {
			t.Helper()
			began := time.Now()
			cpu, err := sample(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("%s: took %s, want %s", when, took, want)
			}
			if cpu["a"] < 0.45 || cpu["a"] > 0.55 || cpu["b"] < 1.9 || cpu["b"] > 2.1 {
				t.Errorf("%s: got %v, want half a vCPU and two", when, cpu)
			}
		}
		check("first", 500*time.Millisecond)
		check("at once again", 0)
		time.Sleep(5 * time.Second)
		check("later", 0)
		time.Sleep(time.Minute)
		check("when the last reading is old", 500*time.Millisecond)

		time.Sleep(time.Minute)
		go func() { _, _ = sample(t.Context()) }()
		synctest.Wait() // it pauses between its two readings
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := sample(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second client that leaves: got %v, want the end of its context", err)
		}
		time.Sleep(time.Second)
	})
}

func summary(name string) oci.Summary {
	return oci.Summary{
		Name: name, Digest: "sha256:1", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Size: 30, Unique: 10, Shared: 20,
		Layers: []oci.Layer{{Name: "weights", Digest: "sha256:2", MediaType: "tar", Size: 20, SharedWith: 1}}, Problem: "damaged",
	}
}

var image = wire.Image{
	Name: "chat:1", Digest: "sha256:1", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Size: 30, Unique: 10, Shared: 20,
	Layers: []wire.Layer{{Name: "weights", Digest: "sha256:2", MediaType: "tar", Size: 20, SharedWith: 1}}, Problem: "damaged",
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", what, diff)
	}
}
