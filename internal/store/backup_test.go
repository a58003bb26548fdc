package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// A copy that is made while others write is a sound database of some moment between.
func TestBackupWhileOthersWrite(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), filepath.Join(dir, "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(n int) {
		id := resource.EnvironmentID("s", "g", "e")
		if _, err := s.Environments().Put(t.Context(), id, func(e *resource.Environment, _ bool) error {
			e.ID, e.Generation = id, int64(n)
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	put(1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 2; ; n++ {
			select {
			case <-stop:
				return
			default:
				put(n)
			}
		}
	})
	for _, name := range []string{"b.db", "c.db"} {
		path := filepath.Join(dir, name)
		if err := s.Backup(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		if err := store.Check(t.Context(), path); err != nil {
			t.Error(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want a file for its owner only", name, info.Mode(), err)
		}
		if _, err := os.Stat(path + "-wal"); err == nil {
			t.Errorf("%s: want one file that is whole by itself", name)
		}
		copied, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		e, err := copied.Environments().Get(t.Context(), resource.EnvironmentID("s", "g", "e"))
		if err != nil || e.Generation < 1 {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		// Opened, it is in WAL mode as the original: a reader does not keep the writer out.
		if _, err := os.Stat(path + "-wal"); err != nil {
			t.Errorf("%s, open: %v", name, err)
		}
		if err := copied.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if err := s.Backup(t.Context(), filepath.Join(dir, "b.db")); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another file: %v, want a refusal", err)
	}
}
