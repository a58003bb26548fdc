package admin_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"penstock/internal/admin"
	"penstock/internal/admin/wire"
	"penstock/internal/backup"
	"penstock/internal/decisions"
	"penstock/internal/leak"
	"penstock/internal/link"
	"penstock/internal/oci"
	"penstock/internal/oci/remote"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/scale"
	"penstock/internal/weights"
)

var chat = resource.AppID("s", "g", "chat")

// traffic has what ingresses have reported.
type traffic struct {
	inFlight, waiting map[string]int
	rates             link.Rates
}

func (t *traffic) Load() (inFlight, waiting map[string]int) { return t.inFlight, t.waiting }
func (t *traffic) Rates() link.Rates                        { return t.rates }

// machine runs replicas.
type machine struct {
	replicas []resource.Replica
	standbys []runtimes.Standby
	err      error
	mapped   map[string]runtimes.Mapped
	revision map[string]resource.Revision // by key of its ID
	list     []resource.Revision
	counts   []scale.Count
	scale    map[string]scale.Explanation // by key of the revision
	memory   map[string][]leak.Memory     // by key of the revision
	decided  []decisions.Decision
	asked    decisions.Query

	mu    sync.Mutex
	usage map[string]runtimes.Usage
}

func (m *machine) Replicas(context.Context) ([]resource.Replica, error) { return m.replicas, m.err }

func (m *machine) Standbys(context.Context) ([]runtimes.Standby, error) { return m.standbys, m.err }

func (m *machine) Usage(_ context.Context, replica string) (runtimes.Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.usage[replica]
	if !ok {
		return u, resource.ErrNotFound
	}
	return u, nil
}

func (m *machine) Mapped(_ context.Context, replica string) (runtimes.Mapped, error) {
	mapped, ok := m.mapped[replica]
	if !ok {
		return mapped, resource.ErrNotFound
	}
	return mapped, nil
}

func (m *machine) Revision(_ context.Context, id resource.ID) (resource.Revision, error) {
	r, ok := m.revision[id.Key()]
	if !ok {
		return r, resource.ErrNotFound
	}
	return r, nil
}

func (m *machine) Explain(id resource.ID) (scale.Explanation, bool) {
	e, ok := m.scale[id.Key()]
	return e, ok
}

func (m *machine) ExplainJob(id resource.ID) []scale.Wish { return m.scale[id.Key()].Last.Wishes }

func (m *machine) Read(_ context.Context, q decisions.Query) ([]decisions.Decision, error) {
	m.asked = q
	return m.decided, m.err
}

func (m *machine) Counts() []scale.Count { return m.counts }

// images is an image store with everything that works on it. All its methods return err.
type images struct {
	list    []oci.Summary
	files   []weights.File
	resolve map[string]error // by name; other names have images
	found   oci.Verified
	pruned  oci.Pruned
	active  []oci.Progress
	// pull is called by Pull.
	pull func(ctx context.Context, name string, login remote.Login) (oci.Image, oci.Progress, error)
	err  error

	// What was requested.
	deleted  []string
	prune    oci.Prune
	loaded   string
	loadedAs string
	damage   []oci.Damage
}

func (i *images) List(context.Context) ([]oci.Summary, error) { return i.list, i.err }

func (i *images) Resolve(_ context.Context, name string) (oci.Image, error) {
	if err := i.resolve[name]; err != nil {
		return oci.Image{}, err
	}
	for _, s := range i.list {
		if s.Name == name {
			return oci.Image{Name: name, Digest: s.Digest}, nil
		}
	}
	return oci.Image{}, oci.ErrNotFound
}

func (i *images) Delete(_ context.Context, name string) error {
	if err := i.resolve[name]; err != nil {
		return err
	}
	i.deleted = append(i.deleted, name)
	return nil
}

func (i *images) Weights(context.Context, oci.Image) ([]weights.File, error) { return i.files, i.err }
func (i *images) Verify(context.Context) (oci.Verified, error)               { return i.found, i.err }
func (i *images) Active() []oci.Progress                                     { return i.active }

