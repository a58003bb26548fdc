//go:build linux

package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"

	"penstock/internal/build"
	"penstock/internal/oci"
	"penstock/internal/oci/ocitest"
)

// server is the server's registry, over the content store that containers are started from.
type server struct {
	*httptest.Server
	stores oci.Stores
	images *oci.Images
	before atomic.Pointer[http.HandlerFunc] // sees requests first
}

func newServer(t testing.TB) *server {
	t.Helper()
	stores, _, _ := ocitest.Open(t)
	s := &server{stores: stores}
	s.images = oci.NewImages(s.stores)
	registry := oci.NewRegistry(s.stores, slog.New(slog.DiscardHandler))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if before := s.before.Load(); before != nil {
			(*before)(w, req)
		}
		registry.ServeHTTP(w, req)
	}))
	t.Cleanup(func() {
		s.Close()
		registry.Close()
	})
	return s
}

// project is a folder with an image.yaml, and a cache for its builds.
type project struct {
	dir   string
	cache string
}

func newProject(t testing.TB, files map[string]string) *project {
	t.Helper()
	p := &project{dir: t.TempDir(), cache: t.TempDir()}
	p.write(t, files)
	return p
}

func (p *project) write(t testing.TB, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(p.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *project) options(s *server) build.Options {
	return build.Options{Dir: p.dir, Name: "app:1", Cache: p.cache, Registry: build.Registry{URL: s.URL}}
}

func (p *project) build(t testing.TB, s *server) build.Result {
	t.Helper()
	result, err := build.Build(t.Context(), p.options(s))
	if err != nil {
		t.Fatal(err)
	}
	return result
}

const twoLayers = `
layers:
  - {name: weights, from: weights.bin, to: /models/, compression: none}
  - {name: app, from: app, to: /opt/app}
entrypoint: [/opt/app/server]
env: {B: "2", A: "1"}
ports: [8080]
labels: {team: x}
`

func model() map[string]string {
	return map[string]string{
		build.SpecFile: twoLayers, "weights.bin": strings.Repeat("w", 3<<20), "app/server": "#!/bin/sh\n", "app/lib/one.py": "1", "app.txt": "not in the image",
	}
}

func TestBuiltImageRuns(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	if err := os.Chmod(filepath.Join(p.dir, "app/server"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("lib/one.py", filepath.Join(p.dir, "app/link")); err != nil {
		t.Fatal(err)
	}
	result := p.build(t, s)
	image, err := s.images.Resolve(t.Context(), "app:1")
	if err != nil {
		t.Fatal(err)
	}
	want := oci.Config{
		Entrypoint: []string{"/opt/app/server"}, Env: []string{"A=1", "B=2"}, User: "65532", WorkDir: "/", Ports: []int{8080}, Labels: map[string]string{"team": "x"},
	}
	if diff := cmp.Diff(want, image.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if image.Digest.String() != result.Digest || image.Size != result.Size || result.Name != "app:1" {
		t.Errorf("got %+v, want digest and size of %+v", image, result)
	}
	pulled := pull(t, s, "app:1")
	if diff := cmp.Diff([][]string{
		{"models/ 755 0:0", "models/weights.bin 644 0:0 3145728"},
		{"opt/ 755 0:0", "opt/app/ 755 0:0", "opt/app/lib/ 755 0:0", "opt/app/lib/one.py 644 0:0 1", "opt/app/link 777 0:0 -> lib/one.py", "opt/app/server 755 0:0 10"},
	}, pulled); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	list, err := s.images.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Layers[0].Name != "weights" || list[0].Layers[1].Name != "app" {
		t.Errorf("list: got %+v, %v, want the layers by name", list, err)
	}
	for _, l := range result.Layers {
		if l.Cached || !l.Pushed {
			t.Errorf("first build: got %+v, want built and pushed", l)
		}
	}
}

// pull reads an image as another client sees it, checks every digest, and returns the entries of its layers.
func pull(t *testing.T, s *server, image string) [][]string {
	t.Helper()
	return pullWith(t, s, image, false)
}

func pullWith(t *testing.T, s *server, image string, keepsTimes bool) [][]string {
	t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/" + image)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img, validate.Fast); err != nil {
		t.Error(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		tr := tar.NewReader(io.TeeReader(r, h))
		var entries []string
		for {
			header, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			e := fmt.Sprintf("%s %o %d:%d", header.Name, header.Mode, header.Uid, header.Gid)
			switch header.Typeflag {
			case tar.TypeReg:
				e += fmt.Sprintf(" %d", header.Size)
			case tar.TypeSymlink:
				e += " -> " + header.Linkname
			}
			if header.ModTime.Unix() != 0 && !keepsTimes {
				t.Errorf("%s: time %v, want the epoch", header.Name, header.ModTime)
			}
			entries = append(entries, e)
		}
		if _, err := io.Copy(h, r); err != nil {
			t.Fatal(err)
		}
		if want, err := l.DiffID(); err != nil || want.Hex != hex.EncodeToString(h.Sum(nil)) {
			t.Errorf("diff ID: got %x, want %s, %v", h.Sum(nil), want, err)
		}
		r.Close()
		all = append(all, entries)
	}
	return all
}

func TestUnchangedLayersAreNotTouched(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	first := p.build(t, s)

	again := p.build(t, s)
	if again.Digest != first.Digest || again.Hashed != 0 || again.Moved > 4096 {
		t.Errorf("second build: digest %s, hashed %d, moved %d, want %s, 0, only the manifest", again.Digest, again.Hashed, again.Moved, first.Digest)
	}
	for _, l := range again.Layers {
		if !l.Cached || l.Pushed {
			t.Errorf("second build: got %+v, want cached and there", l)
		}
	}

	p.write(t, map[string]string{"app/lib/one.py": "2"}) // same size
	changed := p.build(t, s)
	if w, a := changed.Layers[0], changed.Layers[1]; !w.Cached || w.Pushed || a.Cached || !a.Pushed {
		t.Errorf("after a change of app: got %+v", changed.Layers)
	}
	if changed.Moved > 8192 || changed.Hashed > 16384 {
		t.Errorf("after a change of app: moved %d, hashed %d bytes, want little more than the layer's %d", changed.Moved, changed.Hashed, changed.Layers[1].Size)
	}

	// A server that has nothing gets all, and nothing is read but what is moved.
	other := newServer(t)
	moved := p.build(t, other)
	if moved.Digest != changed.Digest || moved.Hashed != 0 || moved.Moved < 3<<20 {
		t.Errorf("into another server: digest %s, hashed %d, moved %d", moved.Digest, moved.Hashed, moved.Moved)
	}
	pull(t, other, "app:1")
}

func TestSameFilesGiveTheSameDigestAnywhere(t *testing.T) {
	for _, compression := range []string{"none", "gzip", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			s := newServer(t)
			files := model()
			files[build.SpecFile] = strings.ReplaceAll(twoLayers, "to: /opt/app}", "to: /opt/app, compression: "+compression+"}")
			one, two := newProject(t, files), newProject(t, files)
			// Another umask, other times, other order of creation.
			if err := os.Chmod(filepath.Join(two.dir, "app/lib/one.py"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(two.dir, "app/lib"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(filepath.Join(two.dir, "app/server"), time.Unix(1, 0), time.Unix(2, 0)); err != nil {
				t.Fatal(err)
			}
			a, b := one.build(t, s), two.build(t, s)
			if a.Digest != b.Digest {
				t.Errorf("got %s and %s", a.Digest, b.Digest)
			}
			if b.Layers[0].Pushed || b.Layers[1].Pushed {
				t.Errorf("got %+v, want both there", b.Layers)
			}
			pull(t, s, "app:1")
		})
	}
}

func TestWhatCannotBeALayer(t *testing.T) {
	s := newServer(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		prepare func(dir string)
		want    string
	}{
		"missing":              {func(string) {}, `layers[0] (l): from: want a file or folder, got "x", which does not exist in `},
		"empty folder":         {func(dir string) { must(os.Mkdir(filepath.Join(dir, "x"), 0o755)) }, `layers[0] (l): from: x: want something in it, got an empty folder`},
		"link that leads out":  {func(dir string) { must(os.Symlink(outside, filepath.Join(dir, "x"))) }, `layers[0] (l): from: want a file or folder inside `},
		"link that climbs out": {func(dir string) { must(os.Symlink("../../../../etc", filepath.Join(dir, "x"))) }, `layers[0] (l): from: want a file or folder inside `},
		"named pipe":           {func(dir string) { must(syscall.Mkfifo(filepath.Join(dir, "x"), 0o644)) }, `from: want a file or folder, got "x", which is a named pipe`},
		"named pipe in a folder": {func(dir string) {
			must(os.Mkdir(filepath.Join(dir, "x"), 0o755))
			must(syscall.Mkfifo(filepath.Join(dir, "x/p"), 0o644))
		}, `from: x/p: want files, folders and symbolic links, got a named pipe`},
		"hard link": {func(dir string) {
			must(os.Mkdir(filepath.Join(dir, "x"), 0o755))
			must(os.WriteFile(filepath.Join(dir, "x/a"), nil, 0o644))
			must(os.Link(filepath.Join(dir, "x/a"), filepath.Join(dir, "x/b")))
		}, `from: x/b: want a file of its own, got a hard link to x/a`},
		"whiteout": {func(dir string) {
			must(os.Mkdir(filepath.Join(dir, "x"), 0o755))
			must(os.WriteFile(filepath.Join(dir, "x/.wh.a"), nil, 0o644))
		}, `from: x/.wh.a: want a name that does not start with .wh.`},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			p := newProject(t, map[string]string{build.SpecFile: "layers: [{name: l, from: x, to: /x}]"})
			tt.prepare(p.dir)
			_, err := build.Build(t.Context(), p.options(s))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("all that is missing, before a base is made", func(t *testing.T) {
		t.Setenv("PATH", "") // without mmdebstrap, making the base would fail
		p := newProject(t, map[string]string{build.SpecFile: `
base: {debian: {suite: bookworm, packages: [hello]}}
layers: [{name: l, from: x, to: /x}, {name: there, from: y, to: /y}, {name: m, from: z/z, to: /z}]`, "y": ""})
		_, err := build.Build(t.Context(), p.options(s))
		want := []string{`layers[0] (l): from: want a file or folder, got "x"`, `layers[2] (m): from: want a file or folder, got "z/z"`}
		if err == nil || !strings.Contains(err.Error(), want[0]) || !strings.Contains(err.Error(), want[1]) || strings.Contains(err.Error(), "mmdebstrap") {
			t.Errorf("got %v, want %s", err, want)
		}
	})
	t.Run("links are kept and not followed", func(t *testing.T) {
		p := newProject(t, map[string]string{build.SpecFile: "layers: [{name: l, from: x, to: /x, owner: 5}]", "x/a": ""})
		must(os.Symlink(outside, filepath.Join(p.dir, "x/l")))
		p.build(t, s)
		want := [][]string{{"x/ 755 5:5", "x/a 644 5:5 0", "x/l 777 5:5 -> " + outside}}
		if diff := cmp.Diff(want, pull(t, s, "app:1")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("a link inside the folder leads to what is packed", func(t *testing.T) {
		p := newProject(t, map[string]string{build.SpecFile: "layers: [{name: l, from: x, to: /}]", "v2/a": "a"})
		must(os.Symlink("v2", filepath.Join(p.dir, "x")))
		p.build(t, s)
		if diff := cmp.Diff([][]string{{"a 644 0:0 1"}}, pull(t, s, "app:1")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestWrongUse(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	tests := map[string]struct {
		change func(*build.Options)
		want   string
	}{
		"no folder":          {func(o *build.Options) { o.Dir += "/none" }, "want a folder with an image.yaml, a Dockerfile or a requirements.txt: "},
		"no image.yaml":      {func(o *build.Options) { o.Dir += "/app" }, "want a folder with an image.yaml, a Dockerfile or a requirements.txt, found none of them"},
		"name in upper case": {func(o *build.Options) { o.Name = "App:1" }, `image name "App:1": want lower-case NAME or NAME:TAG`},
		"name with digest":   {func(o *build.Options) { o.Name = "a@sha256:" + strings.Repeat("0", 64) }, "want NAME or NAME:TAG"},
		"no name":            {func(o *build.Options) { o.Name = "" }, "want NAME or NAME:TAG"},
		"registry of no URL": {func(o *build.Options) { o.Registry.URL = "localhost:5000" }, "registry: want http://HOST:PORT"},
		"http for https":     {func(o *build.Options) { o.Registry.URL = strings.Replace(s.URL, "http:", "https:", 1) }, "push app:1: the registry does not respond: "},
		"no registry":        {func(o *build.Options) { o.Registry.URL = "http://127.0.0.1:1" }, "push app:1: the registry does not respond: "},
		"not let in": {func(o *build.Options) {
			o.Registry.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusUnauthorized, Status: "401 Unauthorized", Body: http.NoBody, Request: req}, nil
			})
		}, "want 200 from GET /v2/, got 401 Unauthorized"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			opts := p.options(s)
			tt.change(&opts)
			_, err := build.Build(t.Context(), opts)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestDamagedCacheIsRepaired(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	first := p.build(t, s)
	layers, err := filepath.Glob(filepath.Join(p.cache, "layers", "*"))
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers in the cache: got %v, %v, want the compressed one only", layers, err)
	}
	raw, err := os.ReadFile(layers[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 0xff
	if err := os.WriteFile(layers[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	other := newServer(t)
	if got := p.build(t, other); got.Digest != first.Digest {
		t.Errorf("got %s, want %s", got.Digest, first.Digest)
	}
	pull(t, other, "app:1")
	// One that was cut short is seen without a server.
	if err := os.Truncate(layers[0], 10); err != nil {
		t.Fatal(err)
	}
	if got := p.build(t, newServer(t)); got.Digest != first.Digest || got.Layers[1].Cached {
		t.Errorf("got %+v, want it built again", got)
	}
}

func TestCacheForgetsWhatIsUnused(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	p.build(t, s)
	aged := time.Now().Add(-31 * 24 * time.Hour)
	age := func() {
		t.Helper()
		err := filepath.WalkDir(p.cache, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				err = os.Chtimes(path, aged, aged)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(p.cache, "layers", "partial-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	age()
	if again := p.build(t, s); again.Hashed != 0 {
		t.Errorf("hashed %d bytes, want what is used to be kept", again.Hashed)
	}
	p.write(t, map[string]string{"app/lib/one.py": "2"})
	age()
	p.build(t, s)
	layers, err := filepath.Glob(filepath.Join(p.cache, "layers", "*"))
	if err != nil || len(layers) != 1 {
		t.Errorf("layers: got %v, %v, want the new one", layers, err)
	}
	index, err := filepath.Glob(filepath.Join(p.cache, "index", "*"))
	if err != nil || len(index) != 2 {
		t.Errorf("index: got %v, %v, want one for each layer", index, err)
	}
}

func TestBuildsAtOnce(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	var wg sync.WaitGroup
	digests := make([]string, 4)
	for i := range digests {
		wg.Go(func() {
			result, err := build.Build(t.Context(), p.options(s))
			if err != nil {
				t.Error(err)
			}
			digests[i] = result.Digest
		})
	}
	wg.Wait()
	for _, d := range digests {
		if d != digests[0] {
			t.Errorf("got %v", digests)
		}
	}
	pull(t, s, "app:1")
	left, err := filepath.Glob(filepath.Join(p.cache, "*", "partial-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in the cache: %v, %v", left, err)
	}
}

// The server says that it has a layer, and has it no more when the manifest comes.
func TestLayerLostDuringPush(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	first := p.build(t, s)
	ctx := namespaces.WithNamespace(t.Context(), oci.Namespace)
	var once sync.Once
	lose := http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") {
			once.Do(func() {
				if err := s.stores.Content.Delete(ctx, digest.Digest(first.Layers[0].Digest)); err != nil {
					t.Error(err)
				}
			})
		}
	})
	s.before.Store(&lose)
	opts := p.options(s)
	opts.Name = "app:2"
	again, err := build.Build(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Layers[0].Pushed || again.Digest != first.Digest {
		t.Errorf("got %+v, want the lost layer pushed again", again)
	}
	pull(t, s, "app:2")
}

func TestIgnoredFilesAreLeftOut(t *testing.T) {
	s := newServer(t)
	p := newProject(t, map[string]string{
		"image.yaml":    "layers: [{name: code, from: code, to: /code}, {name: key, from: code/.env, to: /key}]\n",
		".dockerignore": "# what no image gets\n**/*.pyc\n.git\ncode/.env\ncode/data\n!code/data/keep\n/code/venv/\n",
		"code/main.py":  "x", "code/lib/main.pyc": "x", "code/lib/x.py": "x", "code/.env": "secret", "code/data/big": "x", "code/data/keep": "x", "code/venv/bin/python": "x",
	})
	p.build(t, s)
	want := [][]string{
		{"code/ 755 0:0", "code/data/keep 644 0:0 1", "code/lib/ 755 0:0", "code/lib/x.py 644 0:0 1", "code/main.py 644 0:0 1"},
		{"key 644 0:0 6"}, // named by image.yaml itself
	}
	if diff := cmp.Diff(want, pull(t, s, "app:1")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	t.Run("and do not make a layer new", func(t *testing.T) {
		p.write(t, map[string]string{"code/lib/main.pyc": "other", "code/venv/lib": "more"})
		if again := p.build(t, s); again.Hashed != 0 || again.Moved != 0 {
			t.Errorf("got %+v", again)
		}
	})
	for what, tt := range map[string]struct{ file, want string }{
		"one without end":          {strings.Repeat("xxxxxxxxx\n", 7000), "want at most 65536 bytes"},
		"more patterns than files": {strings.Repeat("a*b*c*\n", 501), "want at most 500 patterns, got 501"},
		"no pattern":               {"a[\n", "want path patterns"},
		"everything":               {"**\n", "whose files are all in .dockerignore"},
	} {
		t.Run(what, func(t *testing.T) {
			p.write(t, map[string]string{".dockerignore": tt.file})
			if _, err := build.Build(t.Context(), p.options(s)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestFileChangedDuringBuild(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	opts := p.options(s)
	var once sync.Once
	opts.Progress = func(at build.Progress) {
		if at.Stage == build.StageBuild && at.Layer == "weights" {
			once.Do(func() { p.write(t, map[string]string{"weights.bin": strings.Repeat("x", 3<<20)}) })
		}
	}
	if _, err := build.Build(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "weights.bin changed while it was read") {
		t.Errorf("got %v, want that weights.bin changed", err)
	}
	p.build(t, s)
	pull(t, s, "app:1")
}

func TestCanceledBuildLeavesNothing(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	ctx, cancel := context.WithCancel(t.Context())
	opts := p.options(s)
	opts.Progress = func(at build.Progress) {
		if at.Stage == build.StagePush && at.Layer == "weights" {
			cancel()
		}
	}
	if _, err := build.Build(ctx, opts); err == nil {
		t.Error("got no error")
	}
	left, err := filepath.Glob(filepath.Join(p.cache, "*", "partial-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in the cache: %v, %v", left, err)
	}
	if list, err := s.images.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("images: got %v, %v, want none", list, err)
	}
}

func TestTransportAndProgress(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	guard := http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "Bearer t" {
			t.Errorf("%s %s without the token", req.Method, req.URL.Path)
		}
	})
	s.before.Store(&guard)
	opts := p.options(s)
	opts.Registry.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer t")
		return http.DefaultTransport.RoundTrip(req)
	})
	var mu sync.Mutex
	last := make(map[string]build.Progress)
	opts.Progress = func(at build.Progress) {
		mu.Lock()
		defer mu.Unlock()
		last[string(at.Stage)+" "+at.Layer] = at
	}
	if _, err := build.Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"build weights", "build app", "push weights", "push app"} {
		if at := last[what]; at.Done != at.Total || at.Total == 0 {
			t.Errorf("%s: got %+v, want all of it in the end", what, at)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestEpoch(t *testing.T) {
	s := newServer(t)
	p := newProject(t, model())
	one := p.build(t, s)
	opts := p.options(s)
	opts.Epoch = time.Unix(1_700_000_000, 0)
	two, err := build.Build(t.Context(), opts)
	if err != nil || one.Digest == two.Digest || two.Layers[0].Cached {
		t.Errorf("got %+v, %v, want another image", two, err)
	}
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil || config.Created.Unix() != 1_700_000_000 || config.Architecture != runtime.GOARCH {
		t.Errorf("got %+v, %v", config, err)
	}
}

// BenchmarkPush moves a large layer into the content store; it reports the server's and client's memory together.
func BenchmarkPush(b *testing.B) {
	const size = 256 << 20
	p := newProject(b, map[string]string{build.SpecFile: "layers: [{name: w, from: w, to: /w, compression: none}]"})
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	f, err := os.Create(filepath.Join(p.dir, "w"))
	if err != nil {
		b.Fatal(err)
	}
	for range size / len(block) {
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	p.build(b, newServer(b)) // from now on the digest is known
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s := newServer(b)
		b.StartTimer()
		if got := p.build(b, s); got.Hashed != 0 || got.Moved < size {
			b.Fatalf("got %+v", got)
		}
	}
	b.ReportMetric(peakMemory(b), "MiB-peak-RSS")
}

// peakMemory is the most memory that this process has had, in MiB.
func peakMemory(b *testing.B) float64 {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
