package containerd_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

func storageMount(folder, path, subPath string, readOnly bool) local.Mount {
	return local.Mount{
		VolumeMount: resource.VolumeMount{Volume: "shared", Path: path, SubPath: subPath},
		Type:        resource.AzureFile, Storage: local.Storage{Folder: folder, ReadOnly: readOnly},
	}
}

// folder creates a folder that the machine's users cannot enter, as storages are.
func (l *lab) folder(name string) string {
	l.Helper()
	at := filepath.Join(l.dir, "storages", name)
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		l.Fatal(err)
	}
	if err := os.Mkdir(at, 0o777); err != nil {
		l.Fatal(err)
	}
	if err := os.Chmod(at, 0o777); err != nil {
		l.Fatal(err)
	}
	return at
}

func ownerOf(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// Each replica has its own user IDs, but in a storage all have the same ones.
func TestStorageIsSharedByReplicas(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	folder := l.folder("models")
	if err := os.WriteFile(filepath.Join(folder, "weights"), []byte("by the operator"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(name, user string, mounts ...local.Mount) *replica {
		image := l.push(func(c *v1.Config) { c.User = user })
		return l.run(name, func(_ *local.Sandbox, c *local.Container) { c.Image, c.Mounts = image, mounts })
	}
	root := start("app--0000001-a", "", storageMount(folder, "/models", "", false))
	model := start("app--0000001-b", "model", storageMount(folder, "/m", "", false), storageMount(folder, "/part", "deep/part", false))
	reader := start("other--0000001-a", "", storageMount(folder, "/models", "", true))

	if got := reader.file("/models/weights"); got != "by the operator" {
		t.Errorf("a file of the machine's root that only it may read: got %q by a container's root", got)
	}
	if _, err := model.try("GET", "/file", url.Values{"path": {"/m/weights"}}); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("the same by another user: %v", err)
	}
	root.post("/write", url.Values{"path": {"/models/of-root"}, "mb": {"1"}})
	model.post("/write", url.Values{"path": {"/m/of-model"}, "mb": {"1"}})
	model.post("/write", url.Values{"path": {"/part/file"}, "mb": {"1"}})
	for name, owner := range map[string]uint32{"of-root": 0, "of-model": 1000, "deep": 0, "deep/part/file": 1000} {
		if got := ownerOf(t, filepath.Join(folder, name)); got != owner {
			t.Errorf("%s belongs to %d on the machine, want %d", name, got, owner)
		}
	}
	if n := len(reader.file("/models/deep/part/file")); n != 1<<20 {
		t.Errorf("another app reads %d bytes", n)
	}
	for _, path := range []string{"/models/new", "/models/of-root"} {
		if _, err := reader.try("POST", "/write", url.Values{"path": {path}, "mb": {"0"}}); err == nil || !strings.Contains(err.Error(), "read-only file system") {
			t.Errorf("write %s to a storage that is read-only: %v", path, err)
		}
	}
	for _, r := range []*replica{root, model, reader} {
		if mounts := r.file("/proc/mounts"); strings.Count(mounts, ",nosuid,nodev,") < 1 || strings.Contains(mounts, " /models ext4 rw,relatime") {
			t.Errorf("mounts of %s:\n%s", r.name, mounts)
		}
	}
	if err := l.driver.Delete(t.Context(), root.id); err != nil {
		t.Fatal(err)
	}
	if err := l.driver.RemoveSandbox(t.Context(), root.name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(folder, "of-root")); err != nil {
		t.Errorf("the replica has gone, not what it wrote: %v", err)
	}
}

// Nothing that a program puts into a storage leads a mount out of it, and devices in it cannot be used.
func TestStorageTricks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	folder := l.folder("models")
	for link, to := range map[string]string{"absolute": "/etc", "up": "../..", "within": "."} {
		if err := os.Symlink(to, filepath.Join(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	const null = 1<<8 | 3
	if err := syscall.Mknod(filepath.Join(folder, "device"), syscall.S_IFCHR|0o666, null); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(folder, "device"), 0o666); err != nil {
		t.Fatal(err)
	}
	r := l.run("app--0000001-a", func(_ *local.Sandbox, c *local.Container) {
		c.Mounts = []local.Mount{storageMount(folder, "/models", "", false)}
	})
	for name, test := range map[string]struct{ method, path, query, want string }{
		"read a device":                   {"GET", "/file", "path=/models/device", "permission denied"},
		"follow a link to the machine":    {"GET", "/file", "path=/models/absolute/shadow", "no such file"},
		"follow a link out of the folder": {"GET", "/file", "path=/models/up/root", "no such file"},
		"go up from the folder":           {"GET", "/file", "path=/models/../../storages/models/file", "no such file"},
	} {
		query, err := url.ParseQuery(test.query)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := r.try(test.method, test.path, query); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %q, %v, want %q", name, answer, err, test.want)
		}
	}
	image := l.push(nil)
	for name, test := range map[string]struct {
		mount local.Mount
		want  string
	}{
		"an absolute link":            {storageMount(folder, "/m", "absolute", false), "symbolic link"},
		"a link that leads up":        {storageMount(folder, "/m", "up/sandboxes", false), "symbolic link"},
		"a link in the storage":       {storageMount(folder, "/m", "within", true), "symbolic link"},
		"dots":                        {storageMount(folder, "/m", "../models", false), "want the name of a folder"},
		"a device":                    {storageMount(folder, "/m", "device", false), "want a folder or a file"},
		"below a file":                {storageMount(folder, "/m", "file/x", false), "not a directory"},
		"no folder is made read-only": {storageMount(folder, "/m", "new", true), "no such file"},
		"a folder that is not there":  {storageMount(folder+".gone", "/m", "", false), "no such file"},
		"a file as a folder":          {storageMount(folder+"/file", "/m", "", false), "not a directory"},
	} {
		c := l.containerOf(r.name, image)
		c.ID, c.Name, c.Mounts = r.name+"/other", "other", []local.Mount{test.mount}
		if err := l.driver.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
