package containerd_test

import (
	"archive/tar"
	"bytes"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

func (l *lab) volume(replica, name string) string {
	return filepath.Join(l.dir, "root", "sandboxes", replica, "disk", "volumes", name)
}

func emptyDirs(mounts ...resource.VolumeMount) (list []local.Mount) {
	for _, m := range mounts {
		list = append(list, local.Mount{VolumeMount: m, Type: resource.EmptyDir})
	}
	return list
}

// mounting starts a hello server that runs as an ordinary user and mounts the volume one.
func (l *lab) mounting(name string, limit int64, mounts ...resource.VolumeMount) *replica {
	l.Helper()
	user := l.push(func(c *v1.Config) { c.User = "model" })
	return l.run(name, func(s *local.Sandbox, c *local.Container) {
		s.DiskLimit, c.Image, c.Mounts = limit, user, emptyDirs(mounts...)
	})
}

func TestVolumeIsOnTheReplicasDisk(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.mounting("app--0000001-a", 64<<20, resource.VolumeMount{Volume: "one", Path: "/one"}, resource.VolumeMount{Volume: "one", Path: "/deep/part", SubPath: "a/b"})
	for _, path := range []string{"/one/file", "/deep/part/file"} {
		r.post("/write", url.Values{"path": {path}, "mb": {"1"}})
	}
	if n := len(r.file("/one/a/b/file")); n != 1<<20 {
		t.Errorf("what was written below the sub path: got %d bytes in the volume", n)
	}
	if _, err := r.try("POST", "/write", url.Values{"path": {"/one/big"}, "mb": {"100"}}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("100 MiB on a disk of 64: got %v", err)
	}
	if err := l.driver.Delete(t.Context(), r.id); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(l.volume(r.name, "one"), "file")); err != nil {
		t.Errorf("the container was deleted, not its replica: %v", err)
	}
	if err := l.driver.RemoveSandbox(t.Context(), r.name); err != nil {
		t.Fatal(err)
	}
	for _, line := range l.leftovers() {
		t.Error("left behind:", line)
	}
}

// Nothing that a program puts into a volume leads a mount out of it.
func TestVolumeTricks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.mounting("app--0000001-a", 64<<20, resource.VolumeMount{Volume: "one", Path: "/one"})
	one := l.volume(r.name, "one")
	for link, to := range map[string]string{"absolute": "/etc", "up": "../../../../../../etc", "within": "."} {
		if err := os.Symlink(to, filepath.Join(one, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(one, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one, "config"), []byte("a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		mount resource.VolumeMount
		want  string
	}{
		"an absolute link":         {resource.VolumeMount{Volume: "one", Path: "/m", SubPath: "absolute"}, "symbolic link"},
		"a file behind a link":     {resource.VolumeMount{Volume: "one", Path: "/m", SubPath: "absolute/passwd"}, "symbolic link"},
		"a link that leads up":     {resource.VolumeMount{Volume: "one", Path: "/m", SubPath: "up"}, "symbolic link"},
		"a link in the volume":     {resource.VolumeMount{Volume: "one", Path: "/m", SubPath: "within/x"}, "symbolic link"},
		"dots":                     {resource.VolumeMount{Volume: "one", Path: "/m", SubPath: "../two"}, "want the name of a folder"},
		"a volume of another name": {resource.VolumeMount{Volume: "../../record.json", Path: "/m"}, "want the name of a folder"},
		"a pipe":                   {resource.VolumeMount{Volume: "one", Path: "/m", SubPath: "pipe"}, "want a folder or a file"},
		"below a file":             {resource.VolumeMount{Volume: "one", Path: "/m", SubPath: "config/x"}, "not a directory"},
	} {
		c := l.containerOf(r.name, l.push(nil))
		c.ID, c.Name, c.Mounts = r.name+"/other", "other", emptyDirs(test.mount)
		if err := l.driver.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	c := l.containerOf(r.name, l.push(func(c *v1.Config) { c.Env = []string{"PORT=9090"} }))
	c.ID, c.Name, c.Mounts = r.name+"/other", "other", emptyDirs(resource.VolumeMount{Volume: "one", Path: "/etc/config", SubPath: "config"})
	if err := l.driver.Create(t.Context(), c); err != nil {
		t.Errorf("a file as sub path: %v", err)
	}
}

// If a mount's path contains a symbolic link of the image, the link is followed inside the container.
func TestVolumeBehindALinkOfTheImage(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	outside := filepath.Join(l.dir, "outside")
	if err := os.Mkdir(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "data", Linkname: "../../.." + outside, Mode: 0o777}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image := l.push(nil, layer)
	r := l.run("app--0000001-a", func(_ *local.Sandbox, c *local.Container) {
		c.Image, c.Mounts = image, emptyDirs(resource.VolumeMount{Volume: "one", Path: "/data/vol"})
	})
	r.post("/write", url.Values{"path": {"/data/vol/file"}, "mb": {"1"}})
	if _, err := os.Stat(filepath.Join(l.volume(r.name, "one"), "file")); err != nil {
		t.Errorf("want the file in the volume: %v", err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("want nothing made outside the container, got %v, %v", entries, err)
	}
}
