package arm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/arm"
	"penstock/internal/decisions"
	"penstock/internal/logs"
	"penstock/internal/resource"
	"penstock/internal/seal"
	"penstock/internal/store"
)

const (
	token        = "0123456789abcdef"
	subscription = "00000000-0000-0000-0000-000000000000"
	base         = "/subscriptions/" + subscription + "/resourceGroups/ml/providers/Microsoft.App"
	version      = "?api-version=2025-01-01"
)

// server is the API with a platform behind it that brings every write to its end at once, or, while held, not at all.
type server struct {
	*httptest.Server
	t        testing.TB
	store    *store.Store
	console  *logs.Console
	system   *logs.System
	decided  *decisions.Log
	requests string // folder of access records
	config   arm.Config
	touched  chan resource.ID

	mu       sync.Mutex
	held     bool
	waiting  []resource.ID
	failure  string
	replicas []resource.Replica
}

// start starts it; change may put other parts in.
func start(t testing.TB, change ...func(s *server, cfg *arm.Config)) *server {
	t.Helper()
	s := &server{t: t, touched: make(chan resource.ID, 1000)}
	dir := t.TempDir()
	var err error
	if s.store, err = store.Open(t.Context(), filepath.Join(dir, "penstock.db")); err != nil {
		t.Fatal(err)
	}
	s.requests = filepath.Join(dir, "requests")
	log := slog.New(slog.DiscardHandler)
	box, err := seal.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if s.console, err = logs.OpenConsole(filepath.Join(dir, "console"), logs.Limits{}, log); err != nil {
		t.Fatal(err)
	}
	if s.system, err = logs.OpenSystem(filepath.Join(dir, "system"), logs.Limits{}, log); err != nil {
		t.Fatal(err)
	}
	if s.decided, err = decisions.Open(filepath.Join(dir, "decisions"), log); err != nil {
		t.Fatal(err)
	}
	s.config = arm.Config{
		Store: s.store, Runtime: s, Images: s, Console: s.console, System: s.system, Decisions: s.decided, Requests: s.requests, Secrets: box, Resolver: names{}, Cores: 4,
		Reconcile: func(id resource.ID) { s.touched <- id }, Token: token, Log: log,
	}
	for _, c := range change {
		c(s, &s.config)
	}
	s.Server = httptest.NewTLSServer(arm.New(s.config))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { s.reconcile(ctx) })
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		cancel()
		wg.Wait()
		for _, c := range []io.Closer{s.console, s.system, s.decided, s.store} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// Digest knows every image but those that are called missing or broken.
func (s *server) Digest(_ context.Context, _ resource.Keyring, ref string) (string, error) {
	switch {
	case strings.Contains(ref, "missing"):
		return "", fmt.Errorf("image %q: %w", ref, resource.ErrNotFound)
	case strings.Contains(ref, "broken"):
		return "", fmt.Errorf("image %q: UNAUTHORIZED: authentication required", ref)
	}
	return "sha256:0", nil
}

// names are what name servers would answer.
type names struct{}

func (names) LookupCNAME(_ context.Context, host string) (string, error) { return host + ".", nil }

func (names) LookupHost(_ context.Context, host string) ([]string, error) {
	if strings.HasPrefix(host, "slow.") {
		return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
	}
	return []string{"192.0.2.1"}, nil
}

func (names) LookupTXT(_ context.Context, name string) ([]string, error) {
	if strings.HasPrefix(name, "asuid.mine.") {
		return []string{"other", fmt.Sprintf("%x", sha256.Sum256([]byte(subscription)))}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (s *server) Replicas(context.Context) ([]resource.Replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replicas, nil
}

// hold keeps writes from coming to an end until the function that it returns is called.
func (s *server) hold() (release func()) {
	s.mu.Lock()
	s.held = true
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.held = false
		ids := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		for _, id := range ids {
			s.touched <- id
		}
	}
}

// fails makes writes of apps fail for a reason from now on; "" makes them succeed.
func (s *server) fails(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = reason
}

func (s *server) reconcile(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-s.touched:
			s.mu.Lock()
			held, failure := s.held, s.failure
			if held {
				s.waiting = append(s.waiting, id)
			}
			s.mu.Unlock()
			if held {
				continue
			}
			var err error
			if id.Is(resource.TypeEnvironment) {
				err = s.finishEnvironment(ctx, id)
			} else {
				err = s.finishApp(ctx, id, failure)
			}
			if err != nil && !errors.Is(err, resource.ErrNotFound) && ctx.Err() == nil {
				s.t.Errorf("reconcile %s: %v", id, err)
			}
		}
	}
}

func (s *server) finishEnvironment(ctx context.Context, id resource.ID) error {
	e, err := s.store.Environments().Get(ctx, id)
	if err != nil {
		return err
	}
	if !e.Deleted.IsZero() {
		return s.store.Environments().Delete(ctx, id)
	}
	_, err = s.store.Environments().Observe(ctx, id, func(e resource.Environment, status *resource.EnvironmentStatus) error {
		status.DefaultDomain, status.Observed = e.ID.Base()+".penstock.localhost", e.Generation
		return nil
	})
	return err
}

