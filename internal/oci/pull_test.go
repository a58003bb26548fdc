package oci_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"penstock/internal/oci"
	"penstock/internal/oci/remote"
)

var otherArch = map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]

// upstream is another registry: our own implementation behind a handler that a test can change.
type upstream struct {
	*server
	front *httptest.Server
	host  string
	bytes atomic.Int64 // bytes of blobs that were sent

	mu   sync.Mutex
	seen []*http.Request
}

func newUpstream(t testing.TB, before func(w http.ResponseWriter, r *http.Request, next http.Handler)) *upstream {
	u := &upstream{server: newServer(t)}
	u.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.seen = append(u.seen, r.Clone(context.Background()))
		u.mu.Unlock()
		if strings.Contains(r.URL.Path, "/blobs/") {
			w = &counting{ResponseWriter: w, n: &u.bytes}
		}
		if before == nil {
			u.registry.ServeHTTP(w, r)
			return
		}
		before(w, r, u.registry)
	}))
	t.Cleanup(u.front.Close)
	u.host = strings.TrimPrefix(u.front.URL, "http://")
	return u
}

func (u *upstream) requests() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n.Add(int64(n))
	return n, err
}

func newPuller(t testing.TB, s *server, cfg remote.Config) *oci.Puller {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	client := remote.New(cfg)
	t.Cleanup(client.Close)
	return oci.NewPuller(s.stores, client, nil, cfg.Log)
}

func TestPullMovesOnlyWhatIsMissing(t *testing.T) {
	from, to := newUpstream(t, nil), newServer(t)
	puller := newPuller(t, to, remote.Config{})
	weights := strings.Repeat("weights ", 100_000)
	one := newImage(t, runtime.GOARCH, weights, "code 1")
	from.push(t, "team/model:1", one)
	name := from.host + "/team/model:1"

	if d, err := puller.Resolve(t.Context(), name, remote.Login{}); err != nil || d.String() != digestOf(t, one) {
		t.Fatalf("resolve: got %s, %v, want %s", d, err, digestOf(t, one))
	}
	image, moved, err := puller.Pull(t.Context(), name, remote.Login{})
	if err != nil || image.Digest.String() != digestOf(t, one) || image.Name != name {
		t.Fatalf("pull: got %+v, %v", image, err)
	}
	if moved.Done+moved.Here != moved.Total || moved.Whole != 3 || moved.Wire != moved.Done {
		t.Errorf("first pull: got %+v", moved)
	}
	to.collect(t)

	two := newImage(t, runtime.GOARCH, weights, "code 2")
	from.push(t, "team/model:2", two)
	from.bytes.Store(0)
	image, moved, err = puller.Pull(t.Context(), from.host+"/team/model:2", remote.Login{})
	if err != nil || image.Digest.String() != digestOf(t, two) {
		t.Fatalf("second pull: got %+v, %v", image, err)
	}
	raw, err := two.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(len("code 2") + len(raw)); from.bytes.Load() != want || moved.Here < int64(len(weights)) {
		t.Errorf("second pull: %d bytes of blobs came and %+v, want %d", from.bytes.Load(), moved, want)
	}
	to.collect(t)
	leases, err := to.stores.Leases.List(inStore(t.Context()))
	if err != nil || len(leases) != 0 {
		t.Errorf("leases after all pulls: got %v, %v, want none", leases, err)
	}
	// Once resolved, an image does not need its registry.
	from.front.Close()
	again := name + "@" + digestOf(t, one)
	if image, _, err := puller.Pull(t.Context(), again, remote.Login{}); err != nil || image.Digest.String() != digestOf(t, one) {
		t.Errorf("by digest without the registry: got %+v, %v", image, err)
	}
}