func (i *images) Save(_ context.Context, w io.Writer, names ...string) error {
	if _, err := io.WriteString(w, "layout of "+strings.Join(names, ",")); err != nil {
		return err
	}
	return i.err
}

func (i *images) Export(_ context.Context, add func(name string, size int64, content io.Reader) error) error {
	if i.err != nil {
		return i.err
	}
	return add("oci-layout", 2, strings.NewReader("{}"))
}

func (i *images) Pull(ctx context.Context, name string, login remote.Login) (oci.Image, oci.Progress, error) {
	return i.pull(ctx, name, login)
}

func (i *images) Prune(_ context.Context, o oci.Prune) (oci.Pruned, error) {
	i.prune = o
	return i.pruned, i.err
}

func (i *images) Load(_ context.Context, archive io.Reader, as string) ([]string, error) {
	b, err := io.ReadAll(archive)
	if err != nil {
		return nil, err
	}
	i.loaded, i.loadedAs = string(b), as
	return []string{"chat:1"}, i.err
}

func (i *images) Repair(_ context.Context, damage []oci.Damage) ([]string, map[string]string, error) {
	i.damage = damage
	return []string{"chat:1"}, map[string]string{"web:1": "push it again"}, i.err
}

// server serves the API with fakes.
type server struct {
	*httptest.Server
	traffic *traffic
	machine *machine
	images  *images
	// stopped has "stop" or "keep" for each shutdown.
	stopped     []string
	shutdownErr error
}

// newServer serves the API. It has no images if keeps is false.
func newServer(t *testing.T, keeps bool) *server {
	t.Helper()
	s := &server{traffic: &traffic{}, machine: &machine{}, images: &images{}}
	cfg := admin.Config{
		Revisions: func(context.Context, resource.ID) ([]resource.Revision, error) { return s.machine.list, s.machine.err },
		Scale:     s.machine,
		Memory:    func(rev resource.ID) []leak.Memory { return s.machine.memory[rev.Key()] },
		Decisions: s.machine,
		Status:    wire.Status{Instance: "0badcafe", Runtime: "containerd", Domain: "apps.test", HTTPPort: 8080, HTTPSPort: 8443, TCPHost: "127.0.0.1"},
		Traffic:   s.traffic,
		Runtime:   s.machine,
		Revision:  s.machine.Revision,
		Backup: backup.Source{
			Info: backup.Info{Version: "v1", Instance: "0badcafe"}, Data: t.TempDir(),
			Database: writeDatabase,
		},
		Shutdown: func(_ context.Context, replicas bool) error {
			s.stopped = append(s.stopped, map[bool]string{true: "stop", false: "keep"}[replicas])
			return s.shutdownErr
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if keeps {
		cfg.Images = &admin.Images{Store: s.images, Puller: s.images, Pruner: s.images, Loader: s.images, Repairer: s.images}
	}
	s.Server = httptest.NewUnstartedServer(admin.New(cfg))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // some responses are cut off on purpose
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// do sends a request and returns the status and the whole body.
func (s *server) do(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// get returns the response of a request that must succeed.
func get[T any](t *testing.T, s *server, method, path, body string) T {
	t.Helper()
	status, b := s.do(t, method, path, body)
	if status != http.StatusOK {
		t.Fatalf("%s %s: got %d %s, want 200", method, path, status, b)
	}
	return parse[T](t, b)
}

func parse[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	in := json.NewDecoder(strings.NewReader(body))
	in.DisallowUnknownFields()
	if err := in.Decode(&v); err != nil {
		t.Fatalf("response %s: %v", body, err)
	}
	return v
}

// refuse fails the test unless the request is refused with this status, code and part of the message.
func (s *server) refuse(t *testing.T, method, path, body string, status int, code, message string) {
	t.Helper()
	got, b := s.do(t, method, path, body)
	if got != status {
		t.Errorf("%s %s: got %d %s, want %d", method, path, got, b, status)
		return
	}
	if e := parse[wire.ErrorResponse](t, b).Error; e.Code != code || !strings.Contains(e.Message, message) {
		t.Errorf("%s %s: got %+v, want %s with %q", method, path, e, code, message)
	}
}
