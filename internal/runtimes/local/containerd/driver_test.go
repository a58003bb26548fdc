package containerd_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"penstock/internal/network"
	"penstock/internal/oci"
	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/runtimes/local/containerd"
)

// lab is a driver with its own folders, network and cgroups. All are removed at the end of the test.
type lab struct {
	testing.TB
	dir     string
	name    string
	console *console
	network *network.Network
	driver  *containerd.Driver
	log     *slog.Logger
}

// output writes to a test's log until the test ends. containerd's default logger uses the last driver's logger for
// longer.
type output struct {
	mu sync.Mutex
	to io.Writer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.to.Write(b)
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to = io.Discard
}

func needMachine(t testing.TB) (shim, runc string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("missing: root, to run containers")
	}
	root, err := filepath.Abs("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	shim, runc = filepath.Join(root, "bin", "containerd-shim-runc-v2"), filepath.Join(root, "bin", "runc")
	for _, path := range []string{shim, runc} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("missing: %s, which make builds", path)
		}
	}
	return shim, runc
}

func newLab(t testing.TB) *lab {
	t.Helper()
	needMachine(t)
	// Sockets need a short path, and t.TempDir is too long.
	dir, err := os.MkdirTemp("/run", "pst")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	out := &output{to: t.Output()}
	l := &lab{TB: t, dir: dir, name: filepath.Base(dir), console: &console{}, log: slog.New(slog.NewTextHandler(out, nil))}
	t.Cleanup(out.end)
	t.Cleanup(l.remove)
	l.open()
	return l
}

func (l *lab) config() containerd.Config {
	l.Helper()
	shim, runc := needMachine(l)
	return containerd.Config{
		Root: filepath.Join(l.dir, "root"), State: filepath.Join(l.dir, "s"), Shim: shim, Runc: runc,
		CgroupParent: "/" + l.name + "/replicas", ShimCgroup: "/" + l.name + "/shims", Network: l.network, Console: l.console, Log: l.log,
	}
}

func (l *lab) open() {
	l.Helper()
	var err error
	l.network, err = network.Open(l.Context(), network.Config{
		Dir: filepath.Join(l.dir, "net"), State: filepath.Join(l.dir, "s"), Instance: l.name,
		Log: l.log,
	})
	if err != nil {
		l.Fatal(err)
	}
	if l.driver, err = containerd.Open(l.Context(), l.config()); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) close() {
	l.Helper()
	if l.driver == nil {
		return
	}
	if err := l.driver.Close(); err != nil {
		l.Error(err)
	}
	l.driver = nil
}

// remove deletes all containers and everything that was created for them.
func (l *lab) remove() {
	ctx := context.Background()
	if l.driver != nil {
		list, err := l.driver.List(ctx)
		if err != nil {
			l.Error(err)
		}
		for _, s := range list {
			for _, c := range s.Containers {
				if err := l.driver.Delete(ctx, c.ID); err != nil {
					l.Error(err)
				}
			}
			if err := l.driver.RemoveSandbox(ctx, s.Replica); err != nil {
				l.Error(err)
			}
		}
		l.close()
	}
	if l.network != nil {
		if err := l.network.Destroy(ctx); err != nil {
			l.Error(err)
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.Error(err)
	}
	for _, m := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "unified", ""} {
		top := filepath.Join("/sys/fs/cgroup", m, l.name)
		if _, err := os.Stat(top); err != nil {
			continue
		}
		os.Remove(filepath.Join(top, "replicas"))
		// A shim ends a moment after its container was deleted.
		until(l.TB, "the shims have ended", func() bool {
			os.Remove(filepath.Join(top, "shims"))
			return !errors.Is(os.Remove(top), syscall.EBUSY)
		})
	}
}

// console keeps the output of containers.
type console struct {
	mu   sync.Mutex
	text map[string]*bytes.Buffer // by container and stream
}

type consoleWriter struct {
	c   *console
	key string
}

func (c *console) Open(o local.Output) io.WriteCloser {
	return consoleWriter{c, o.ID + "/" + o.Stream}
}

func (w consoleWriter) Write(b []byte) (int, error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.c.text == nil {
		w.c.text = map[string]*bytes.Buffer{}
	}
	if w.c.text[w.key] == nil {
		w.c.text[w.key] = &bytes.Buffer{}
	}
	return w.c.text[w.key].Write(b)
}

func (w consoleWriter) Close() error { return nil }

func (c *console) String(key string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.text[key] == nil {
		return ""
	}
	return c.text[key].String()
}

// hello returns the program of examples/hello, which is built once for all tests.
var hello = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "hello")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "hello"), ".")
	cmd.Dir = "../../../../examples/hello"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "hello"))
})