func TestPullTakesThisMachinesPartOfAnIndex(t *testing.T) {
	from, to := newUpstream(t, nil), newServer(t)
	mine, other := newImage(t, runtime.GOARCH, "mine"), newImage(t, otherArch, "other")
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: otherArch}}},
		mutate.IndexAddendum{Add: mine, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
	if err := ggcr.WriteIndex(from.ref(t, "multi:1"), index); err != nil {
		t.Fatal(err)
	}
	puller := newPuller(t, to, remote.Config{})
	name := from.host + "/multi:1"
	image, _, err := puller.Pull(t.Context(), name, remote.Login{})
	if err != nil || image.Digest.String() != digestOf(t, index) {
		t.Fatalf("got %+v, %v, want the index", image, err)
	}
	to.collect(t)
	if _, err := to.images.Resolve(t.Context(), name+"@"+digestOf(t, index)); err != nil {
		t.Error(err)
	}
	if to.has(t, digest.FromString("other").String()) || !to.has(t, digest.FromString("mine").String()) {
		t.Error("want the layers of this machine's image only")
	}
	list, err := to.images.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Problem != "" {
		t.Errorf("list: got %+v, %v", list, err)
	}
	if _, err := puller.Resolve(t.Context(), from.host+"/multi@"+digestOf(t, other), remote.Login{}); !errors.Is(err, oci.ErrPlatform) {
		t.Errorf("the other machine's: got %v, want ErrPlatform", err)
	}
	// A backup includes the image.
	if err := to.images.Export(t.Context(), func(_ string, _ int64, content io.Reader) error {
		_, err := io.Copy(io.Discard, content)
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestNamesOfThisServerStayHere(t *testing.T) {
	from, to := newUpstream(t, nil), newServer(t)
	host, err := url.Parse(from.front.URL)
	if err != nil {
		t.Fatal(err)
	}
	pushed := newImage(t, runtime.GOARCH, "pushed here")
	from.push(t, "app:1", newImage(t, runtime.GOARCH, "the registry's"))
	to.push(t, "docker.io/library/app:1", pushed)
	puller := newPuller(t, to, remote.Config{Proxy: func(*http.Request) (*url.URL, error) { return host, nil }})
	if _, err := puller.Resolve(t.Context(), "app:1", remote.Login{}); !errors.Is(err, oci.ErrNotFound) || !strings.Contains(err.Error(), "docker.io/library/app:1") {
		t.Errorf("a short name: got %v, want ErrNotFound that names Docker Hub's", err)
	}
	if d, err := puller.Resolve(t.Context(), "docker.io/library/app:1", remote.Login{}); err != nil || d.String() != digestOf(t, pushed) {
		t.Errorf("a name that was pushed here: got %s, %v, want %s", d, err, digestOf(t, pushed))
	}
	if n := len(from.requests()); n != 0 {
		t.Errorf("%d requests left the machine, want none", n)
	}
}

// cut ends the connection after a number of bytes of a body.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(b []byte) (int, error) {
	if len(b) > c.left {
		n, _ := c.ResponseWriter.Write(b[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		c.left -= n
		panic(http.ErrAbortHandler)
	}
	c.left -= len(b)
	return c.ResponseWriter.Write(b)
}

func (c *counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func TestPullGoesOnWhereItWasCutOff(t *testing.T) {
	weights := string(randomBytes(1 << 20))
	for what, test := range map[string]struct {
		ranges bool
		want   int64 // maximum number of bytes sent
	}{
		"with ranges":               {true, 1<<20 + 1<<16},
		"a registry without ranges": {false, 2<<20 + 1<<16},
	} {
		t.Run(what, func(t *testing.T) {
			var cuts atomic.Int32
			layer := digest.FromString(weights).String()
			from := newUpstream(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if !test.ranges {
					r.Header.Del("Range")
				}
				if strings.HasSuffix(r.URL.Path, layer) && cuts.Add(1) == 1 {
					w = &cut{w, 600_000}
				}
				next.ServeHTTP(w, r)
			})
			to := newServer(t)
			from.push(t, "m:1", newImage(t, runtime.GOARCH, weights))
			image, moved, err := newPuller(t, to, remote.Config{}).Pull(t.Context(), from.host+"/m:1", remote.Login{})
			if err != nil || image.Size == 0 || cuts.Load() < 2 {
				t.Fatalf("got %+v, %v after %d requests", image, err, cuts.Load())
			}
			if got := from.bytes.Load(); got > test.want || moved.Done > 1<<20+1<<16 {
				t.Errorf("%d bytes came and %+v, want at most %d", got, moved, test.want)
			}
		})
	}
}

func TestPullGoesOnAfterARestart(t *testing.T) {
	weights := string(randomBytes(1 << 20))
	layer := digest.FromString(weights).String()
	broken := true
	from := newUpstream(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if broken && strings.HasSuffix(r.URL.Path, layer) {
			if r.Header.Get("Range") != "" {
				http.Error(w, "no", http.StatusTeapot) // stops the pull
				return
			}
			w = &cut{w, 600_000}
		}
		next.ServeHTTP(w, r)
	})
	to := newServer(t)
	from.push(t, "m:1", newImage(t, runtime.GOARCH, weights))
	if _, _, err := newPuller(t, to, remote.Config{}).Pull(t.Context(), from.host+"/m:1", remote.Login{}); err == nil {
		t.Fatal("the first pull succeeded")
	}
	to.collect(t)
	broken = false
	from.bytes.Store(0)
	_, moved, err := newPuller(t, to, remote.Config{}).Pull(t.Context(), from.host+"/m:1", remote.Login{})
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(1<<20 - 600_000); moved.Done < want || moved.Done > want+1<<16 || from.bytes.Load() != moved.Done {
		t.Errorf("the second pull: %d bytes came and %+v, want %d", from.bytes.Load(), moved, want)
	}
}

func TestRegistriesThatLie(t *testing.T) {
	good := newImage(t, runtime.GOARCH, "layer")
	layer := digest.FromString("layer").String()
	raw, err := good.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	d := digestOf(t, good)
	manifest := func(body []byte, mediaType string) func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/manifests/") || r.Method != http.MethodGet {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", mediaType)
			_, _ = w.Write(body)
		}
	}
	blob := func(body string) func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.HasSuffix(r.URL.Path, layer) || r.Method != http.MethodGet {
				next.ServeHTTP(w, r)
				return
			}
			_, _ = io.WriteString(w, body)
		}
	}
	const image, index = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	of := func(mediaType, digest string, size int) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, index, mediaType, digest, size)
	}
	self := sha256.Sum256([]byte("x"))
	tests := map[string]struct {
		before func(http.ResponseWriter, *http.Request, http.Handler)
		tag    string
		says   string
	}{
		"a blob of another digest":        {blob("layeR"), ":1", "another digest"},
		"a blob that is longer":           {blob(strings.Repeat("layer", 1000)), ":1", "the registry sends more"},
		"a blob that is shorter":          {blob("lay"), ":1", "the registry has 3"},
		"a manifest of another digest":    {manifest(append(bytes.Clone(raw), ' '), image), "@" + d, "want manifest " + d},
		"a manifest that is too large":    {manifest(make([]byte, 5<<20), image), ":1", "at most 4194304 bytes"},
		"a manifest that is no JSON":      {manifest([]byte("<html>"), image), ":1", "want a JSON manifest"},
		"a list of lists":                 {manifest(of(index, "sha256:"+hex.EncodeToString(self[:]), 9), index), ":1", "index within an index"},
		"a list that leads to itself":     {manifest(of(image, "sha256:"+hex.EncodeToString(self[:]), 9), index), ":1", "want manifest sha256:" + hex.EncodeToString(self[:])},
		"a config that is too large":      {manifest(bytes.Replace(raw, fmt.Appendf(nil, `"size":%d`, configSize(t, good)), []byte(`"size":5000000`), 1), image), ":1", "config: want at most"},
		"sizes that overflow":             {manifest(bytes.Replace(raw, []byte(`"size":5`), []byte(`"size":9223372036854775807`), 1), image), ":1", "want an image of at most"},
		"a media type that is none of it": {manifest(raw, "text/html"), ":1", `want "text/html" as in Content-Type`},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			from, to := newUpstream(t, tt.before), newServer(t)
			from.push(t, "m:1", good)
			_, _, err := newPuller(t, to, remote.Config{}).Pull(t.Context(), from.host+"/m"+tt.tag, remote.Login{})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error that says %q", err, tt.says)
			}
			to.collect(t)
			if to.has(t, layer) {
				t.Error("the blob is in the store")
			}
			if list, err := to.images.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("list: got %+v, %v, want none", list, err)
			}
		})
	}
}

func configSize(t testing.TB, img v1.Image) int {
	t.Helper()
	raw, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return len(raw)
}
