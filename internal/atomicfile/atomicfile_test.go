package atomicfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"penstock/internal/atomicfile"
)

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// alone fails when anything but the file is left in its folder.
func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestWrite(t *testing.T) {
	for name, write := range map[string]func(string, []byte, os.FileMode) error{
		"synced": atomicfile.Write, "unsynced": atomicfile.WriteUnsynced,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.json")
			for _, want := range []struct {
				text string
				mode os.FileMode
			}{{"first", 0o644}, {"second and longer", 0o600}, {"", 0o666}} {
				if err := write(path, []byte(want.text), want.mode); err != nil {
					t.Fatal(err)
				}
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if got := content(t, path); got != want.text || info.Mode() != want.mode {
					t.Errorf("got %q with mode %o, want %q with %o", got, info.Mode(), want.text, want.mode)
				}
			}
			alone(t, path)

			// A folder cannot be replaced by a file.
			if err := os.Mkdir(path+".d", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := write(path+".d", []byte("x"), 0o600); err == nil {
				t.Error("a folder was replaced by a file")
			}
			if err := os.Remove(path + ".d"); err != nil {
				t.Fatal(err)
			}
			alone(t, path)

			if err := write(filepath.Join(path, "below"), nil, 0o600); err == nil {
				t.Error("a file was made below a file")
			}
		})
	}
}

// Whoever reads while others write sees one content or the other.
func TestReadersSeeOneWholeContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	contents := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 50_000)}
	if err := atomicfile.Write(path, contents[0], 0o600); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for _, c := range contents {
		writers.Go(func() {
			for range 20 {
				if err := atomicfile.WriteUnsynced(path, c, 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		if got := []byte(content(t, path)); !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("read %d bytes that are neither content", len(got))
		}
	}
	writers.Wait()
	alone(t, path)
}

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backup")
	if err := atomicfile.Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := func(text string) *atomicfile.File {
		f, err := atomicfile.Create(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := begin("given up")
	if err := f.Discard(); err != nil {
		t.Error(err)
	}
	if err := f.Commit(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("commit after discard: got %v, want that it is closed", err)
	}
	if got := content(t, path); got != "old" {
		t.Errorf("after discard: got %q, want old", got)
	}
	alone(t, path)

	f = begin("new")
	if got := content(t, path); got != "old" {
		t.Errorf("before commit: got %q, want old", got)
	}
	if err := errors.Join(f.Commit(), f.Discard()); err != nil {
		t.Error(err)
	}
	if got := content(t, path); got != "new" {
		t.Errorf("after commit: got %q, want new", got)
	}
	alone(t, path)
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := atomicfile.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that there is no such file", err)
	}
	if err := os.WriteFile(from, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Rename(from, to); err != nil {
		t.Fatal(err)
	}
	if got := content(t, to); got != "x" {
		t.Errorf("got %q", got)
	}
	alone(t, to)
}
