package containerd_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
)

// patience is far above what the calls in these tests take, and bounds what would otherwise wait for ever.
const patience = time.Minute

// entry returns a layer with one entry.
func entry(t testing.TB, h tar.Header) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&h), w.Close()); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

func TestUserFilesOfAnImageMustBeRegular(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, h := range map[string]struct {
		tar.Header
		want string
	}{
		"pipe":   {tar.Header{Typeflag: tar.TypeFifo, Name: "etc/passwd", Mode: 0o644}, "/etc/passwd of the image: want a regular file, got a named pipe"},
		"folder": {tar.Header{Typeflag: tar.TypeDir, Name: "etc/group", Mode: 0o755}, "/etc/group of the image: want a regular file, got a folder"},
		// Inside the container the link leads to a file that it does not have.
		"link": {tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/passwd", Linkname: "/../../../../../../proc/self/environ"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := l.sandbox("user-"+name), l.containerOf("user-"+name, l.push(func(c *v1.Config) { c.User = "1000" }, entry(t, h.Header)))
			if _, err := l.driver.CreateSandbox(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := l.driver.Create(ctx, c)
			if h.want == "" && err != nil || h.want != "" && (err == nil || !strings.Contains(err.Error(), h.want)) {
				t.Errorf("Create: %v, want %q", err, h.want)
			}
			if err := errors.Join(l.driver.Delete(ctx, c.ID), l.driver.RemoveSandbox(ctx, s.Replica)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A container may replace its own user files while it runs. Commands are run in it all the same, and it ends.
func TestCommandsRunWhereUserFilesArePipes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("pipes", nil)
	for _, name := range []string{"passwd", "group"} {
		path := r.inside("etc", name)
		if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if code, err := l.driver.Exec(ctx, r.id, runtimes.Exec{Command: []string{"/hello", "exit", "0"}, Stdout: io.Discard, Stderr: io.Discard}); err != nil || code != 0 {
		t.Errorf("exec: %d, %v", code, err)
	}
	r.gone(ctx)
}

// inside returns the host's path of a file of a replica.
func (r *replica) inside(path ...string) string {
	return filepath.Join("/proc", strconv.Itoa(r.pid), "root", filepath.Join(path...))
}

// gone removes the replica and checks that nothing of it is left.
func (r *replica) gone(ctx context.Context) {
	r.Helper()
	began := time.Now()
	if err := errors.Join(r.driver.Delete(ctx, r.id), r.driver.RemoveSandbox(ctx, r.name)); err != nil {
		r.Fatal(err)
	}
	r.Logf("removed in %s", time.Since(began).Round(time.Millisecond))
	if left := r.sandboxes(); len(left) != 0 {
		r.Errorf("left: %v", left)
	}
}

// nest makes n folders, each in the one before, with a file in each hundredth.
func nest(t testing.TB, dir string, n int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for i := range n {
		if err == nil {
			err = unix.Mkdirat(at, "d", 0o755)
		}
		if err == nil && i%100 == 0 {
			var fd int
			if fd, err = unix.Openat(at, "f", unix.O_CREAT|unix.O_CLOEXEC, 0o600); err == nil {
				err = unix.Close(fd)
			}
		}
		if err == nil {
			var next int
			next, err = unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			err = errors.Join(err, unix.Close(at))
			at = next
		}
	}
	if err := errors.Join(err, unix.Close(at)); err != nil {
		t.Fatal(err)
	}
}

func TestDeepTreesAreRemoved(t *testing.T) {
	t.Parallel()
	const depth = 21_000 // more than the descriptors that root may have open here
	for name, limit := range map[string]int64{"on a disk": 4 << 30, "without a limit": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			var spec local.Container
			r := l.run("deep", func(s *local.Sandbox, c *local.Container) {
				s.DiskLimit = limit
				c.Image = l.push(nil)
				spec = *c
			})
			nest(t, r.inside("tmp"), depth)
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			// It is started again, with an empty disk, and then goes.
			if err := errors.Join(l.driver.Delete(ctx, r.id), l.driver.Create(ctx, spec)); err != nil {
				t.Fatal(err)
			}
			var err error
			if r.pid, err = l.driver.Start(ctx, r.id); err != nil {
				t.Fatal(err)
			}
			r.waitReady()
			if left, err := os.ReadDir(r.inside("tmp")); err != nil || len(left) != 0 {
				t.Errorf("in a new container: %v, %v", left, err)
			}
			if limit != 0 {
				nest(t, r.inside("tmp"), depth)
			}
			r.gone(ctx)
		})
	}
}

// A kernel makes a file system read-only when the host's disk under it was full.
func TestReplicaWithAReadOnlyDiskIsRemoved(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("frozen", nil)
	r.post("/write", url.Values{"path": {"/tmp/some"}, "mb": {"1"}})
	disk := filepath.Join(l.dir, "root", "sandboxes", r.name, "disk")
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.gone(ctx)
}

func TestHostFilesCountOnTheReplicasDisk(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const limit = 64 << 20
	r := l.run("wide", func(s *local.Sandbox, _ *local.Container) { s.DiskLimit = limit })
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		if _, err := r.try("POST", "/write", url.Values{"path": {"/etc/" + name}, "mb": {"80"}}); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("80 MiB to /etc/%s of a replica with %d MiB: %v, want no space left", name, limit>>20, err)
		}
		if err := os.Truncate(r.inside("etc", name), 0); err != nil {
			t.Fatal(err)
		}
	}
}
