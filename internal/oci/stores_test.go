package oci_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"penstock/internal/oci"
	"penstock/internal/oci/ocitest"
)

// server is the registry with containerd's real content store and metadata database, without its daemon.
type server struct {
	*httptest.Server
	stores   oci.Stores
	registry *oci.Registry
	images   *oci.Images
	dir      string
	db       *metadata.DB
}

func newServer(t testing.TB) *server {
	t.Helper()
	stores, db, dir := ocitest.Open(t)
	s := &server{db: db, dir: dir, stores: stores}
	s.images = oci.NewImages(s.stores)
	s.open(t)
	t.Cleanup(func() { s.Close(); s.registry.Close() })
	return s
}

// open starts to serve. When it is called again, the registry behaves like a new process on the same disk.
func (s *server) open(t testing.TB) {
	if s.Server != nil {
		s.Close()
		s.registry.Close()
	}
	s.registry = oci.NewRegistry(s.stores, slog.New(slog.NewTextHandler(t.Output(), nil)))
	s.Server = httptest.NewServer(s.registry)
}

func (s *server) ref(t testing.TB, image string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/" + image)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (s *server) push(t testing.TB, image string, img v1.Image) {
	t.Helper()
	if err := remote.Write(s.ref(t, image), img); err != nil {
		t.Fatalf("push %s: %v", image, err)
	}
}

// collect runs containerd's garbage collector.
func (s *server) collect(t testing.TB) {
	t.Helper()
	if _, err := s.db.GarbageCollect(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// do sends a request and returns the response and its body.
func (s *server) do(t testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(raw)
}

// answer fails the test unless the response has the status and, if not empty, the error code.
func (s *server) answer(t testing.TB, status int, code, method, path, body string, header ...string) *http.Response {
	t.Helper()
	resp, got := s.do(t, method, path, body, header...)
	if resp.StatusCode != status || code != "" && !strings.Contains(got, `"code":"`+code+`"`) {
		t.Errorf("%s %s: got %d %s, want %d %s", method, path, resp.StatusCode, got, status, code)
	}
	return resp
}

// has reports whether the store has a blob.
func (s *server) has(t testing.TB, dgst string) bool {
	t.Helper()
	resp, _ := s.do(t, http.MethodHead, "/v2/any/blobs/"+dgst, "")
	return resp.StatusCode == http.StatusOK
}

func inStore(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, oci.Namespace)
}

// newImage returns an image for arch with one layer for each content.
func newImage(t testing.TB, arch string, layers ...string) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	config := &v1.ConfigFile{Architecture: arch, OS: "linux", RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{
		Entrypoint: []string{"/app"}, Cmd: []string{"serve"}, Env: []string{"A=1"}, User: "65532", WorkingDir: "/srv",
		ExposedPorts: map[string]struct{}{"8080/tcp": {}, "53/udp": {}, "90": {}},
	}}
	img, err := mutate.ConfigFile(img, config)
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		img, err = mutate.AppendLayers(img, static.NewLayer(bytes.Clone([]byte(layer)), types.OCIUncompressedLayer))
		if err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func digestOf(t testing.TB, of interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := of.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}