func (s *server) finishApp(ctx context.Context, id resource.ID, failure string) error {
	revisions, err := s.store.Revisions().List(ctx, store.Scope{Parent: id})
	if err != nil {
		return err
	}
	a, err := s.store.Apps().Get(ctx, id)
	if err != nil {
		return err
	}
	if !a.Deleted.IsZero() {
		for _, rev := range revisions {
			if err := s.store.Revisions().Delete(ctx, rev.ID); err != nil {
				return err
			}
		}
		return s.store.Apps().Delete(ctx, id)
	}
	var names []string
	fresh := true
	for _, rev := range revisions {
		names = append(names, rev.Name())
		if rev.Name() == a.LatestRevision && rev.Template.Equal(a.Template) {
			fresh = false
		}
	}
	name := a.LatestRevision
	if fresh {
		if name, err = resource.RevisionName(a.ID.Base(), a.Template.RevisionSuffix, names); err != nil {
			return err
		}
		_, _, err = s.store.Revisions().Create(ctx, resource.Revision{
			ID: a.ID.Child("revisions", name), Environment: a.Environment, Created: time.Now().UTC(), Template: a.Template,
			RevisionStatus: resource.RevisionStatus{State: resource.RevisionRunning, Ready: time.Now().UTC()},
		}, nil)
		if err != nil {
			return err
		}
	}
	_, err = s.store.Apps().Observe(ctx, id, func(a resource.App, status *resource.AppStatus) error {
		status.Progress = resource.Progress{Observed: a.Generation, Failure: failure}
		status.LatestRevision = name
		if failure == "" {
			status.LatestReadyRevision = name
		}
		return nil
	})
	return err
}

// answer is what came back of a request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// get reads a value out of a JSON answer: get("properties", "provisioningState").
func (a answer) get(t testing.TB, path ...any) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("answer %d is no JSON: %v\n%s", a.status, err, a.body)
	}
	return dig(v, path...)
}

func dig(v any, path ...any) any {
	for _, p := range path {
		switch at := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[at]
		case int:
			l, _ := v.([]any)
			if at >= len(l) {
				return nil
			}
			v = l[at]
		}
	}
	return v
}

// do sends a request to a path, or to a whole URL, with the token.
func (s *server) do(method, target, body string) answer {
	s.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = s.URL + target
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, target, bytes.NewBufferString(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return s.send(r)
}

func (s *server) send(r *http.Request) answer {
	s.t.Helper()
	resp, err := s.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, data}
}

// with gets a whole URL with another token.
func (s *server) with(token, url string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return s.send(r)
}

// want sends a request and fails the test when its status is another.
func (s *server) want(status int, method, target, body string) answer {
	s.t.Helper()
	a := s.do(method, target, body)
	if a.status != status {
		s.t.Fatalf("%s %s: got %d, want %d\n%s", method, target, a.status, status, a.body)
	}
	return a
}

// await polls an operation by the header of that name until it has ended.
func (s *server) await(a answer, header string) answer {
	s.t.Helper()
	url := a.header.Get(header)
	if url == "" {
		s.t.Fatalf("no header %s in %v", header, a.header)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		a = s.do("GET", url, "")
		if a.status != http.StatusAccepted && (header == "Location" || a.get(s.t, "status") != "InProgress") {
			return a
		}
	}
	s.t.Fatalf("operation %s did not end; its last answer is %d %s", url, a.status, a.body)
	return a
}

// environment makes an environment and waits for it.
func (s *server) environment(name string) {
	s.t.Helper()
	a := s.want(201, "PUT", base+"/managedEnvironments/"+name+version, `{"location":"koreacentral","properties":{}}`)
	if got := s.await(a, "Azure-AsyncOperation").get(s.t, "status"); got != "Succeeded" {
		s.t.Fatalf("environment: %v", got)
	}
}

// chat is the body of a small app in the environment e; change alters it before it is written.
func chat(change func(properties, template, container map[string]any)) string {
	container := map[string]any{"name": "chat", "image": "chat:1", "resources": map[string]any{"cpu": 0.5, "memory": "1Gi"}}
	template := map[string]any{"containers": []any{container}}
	properties := map[string]any{
		"environmentId": base + "/managedEnvironments/e",
		"configuration": map[string]any{"ingress": map[string]any{"external": true, "targetPort": 8080}},
		"template":      template,
	}
	if change != nil {
		change(properties, template, container)
	}
	body, err := json.Marshal(map[string]any{"location": "koreacentral", "properties": properties})
	if err != nil {
		panic(err) // of maps, strings and numbers: a mistake in a test
	}
	return string(body)
}

func (s *server) app(name, body string) answer {
	s.t.Helper()
	a := s.want(201, "PUT", base+"/containerApps/"+name+version, body)
	if got := s.await(a, "Azure-AsyncOperation").get(s.t, "status"); got != "Succeeded" {
		s.t.Fatalf("app %s: %v", name, got)
	}
	return s.want(200, "GET", base+"/containerApps/"+name+version, "")
}
