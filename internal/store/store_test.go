package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/resource"
	"penstock/internal/store"
)

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func fresh(t testing.TB) *store.Store { return open(t, filepath.Join(t.TempDir(), "penstock.db")) }

func chat() resource.App {
	return resource.App{
		Meta: resource.Meta{
			ID: resource.AppID("S", "Default", "Chat"), Location: "westeurope", Tags: map[string]string{"penstock.retry": "all"},
			Created: time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC), Generation: 3,
		},
		Environment:   resource.EnvironmentID("S", "Default", "env"),
		Configuration: resource.Configuration{Ingress: &resource.Ingress{External: true, TargetPort: 80}},
		Template: resource.Template{
			Grace: 30 * time.Second,
			Containers: []resource.Container{{
				Name: "chat", Image: "chat:1", Env: []resource.EnvVar{{Name: "MODEL_PATH", Value: "/models/모델"}},
				Resources: resource.Resources{MilliCPU: 500, Memory: 1 << 30},
			}},
			Scale: resource.Scale{Max: 10},
		},
		Stored: map[string]json.RawMessage{"workloadProfileName": json.RawMessage(`"Consumption"`)},
	}
}

func putApp(t testing.TB, s *store.Store, app resource.App) {
	t.Helper()
	_, err := s.Apps().Put(t.Context(), app.ID, func(v *resource.App, _ bool) error { *v = app; return nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestResourceComesBackAfterReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir with ? and %20.db")
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	want := chat()
	putApp(t, s, want)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, path).Apps().Get(t.Context(), want.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("app after reopen (-want +got):\n%s", diff)
	}
}

func TestFileIsForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	putApp(t, open(t, path), chat())
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("files: %v, %v", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, want 0600", filepath.Base(f), info.Mode().Perm())
		}
	}
}

func TestAnswersForWhatIsNotThere(t *testing.T) {
	s := fresh(t)
	app := resource.AppID("s", "default", "chat")
	gets := map[string]func() error{
		`app "chat" in resource group "default": not found`: func() error {
			_, err := s.Apps().Get(t.Context(), app)
			return err
		},
		`environment "env" in resource group "default": not found`: func() error {
			_, err := s.Environments().Get(t.Context(), resource.EnvironmentID("s", "default", "env"))
			return err
		},
		`revision "chat--1" of "chat" in resource group "default": not found`: func() error {
			_, err := s.Revisions().Get(t.Context(), app.Child("revisions", "chat--1"))
			return err
		},
		`operation "7": not found`: func() error {
			_, err := s.Operations().Get(t.Context(), "7")
			return err
		},
	}
	for want, get := range gets {
		err := get()
		if !errors.Is(err, resource.ErrNotFound) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := s.Apps().Delete(t.Context(), app); err != nil {
		t.Errorf("delete what is not there: %v", err)
	}
}

func TestFirstSpellingStays(t *testing.T) {
	s := fresh(t)
	putApp(t, s, chat())
	other := resource.AppID("s", "DEFAULT", "cHAT")
	got, err := s.Apps().Put(t.Context(), other, func(v *resource.App, exists bool) error {
		if !exists {
			t.Error("app of another spelling: exists is false")
		}
		v.ID, v.Location = other, "northeurope"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := chat()
	want.Location = "northeurope"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("returned (-want +got):\n%s", diff)
	}
	all, err := s.Apps().List(t.Context(), store.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]resource.App{want}, all); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	if err := s.Apps().Delete(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apps().Get(t.Context(), want.ID); !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("after delete by another spelling: got %v, want not found", err)
	}
}

func TestChangeThatFailsChangesNothing(t *testing.T) {
	s := fresh(t)
	putApp(t, s, chat())
	refused := errors.New("refused")
	_, err := s.Apps().Put(t.Context(), chat().ID, func(v *resource.App, _ bool) error {
		v.Template.Containers[0].Image = "chat:2"
		return refused
	})
	if err != refused {
		t.Errorf("got %v, want the error of change as it is", err)
	}
	got, err := s.Apps().Get(t.Context(), chat().ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(chat(), got); diff != "" {
		t.Errorf("after a refused change (-want +got):\n%s", diff)
	}
	id := resource.AppID("s", "g", "new")
	_, err = s.Apps().Put(t.Context(), id, func(*resource.App, bool) error { return refused })
	if err != refused {
		t.Errorf("got %v, want the error of change as it is", err)
	}
	if _, err := s.Apps().Get(t.Context(), id); !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("refused new app: got %v, want not found", err)
	}
}

func TestPanicOfChangeFreesTheWriter(t *testing.T) {
	s := fresh(t)
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Apps().Put(t.Context(), chat().ID, func(*resource.App, bool) error { panic("a fault in a caller") })
	}()
	putApp(t, s, chat())
}

