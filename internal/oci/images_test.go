package oci_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"penstock/internal/oci"
)

func TestResolve(t *testing.T) {
	s := newServer(t)
	img := newImage(t, runtime.GOARCH, "layer")
	s.push(t, "team/app:1", img)
	s.push(t, "plain:latest", img)
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	s.push(t, "foreign:1", newImage(t, other, "layer"))

	got, err := s.images.Resolve(t.Context(), "team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	want := oci.Config{
		Entrypoint: []string{"/app"}, Cmd: []string{"serve"}, Env: []string{"A=1"}, User: "65532", WorkDir: "/srv", Ports: []int{90, 8080},
	}
	if diff := cmp.Diff(want, got.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got.Digest.String() != digestOf(t, img) || got.Name != "team/app:1" || got.Record.Name != "local/team/app:1" || got.Size == 0 {
		t.Errorf("got %+v", got)
	}
	for _, name := range []string{"plain", "plain:latest", "plain@" + digestOf(t, img), "team/app:9@" + digestOf(t, img)} {
		if got, err := s.images.Resolve(t.Context(), name); err != nil || got.Digest.String() != digestOf(t, img) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}

	fails := map[string]struct {
		is   error
		says string
	}{
		"none":                      {oci.ErrNotFound, `image "none:latest": not in this server's store; build it with "penstock build -t none:latest DIR", or name its registry, as docker.io/library/none:latest does Docker Hub`},
		"team/app:2":                {oci.ErrNotFound, `which has team/app with tag 1`},
		"docker.io/library/nginx:1": {oci.ErrNotFound, `it has not been pulled`},
		"other@" + digestOf(t, img): {oci.ErrNotFound, `not in this server's store`},
		"foreign:1":                 {oci.ErrPlatform, `image "foreign:1": want an image for linux/` + runtime.GOARCH + `, got one for linux/` + other},
		"Bad":                       {nil, `want lower case, "bad", got "Bad"`},
	}
	for name, tt := range fails {
		_, err := s.images.Resolve(t.Context(), name)
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %v saying %s", name, err, tt.is, tt.says)
		}
	}

	// A blob is lost although its record exists. The error names it, and a push repairs the image.
	if err := s.stores.Content.Delete(inStore(t.Context()), digest.FromString("layer")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.images.Resolve(t.Context(), "plain"); !errors.Is(err, oci.ErrNotFound) || !strings.Contains(err.Error(), "push it again") {
		t.Errorf("damaged: got %v", err)
	}
}

func TestListShowsWhatIsShared(t *testing.T) {
	s := newServer(t)
	s.push(t, "b:1", newImage(t, runtime.GOARCH, "weights", "code b"))
	s.push(t, "a:1", newImage(t, runtime.GOARCH, "weights", "code a2"))
	list, err := s.images.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Name != "a:1" || list[1].Name != "b:1" {
		t.Fatalf("got %+v", list)
	}
	for _, image := range list {
		if image.Problem != "" || image.Created.IsZero() || image.Shared != int64(len("weights")) || image.Shared+image.Unique != image.Size {
			t.Errorf("got %+v", image)
		}
		if l := image.Layers; len(l) != 2 || l[0].SharedWith != 1 || l[1].SharedWith != 0 || l[0].Size != int64(len("weights")) {
			t.Errorf("layers of %s: got %+v", image.Name, l)
		}
	}
	if err := s.images.Delete(t.Context(), "a:1"); err != nil {
		t.Fatal(err)
	}
	if err := s.images.Delete(t.Context(), "a:1"); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("second delete: got %v, want ErrNotFound", err)
	}
	if list, err = s.images.List(t.Context()); err != nil || len(list) != 1 || list[0].Shared != 0 {
		t.Errorf("after delete: got %+v, %v", list, err)
	}
	s.push(t, "b:2", newImage(t, runtime.GOARCH, "weights", "code b"))
	if list, err = s.images.List(t.Context()); err != nil || len(list) != 2 || list[0].Unique != 0 {
		t.Errorf("two tags of one manifest: got %+v, %v, want nothing unique", list, err)
	}
}

func TestParseReference(t *testing.T) {
	d := "sha256:" + strings.Repeat("ab", 32)
	good := map[string]string{
		"langdetect":                  "langdetect:latest",
		"langdetect:1":                "langdetect:1",
		"team/langdetect@" + d:        "team/langdetect@" + d,
		"x:1@" + d:                    "x:1@" + d,
		"my.app:1":                    "my.app:1",
		"docker.io/library/nginx:1":   "docker.io/library/nginx:1",
		"mcr.microsoft.com/x/y":       "mcr.microsoft.com/x/y:latest",
		"localhost:5000/x":            "localhost:5000/x:latest",
		"localhost/x:A_b.c-d":         "localhost/x:A_b.c-d",
		"[::1]:5000/x":                "[::1]:5000/x:latest",
		"Registry.Example.COM/a__b/c": "Registry.Example.COM/a__b/c:latest",
	}
	for in, want := range good {
		if got, err := oci.ParseReference(in); err != nil || got.String() != want {
			t.Errorf("%q: got %s, %v, want %s", in, got, err, want)
		}
	}
	bad := map[string]string{
		"":                                 "it is empty",
		"https://x.io/a":                   `leave out "https://"`,
		"Lang:1":                           `want lower case, "lang"`,
		"a b":                              `got "a b"`,
		"a:":                               "tag: want",
		"a:-x":                             "tag: want",
		"a:" + strings.Repeat("x", 129):    "tag: want",
		"a@sha256:123":                     "digest: want sha256:",
		"a@md5:" + strings.Repeat("0", 32): "digest: want sha256:",
		"../a":                             "registry host: want",
		"a//b":                             "name: want",
		"-a":                               "name: want",
		"a_-b":                             "name: want",
		"ex_ample.com/a":                   "registry host: want",
		strings.Repeat("a", 300):           "at most 255",
	}
	for in, want := range bad {
		if got, err := oci.ParseReference(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want %s", in, got, err, want)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, seed := range []string{"a", "a:1", "a.b/c@sha256:" + strings.Repeat("0", 64), "localhost:5000/x:y", "[::1]/a", "A/b", "a/../b", "local/a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := oci.ParseReference(s)
		if err != nil {
			return
		}
		// A name as it is printed means the same when it is parsed again.
		again, err := oci.ParseReference(ref.String())
		if err != nil || again != ref {
			t.Errorf("%q: shown as %q, read back as %+v, %v, want %+v", s, ref, again, err, ref)
		}
		if strings.Contains(ref.Repository, "..") || strings.HasPrefix(ref.Repository, "/") {
			t.Errorf("%q: path in repository %q", s, ref.Repository)
		}
	})
}