// push puts the hello image into the driver's store through the registry, as users do, and returns its name.
func (l *lab) push(change func(*v1.Config), more ...v1.Layer) string {
	l.Helper()
	layers, err := helloLayers()
	if err != nil {
		l.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, slices.Concat(layers, more)...)
	if err != nil {
		l.Fatal(err)
	}
	cfg := v1.Config{Entrypoint: []string{"/hello"}, Env: []string{"FROM_IMAGE=yes", "PORT=8080"}}
	if change != nil {
		change(&cfg)
	}
	file, err := image.ConfigFile()
	if err != nil {
		l.Fatal(err)
	}
	file = file.DeepCopy()
	file.Config, file.OS, file.Architecture = cfg, "linux", "amd64"
	if image, err = mutate.ConfigFile(image, file); err != nil {
		l.Fatal(err)
	}
	registry := oci.NewRegistry(l.driver.Stores(), slog.New(slog.DiscardHandler))
	defer registry.Close()
	srv := httptest.NewServer(registry)
	defer srv.Close()
	repository := fmt.Sprintf("hello-%x", sha256.Sum256(fmt.Append(nil, cfg, len(more))))[:20]
	ref, err := name.NewTag(strings.TrimPrefix(srv.URL, "http://") + "/" + repository + ":1")
	if err != nil {
		l.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithContext(l.Context())); err != nil {
		l.Fatal(err)
	}
	return repository + ":1"
}

// helloLayers returns two layers, so that an overlay is needed. They are created once, because compressing takes longer
// than a test.
var helloLayers = sync.OnceValues(func() ([]v1.Layer, error) {
	program, err := hello()
	if err != nil {
		return nil, err
	}
	var layers []v1.Layer
	for _, files := range []map[string][]byte{
		{"etc/passwd": []byte("root:x:0:0::/:/\nmodel:x:1000:1000::/:/\n"), "etc/group": []byte("root:x:0:\nmodel:x:1000:\n")},
		{"hello": program},
	} {
		layer, err := layerOf(files)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	return layers, nil
})

func layerOf(files map[string][]byte) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"etc/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithCompressedCaching, tarball.WithCompressionLevel(gzip.BestSpeed))
}

// replica is a running hello server.
type replica struct {
	*lab
	name    string
	id      string
	pid     int
	address netip.Addr
}

func (l *lab) sandbox(name string) local.Sandbox {
	return local.Sandbox{
		Replica: name, Environment: resource.EnvironmentID("s", "g", "env"), DiskLimit: 1 << 30,
		Capabilities: resource.CapabilitiesDefault, Record: []byte("record of " + name),
	}
}

func (l *lab) containerOf(name, image string) local.Container {
	return local.Container{
		ID: name + "/main", Replica: name, Name: "main", Image: image, Hostname: name,
		Env:       []resource.EnvVar{{Name: "NAME", Value: name}},
		Resources: resource.Resources{MilliCPU: 500, Memory: 128 << 20},
	}
}

// run starts a hello server, and waits until it answers.
func (l *lab) run(name string, change func(*local.Sandbox, *local.Container)) *replica {
	l.Helper()
	r := l.start(name, change)
	r.waitReady()
	return r
}

func (l *lab) start(name string, change func(*local.Sandbox, *local.Container)) *replica {
	l.Helper()
	s, c := l.sandbox(name), l.containerOf(name, "")
	if change != nil {
		change(&s, &c)
	}
	if c.Image == "" {
		c.Image = l.push(nil)
	}
	address, err := l.driver.CreateSandbox(l.Context(), s)
	if err != nil {
		l.Fatal(err)
	}
	if err := l.driver.Create(l.Context(), c); err != nil {
		l.Fatal(err)
	}
	pid, err := l.driver.Start(l.Context(), c.ID)
	if err != nil {
		l.Fatal(err)
	}
	return &replica{lab: l, name: name, id: c.ID, pid: pid, address: address}
}

func (r *replica) waitReady() {
	r.Helper()
	until(r, "hello answers", func() bool {
		_, err := r.try("GET", "/", nil)
		return err == nil
	})
}

func (r *replica) try(method, path string, query url.Values) (string, error) {
	u := url.URL{Scheme: "http", Host: netip.AddrPortFrom(r.address, 8080).String(), Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(r.Context(), method, u.String(), nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(b)))
	}
	return string(b), err
}

func (r *replica) get(path string, query url.Values) string {
	r.Helper()
	s, err := r.try("GET", path, query)
	if err != nil {
		r.Fatalf("GET %s %v: %v", path, query, err)
	}
	return s
}

func (r *replica) post(path string, query url.Values) string {
	r.Helper()
	s, err := r.try("POST", path, query)
	if err != nil {
		r.Fatalf("POST %s %v: %v", path, query, err)
	}
	return s
}

func (r *replica) file(path string) string {
	r.Helper()
	return r.get("/file", url.Values{"path": {path}})
}

// until polls until a condition outside this process is true.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 15 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestContainerAnswers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("app--0000001-a", nil)
	if got := r.get("/", nil); got != "hello, app--0000001-a\n" {
		t.Errorf("got %q", got)
	}
}