func TestListScopes(t *testing.T) {
	s := fresh(t)
	a, b, c := resource.AppID("s1", "G1", "a"), resource.AppID("s1", "g2", "B"), resource.AppID("S2", "g1", "c")
	for _, app := range []resource.ID{c, b, a} {
		putApp(t, s, resource.App{Meta: resource.Meta{ID: app}})
		for _, name := range []string{app.Base() + "--2", app.Base() + "--1"} {
			_, err := s.Revisions().Put(t.Context(), app.Child("revisions", name), func(*resource.Revision, bool) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	apps := map[string]struct {
		in   store.Scope
		want []string
	}{
		"everything, by key":         {store.Scope{}, []string{"a", "B", "c"}},
		"a subscription":             {store.Scope{Subscription: "S1"}, []string{"a", "B"}},
		"a group":                    {store.Scope{Subscription: "s1", Group: "G2"}, []string{"B"}},
		"a group of no subscription": {store.Scope{Group: "G1"}, []string{"a", "c"}},
		"a group that has none":      {store.Scope{Subscription: "s1", Group: "g"}, nil},
	}
	for name, test := range apps {
		list, err := s.Apps().List(t.Context(), test.in)
		var got []string
		for _, app := range list {
			got = append(got, app.ID.Base())
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, test.want)
		}
	}
	list, err := s.Revisions().List(t.Context(), store.Scope{Parent: resource.AppID("S1", "G2", "b")})
	var got []string
	for _, r := range list {
		got = append(got, r.Name())
		if r.App() != b {
			t.Errorf("revision %s: got app %v, want %v", r.Name(), r.App(), b)
		}
	}
	if want := []string{"B--1", "B--2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("revisions of an app: got %v, %v; want %v", got, err, want)
	}
}

func TestWritesAtOnceLoseNothing(t *testing.T) {
	s := fresh(t)
	const writers, times = 8, 20
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range times {
				_, err := s.Apps().Put(t.Context(), chat().ID, func(v *resource.App, _ bool) error { v.Generation++; return nil })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := s.Apps().Get(t.Context(), chat().ID)
	if err != nil || got.Generation != writers*times {
		t.Errorf("got generation %d, %v; want %d", got.Generation, err, writers*times)
	}
}

// What a write, a delete or a write that came to nothing leaves is what the next reader finds, whichever of them filled the
// store's memory before; and what a writer does to a document afterwards changes no reader's.
func TestReadersFindWhatWasCommitted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	s := open(t, path)
	names := func() (found []string) {
		t.Helper()
		all, err := s.Apps().List(t.Context(), store.Scope{Subscription: "s"})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			one, err := s.Apps().Get(t.Context(), a.ID)
			if err != nil || one.Generation != a.Generation {
				t.Errorf("get says %d, %v, and list %d", one.Generation, err, a.Generation)
			}
			found = append(found, fmt.Sprint(a.ID.Base(), a.Generation, a.Tags["by"]))
		}
		return found
	}
	write := func(name string, generation int64) resource.App {
		t.Helper()
		a, err := s.Apps().Put(t.Context(), resource.AppID("S", "g", name), func(a *resource.App, _ bool) error {
			a.Generation, a.Tags = generation, map[string]string{"by": "-first"}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	want := func(what string, list ...string) {
		t.Helper()
		if got := names(); !slices.Equal(got, list) {
			t.Errorf("%s: %q, want %q", what, got, list)
		}
	}
	want("nothing written")
	write("b", 1)
	write("c", 1)
	write("a", 1)
	want("three writes", "a1-first", "b1-first", "c1-first")
	kept := write("B", 2)
	kept.Tags["by"] = "-changed later"
	want("a second write", "a1-first", "b2-first", "c1-first")
	_, err := s.Apps().Put(t.Context(), kept.ID, func(a *resource.App, _ bool) error {
		a.Generation, a.Tags["by"] = 9, "-never"
		return errors.New("no")
	})
	if err == nil {
		t.Error("the error of change is lost")
	}
	want("a change that failed", "a1-first", "b2-first", "c1-first")
	left, cancel := context.WithCancel(t.Context())
	_, err = s.Apps().Put(left, kept.ID, func(a *resource.App, _ bool) error {
		a.Generation = 9
		cancel()
		return nil
	})
	if err == nil {
		t.Error("a write whose caller left succeeded")
	}
	want("a write whose caller left", "a1-first", "b2-first", "c1-first")
	if err := s.Apps().Delete(t.Context(), resource.AppID("s", "G", "a")); err != nil {
		t.Fatal(err)
	}
	want("a delete", "b2-first", "c1-first")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	write("d", 1)
	want("written before anything was read", "b2-first", "c1-first", "d1-first")
}

func TestReadsDoNotWaitForTheWriter(t *testing.T) {
	s := fresh(t)
	putApp(t, s, chat())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := s.Apps().Put(ctx, chat().ID, func(v *resource.App, _ bool) error {
		v.Generation = 99
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				got, err := s.Apps().Get(ctx, chat().ID)
				if err != nil || got.Generation != chat().Generation {
					t.Errorf("read beside a writer: got generation %d, %v; want the committed %d", got.Generation, err, chat().Generation)
				}
			})
		}
		wg.Wait()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Apps().Get(ctx, chat().ID)
	if err != nil || got.Generation != 99 {
		t.Errorf("read after the write: got generation %d, %v; want 99", got.Generation, err)
	}
}

func TestWriteThatWaitsEndsWithItsContext(t *testing.T) {
	s := fresh(t)
	gone := errors.New("the client left")
	_, err := s.Apps().Put(t.Context(), chat().ID, func(*resource.App, bool) error {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		_, err := s.Environments().Put(ctx, resource.EnvironmentID("s", "g", "e"), func(*resource.Environment, bool) error { return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a write whose client left: got %v, want %v", err, context.Canceled)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOperations(t *testing.T) {
	s := fresh(t)
	start := time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC)
	for i := range 3 {
		_, err := s.Apps().Begin(t.Context(), chat().ID, func(*resource.App, bool) error { return nil }, func(v resource.App) store.Operation {
			return store.Operation{
				ID: fmt.Sprintf("Op-%d", i), Resource: v.ID, Kind: "put", Generation: int64(i), Started: start.Add(time.Duration(i) * time.Hour),
				Location: "westeurope",
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Operations().Prune(t.Context(), start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Operations().Get(t.Context(), "Op-0"); !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("pruned operation: got %v, want not found", err)
	}
	got, err := s.Operations().Get(t.Context(), "OP-1")
	if err != nil {
		t.Fatal(err)
	}
	want := store.Operation{ID: "Op-1", Resource: chat().ID, Kind: "put", Generation: 1, Started: start.Add(time.Hour), Location: "westeurope"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operation (-want +got):\n%s", diff)
	}
}
