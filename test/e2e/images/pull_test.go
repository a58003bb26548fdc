package images_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"penstock/test/penstocktest"
)

const pullPassword = "pull-Eish8aeYoh7o"

// privateRegistry is somebody else's, which wants a login and counts the bytes of blobs that it sends.
func privateRegistry(t *testing.T) (host string, sent *atomic.Int64) {
	t.Helper()
	sent = new(atomic.Int64)
	inner := registry.New(registry.Logger(log.New(t.Output(), "", 0)))
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ann" || password != pullPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			w = countingWriter{w, sent}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return strings.TrimPrefix(front.URL, "http://"), sent
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c countingWriter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.ResponseWriter.Write(b)
}

// An app names an image of a private registry: its login decides, at once and in the registry's words; the image is
// pulled with its steps told, an update moves only the layer that changed, and the password is nowhere to be read.
func TestAppsPullFromAPrivateRegistry(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	// This server is a registry as well: a name that an image was pushed under means that image, without a login.
	for _, own := range []string{"127.0.0.1", "localhost"} {
		endpoint, err := url.Parse(m.API(t).Endpoint)
		if err != nil {
			t.Fatal(err)
		}
		app := "own-" + strings.ReplaceAll(own, ".", "-")
		m.Apply(t, strings.Replace(penstocktest.Hello(app, 1), "hello:1", `"`+net.JoinHostPort(own, endpoint.Port())+`/hello:1"`, 1))
		if status, answer := m.Ask(t, http.MethodGet, app, "/", ""); status != http.StatusOK || answer != "hello, world\n" {
			t.Errorf("by the name %s: got %d %q", own, status, answer)
		}
	}
	host, sent := privateRegistry(t)
	ann := remote.WithAuth(&authn.Basic{Username: "ann", Password: pullPassword})
	ref := func(tag string) name.Reference {
		r, err := name.ParseReference(host + "/team/hello:" + tag)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	// The example's program, above a large layer that does not change.
	program, err := os.ReadFile("../../../examples/hello/bin/hello")
	if err != nil {
		t.Fatal(err)
	}
	weights := penstocktest.Layer(t, penstocktest.LayerFile{Header: tar.Header{Name: "weights.bin", Mode: 0o644}, Body: bytes.Repeat([]byte("0123456789abcdef"), 1<<18)})
	code := penstocktest.Layer(t, penstocktest.LayerFile{Header: tar.Header{Name: "hello", Mode: 0o755}, Body: program})
	push := func(tag, note string) {
		img, err := mutate.AppendLayers(empty.Image, weights, code, penstocktest.Layer(t, penstocktest.LayerFile{Header: tar.Header{Name: "note.txt", Mode: 0o644}, Body: []byte(note)}))
		if err == nil {
			img, err = mutate.ConfigFile(img, withEntrypoint(t, img, "/hello"))
		}
		if err == nil {
			err = remote.Write(ref(tag), img, ann)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	push("1", "one")
	manifest := func(tag, password string) string {
		return fmt.Sprintf(`
name: pulled
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
    secrets: [{name: registry, value: %q}]
    registries: [{server: %q, username: ann, passwordSecretRef: registry}]
  template:
    containers: [{name: hello, image: "%s/team/hello:%s", resources: {cpu: 0.25, memory: 0.5Gi}}]
    scale: {minReplicas: 1, maxReplicas: 1}
`, password, host, host, tag)
	}
	for what, tt := range map[string]struct{ tag, password, says string }{
		"a wrong password": {"1", "wrong-one", "UNAUTHORIZED: authentication required"},
		"an unknown tag":   {"9", pullPassword, "MANIFEST_UNKNOWN"},
	} {
		_, bad, code := m.Run(t, "up", "-f", m.File(t, manifest(tt.tag, tt.password)))
		if code != 1 || !strings.Contains(bad, "template.containers.hello.image") || !strings.Contains(bad, tt.says) {
			t.Errorf("%s: exit %d, %s, want %s", what, code, bad, tt.says)
		}
	}
	m.Apply(t, manifest("1", pullPassword))
	if status, answer := m.Ask(t, http.MethodGet, "pulled", "/", ""); status != http.StatusOK {
		t.Errorf("the app answers %d %s", status, answer)
	}
	events := m.Must(t, "app", "events", "pulled")
	if !strings.Contains(events, "PullingImage") || !strings.Contains(events, "bytes of it came from the registry") {
		t.Errorf("events: %s", events)
	}
	before := sent.Load()
	if before < 1<<20 {
		t.Errorf("%d bytes came for the first image, want all of it", before)
	}
	push("2", "two")
	sent.Store(0)
	m.Apply(t, manifest("2", pullPassword))
	if moved := sent.Load(); moved == 0 || moved > 10_000 {
		t.Errorf("%d bytes came for the changed layer", moved)
	}
	for what, text := range map[string]string{
		"the app": m.Must(t, "app", "show", "pulled", "-o", "json"), "its events": m.Must(t, "app", "events", "pulled"),
		"the images": m.Must(t, "image", "list", "-o", "json"), "the log": serverLog(t, m),
	} {
		if strings.Contains(text, pullPassword) {
			t.Errorf("%s tells the password", what)
		}
	}
	// The inactive revision keeps its image; nothing else does once the app is gone.
	if out := m.Must(t, "image", "prune"); !strings.Contains(out, "freed 0 B") {
		t.Errorf("prune with the app there: %s", out)
	}
	// A disk that lies is found out, and mended from the registry with the app's login.
	digest, err := weights.Digest()
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(m.Data, "containerd/containerd/*content*/blobs/sha256", digest.Hex))
	if err != nil || len(blobs) != 1 {
		t.Fatalf("the layer's file: %v, %v", blobs, err)
	}
	if err := os.WriteFile(blobs[0], []byte("lies"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, code := m.Run(t, "image", "verify"); code != 1 || !strings.Contains(out, "1 damaged") {
		t.Errorf("verify: exit %d, %s", code, out)
	}
	if out := m.Must(t, "image", "verify", "--repair"); !strings.Contains(out, "repaired ") {
		t.Errorf("repair: %s", out)
	}
	if out := m.Must(t, "image", "verify"); !strings.Contains(out, " 0 damaged") {
		t.Errorf("verify after the repair: %s", out)
	}
	tarFile := filepath.Join(t.TempDir(), "hello.tar")
	m.Must(t, "image", "save", "-f", tarFile, "hello:1")
	if out := m.Must(t, "image", "load", "-f", tarFile, "-t", "again:1"); out != "again:1\n" {
		t.Errorf("load: %s", out)
	}
	m.Must(t, "app", "delete", "pulled")
}

func withEntrypoint(t *testing.T, img v1.Image, program string) *v1.ConfigFile {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Entrypoint = "linux", runtime.GOARCH, []string{program}
	return config
}

func serverLog(t *testing.T, m *penstocktest.Machine) string {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(m.Data, "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}
