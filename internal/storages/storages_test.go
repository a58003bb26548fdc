package storages_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"penstock/internal/resource"
	"penstock/internal/storages"
	"penstock/internal/store"
)

var environment = resource.EnvironmentID("Sub", "Group", "Env")

// open returns a store in which the environments have a storage "data", and Env a read-only one, "models".
func open(t *testing.T, environments ...resource.ID) *store.Store {
	t.Helper()
	documents, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "penstock.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := documents.Close(); err != nil {
			t.Error(err)
		}
	})
	put := func(id resource.ID, access resource.AccessMode) {
		_, err := documents.Storages().Put(t.Context(), id, func(s *resource.Storage, _ bool) error {
			s.ID, s.Access = id, access
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range environments {
		put(e.Child("storages", "Data"), resource.ReadWrite)
	}
	put(environment.Child("storages", "models"), resource.ReadOnly)
	return documents
}

func TestFolderBelowRoot(t *testing.T) {
	other := resource.EnvironmentID("Sub", "Other", "Env")
	root := filepath.Join(t.TempDir(), "storages")
	folders := storages.New(open(t, environment, other), root, nil)
	got, err := folders.Folder(t.Context(), environment, "data")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(root, "sub", "group", "env", "data"); got.Folder != want || got.ReadOnly {
		t.Errorf("got %+v, want %s, writable", got, want)
	}
	info, err := os.Stat(got.Folder)
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("folder of the storage: got %v, %v, want mode 0777", info.Mode(), err)
	}
	if info, err = os.Stat(filepath.Dir(got.Folder)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder above: got %v, %v, want mode 0700", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(got.Folder, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := folders.Folder(t.Context(), environment, "data"); err != nil || again != got {
		t.Errorf("asked again: got %+v, %v, want %+v", again, err, got)
	}
	second, err := folders.Folder(t.Context(), other, "data")
	if err != nil || second.Folder == got.Folder {
		t.Errorf("an environment of the same name in another group: got %+v, %v, want another folder", second, err)
	}
	if models, err := folders.Folder(t.Context(), environment, "models"); err != nil || !models.ReadOnly {
		t.Errorf("a read-only storage: got %+v, %v, want it read-only", models, err)
	}
	if _, err := folders.Folder(t.Context(), environment, "none"); !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("a storage that is not there: got %v, want ErrNotFound", err)
	}
}

func TestFolderStaysBelowRoot(t *testing.T) {
	for _, group := range []string{"..", "."} {
		odd := resource.EnvironmentID("sub", group, "env")
		root := t.TempDir()
		folders := storages.New(open(t, odd), root, nil)
		if got, err := folders.Folder(t.Context(), odd, "data"); err == nil {
			t.Errorf("resource group %q: got %s, want an error", group, got.Folder)
		}
	}
}

func TestNamedFolder(t *testing.T) {
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Flags&unix.ST_NOSUID != 0 {
		t.Skip("needs a temporary folder on a file system without nosuid")
	}
	enterable, closed, file := filepath.Join(dir, "enterable"), filepath.Join(dir, "closed"), filepath.Join(dir, "file")
	inside := filepath.Join(closed, "inside")
	link := filepath.Join(dir, "link")
	// Only the owner can enter the folders of tests.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Mkdir(enterable, 0o755), os.Mkdir(closed, 0o755), os.Mkdir(inside, 0o777), os.Chmod(closed, 0o750),
		os.WriteFile(file, nil, 0o600), os.Symlink(enterable, link)); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		folder, storage string
		fault           string
	}{
		"below a folder that nobody enters":     {inside, "data", ""},
		"every user can enter":                  {enterable, "data", "chmod o-x"},
		"a link to what every user can enter":   {link, "data", "chmod o-x"},
		"every user can enter, but read-only":   {enterable, "models", ""},
		"a file":                                {file, "data", "want a folder"},
		"not there":                             {filepath.Join(dir, "gone"), "data", "no such file"},
		"not there, of a read-only storage too": {filepath.Join(dir, "gone"), "models", "no such file"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			// The operator's settings are in lower case, whatever the case of the names is.
			folders := storages.New(open(t, environment), t.TempDir(), map[string]string{"env/" + test.storage: test.folder})
			got, err := folders.Folder(t.Context(), environment, test.storage)
			switch {
			case test.fault == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case test.fault == "" && got.Folder != test.folder:
				t.Errorf("got %s, want %s", got.Folder, test.folder)
			case test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault) || !strings.Contains(err.Error(), "setting storages")):
				t.Errorf("got %v, want an error about the setting storages with %q", err, test.fault)
			}
		})
	}
}
