package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/internal/backup"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// write makes a backup of a data folder with a database and some files.
func write(t testing.TB, images bool) []byte {
	t.Helper()
	data := t.TempDir()
	documents, err := store.Open(t.Context(), filepath.Join(data, "penstock.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer documents.Close()
	id := resource.EnvironmentID("s", "g", "kept")
	if _, err := documents.Environments().Put(t.Context(), id, func(e *resource.Environment, _ bool) error {
		e.ID = id
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{
		"instance": 0o644, "settings.yaml": 0o644, "token": 0o600, "pki/ca.key": 0o600, "network/network.json": 0o600, "later/some.key": 0o600,
		"lock": 0o644, "client.json": 0o644, "server.log": 0o640, "logs/console/1": 0o600, "storages/s/g/e/models/weights": 0o666, "containerd/meta.db": 0o600, "pki/.new-1": 0o600,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(data, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(data, name), []byte("of "+name), mode); err != nil {
			t.Fatal(err)
		}
	}
	source := backup.Source{
		Info: backup.Info{Version: "test", Created: time.Unix(1e9, 0).UTC(), Instance: "0badcafe"},
		Data: data, Database: documents.Backup,
	}
	if images {
		source.Images = func(_ context.Context, add func(string, int64, io.Reader) error) error {
			return add("blobs/sha256/00", 4, strings.NewReader("blob"))
		}
	}
	var out bytes.Buffer
	if err := backup.Write(t.Context(), &out, source); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(data, ".backup-*")); err != nil || len(left) > 0 {
		t.Errorf("left after a backup: %q, %v", left, err)
	}
	return out.Bytes()
}

// files lists a folder with the modes of what is in it.
func files(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		list = append(list, name+" "+info.Mode().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, "\n")
}

func TestRestoredFolderHasAllThatMustBeKept(t *testing.T) {
	tests := map[string]struct {
		images, asNew bool
		want          string
	}{
		"as it was": {want: "instance -rw-r--r--\nlater/some.key -rw-------\nnetwork/network.json -rw-------\npenstock.db -rw-------\npki/ca.key -rw-------\nsettings.yaml -rw-r--r--\ntoken -rw-------"},
		"with images, beside the old one": {images: true, asNew: true,
			want: "import/blobs/sha256/00 -rw-------\nlater/some.key -rw-------\npenstock.db -rw-------\npki/ca.key -rw-------\ntoken -rw-------"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := write(t, test.images)
			dir := filepath.Join(t.TempDir(), "deep", "data")
			info, err := backup.Restore(t.Context(), bytes.NewReader(b), backup.Target{Dir: dir, AsNew: test.asNew})
			if err != nil || info.Instance != "0badcafe" || info.Images != test.images {
				t.Fatalf("restored %+v, %v", info, err)
			}
			if got := files(t, dir); got != test.want {
				t.Errorf("got files\n%s\nwant\n%s", got, test.want)
			}
			if b, err := os.ReadFile(filepath.Join(dir, "pki/ca.key")); err != nil || string(b) != "of pki/ca.key" {
				t.Errorf("pki/ca.key: %q, %v", b, err)
			}
			if stat, err := os.Stat(dir); err != nil || stat.Mode().Perm() != 0o711 {
				t.Errorf("the folder has mode %v, %v; want 0711, as users of containers pass through it", stat.Mode(), err)
			}
			documents, err := store.Open(t.Context(), filepath.Join(dir, "penstock.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer documents.Close()
			if _, err := documents.Environments().Get(t.Context(), resource.EnvironmentID("s", "g", "kept")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDamagedBackupIsRefusedAndLeavesNothing(t *testing.T) {
	whole := write(t, true)
	refused := func(what string, b []byte, want string) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "data")
		_, err := backup.Restore(t.Context(), bytes.NewReader(b), backup.Target{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", what, err, want)
		}
		if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) > 0 {
			t.Errorf("%s: %s is left", what, left[0].Name())
		}
	}
	end := bytes.LastIndex(whole, []byte("sums.json"))
	for cut := 0; cut < end; cut += 1021 {
		refused("cut", whole[:cut], "")
	}
	refused("cut before the sums", whole[:end], "cut short")
	changed := bytes.Replace(whole, []byte("of token"), []byte("of t0ken"), 1)
	refused("a changed file", changed, "data/token: it was changed")
	refused("a newer format", bytes.Replace(whole, []byte(`"format": 1`), []byte(`"format": 9`), 1), "want a backup of format 1 to 1, got 9, written by Penstock test")
	refused("another program's archive", whole[1024:], "want a backup of Penstock")

	var evil bytes.Buffer
	w, r := tar.NewWriter(&evil), tar.NewReader(bytes.NewReader(whole))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "data/token" {
			h.Name = "data/../../token"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	refused("a path that leads out", evil.Bytes(), `"data/../../token"`)
}

func TestFolderWithContentIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Restore(t.Context(), bytes.NewReader(write(t, false)), backup.Target{Dir: dir}); err == nil || !strings.Contains(err.Error(), "want an empty folder, found mine") {
		t.Errorf("got %v", err)
	}
	if got := files(t, dir); got != "mine -rw-------" {
		t.Errorf("the folder has %s", got)
	}
}

func TestRestoreAsksFirst(t *testing.T) {
	no := errors.New("no")
	dir := filepath.Join(t.TempDir(), "data")
	_, err := backup.Restore(t.Context(), bytes.NewReader(write(t, false)), backup.Target{Dir: dir, Allow: func(backup.Info) error { return no }})
	if !errors.Is(err, no) {
		t.Errorf("got %v, want %v", err, no)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is there: %v", err)
	}
}

func FuzzCheck(f *testing.F) {
	whole := write(f, true)
	f.Add(whole)
	f.Add(whole[:2000])
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if info, err := backup.Check(bytes.NewReader(b)); err == nil && info.Format != backup.Format {
			t.Errorf("accepted a backup of format %d", info.Format)
		}
	})
}
