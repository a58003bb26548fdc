package store_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// Whoever asks for what was changed is told of every write, or that it has to look at everything.
func TestChanges(t *testing.T) {
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	apps := s.Apps()
	id := func(n int) resource.ID { return resource.AppID("s", "g", fmt.Sprintf("app-%d", n)) }
	put := func(n int) {
		t.Helper()
		if _, err := apps.Put(t.Context(), id(n), func(a *resource.App, _ bool) error { a.Generation++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	put(1)
	if _, _, complete := apps.Memory().Changes(0); complete {
		t.Error("nothing is in memory: got all changes, want that it is not known")
	}
	if _, _, known := apps.Memory().Get(id(1).Key()); known {
		t.Error("got app-1, want that it is not known before Load")
	}
	if err := apps.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, version, _ := apps.Memory().Changes(0)
	if keys, now, complete := apps.Memory().Changes(version); len(keys) != 0 || now != version || !complete {
		t.Errorf("nothing was written: got %v, version %d of %d, %v", keys, now, version, complete)
	}
	put(2)
	if err := apps.Delete(t.Context(), id(1)); err != nil {
		t.Fatal(err)
	}
	keys, now, complete := apps.Memory().Changes(version)
	if want := []string{id(2).Key(), id(1).Key()}; !complete || !slices.Equal(keys, want) {
		t.Errorf("got %v, %v, want %v", keys, complete, want)
	}
	if got, exists, known := apps.Memory().Get(id(2).Key()); !exists || !known || got.Generation != 1 {
		t.Errorf("got generation %d, %v, %v of the app that was written", got.Generation, exists, known)
	}
	if _, exists, known := apps.Memory().Get(id(1).Key()); exists || !known {
		t.Errorf("a deleted app: got %v, %v, want that it is known not to exist", exists, known)
	}
	for n := range 2000 {
		put(n % 7)
	}
	if keys, _, complete := apps.Memory().Changes(now); complete {
		t.Errorf("after 2000 writes: got %d changes as if they were all", len(keys))
	}
	_, now, _ = apps.Memory().Changes(now)
	for n := range 300 {
		put(n)
	}
	if keys, _, complete := apps.Memory().Changes(now); len(keys) != 300 || !complete || keys[299] != id(299).Key() {
		t.Errorf("after 300 writes: got %d changes, %v", len(keys), complete)
	}
}
