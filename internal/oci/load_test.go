package oci_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"penstock/internal/oci"
)

func saved(t testing.TB, s *server, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.images.Save(t.Context(), &b, names...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// repacked is the archive with each file changed by change, or left out if change returns nil.
func repacked(t testing.TB, archive []byte, change func(name string, content []byte) []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	in, out := tar.NewReader(bytes.NewReader(archive)), tar.NewWriter(&b)
	for {
		h, err := in.Next()
		if err != nil {
			break
		}
		var content bytes.Buffer
		if _, err := content.ReadFrom(in); err != nil {
			t.Fatal(err)
		}
		changed := change(h.Name, content.Bytes())
		if changed == nil {
			continue
		}
		h.Size = int64(len(changed))
		if err := out.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(changed); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSaveAndLoad(t *testing.T) {
	from, to := newServer(t), newServer(t)
	one, two := newImage(t, runtime.GOARCH, "weights", "code 1"), newImage(t, runtime.GOARCH, "weights", "code 2")
	from.push(t, "team/app:1", one)
	from.push(t, "team/app:2", two)

	archive := saved(t, from, "team/app:1")
	for range 2 { // the second time the store has everything
		if names, err := to.registry.Load(t.Context(), bytes.NewReader(archive), ""); err != nil || !slices.Equal(names, []string{"team/app:1"}) {
			t.Fatalf("loaded %v, %v", names, err)
		}
	}
	if names, err := to.registry.Load(t.Context(), bytes.NewReader(archive), "other:9"); err != nil || !slices.Equal(names, []string{"other:9"}) {
		t.Fatalf("loaded as another %v, %v", names, err)
	}
	to.collect(t)
	for _, name := range []string{"team/app:1", "other:9"} {
		if got, err := to.images.Resolve(t.Context(), name); err != nil || got.Digest.String() != digestOf(t, one) {
			t.Errorf("%s: got %s, %v", name, got.Digest, err)
		}
	}
	if to.has(t, digest.FromString("code 2").String()) {
		t.Error("the other image came along")
	}
	if err := from.images.Save(t.Context(), new(bytes.Buffer), "none:1"); err == nil {
		t.Error("an image that is not there was saved")
	}
	all := saved(t, from)
	if _, err := to.registry.Load(t.Context(), bytes.NewReader(all), "one:1"); err == nil || !strings.Contains(err.Error(), "2 images") {
		t.Errorf("two images under one name: %v", err)
	}
	if names, err := to.registry.Load(t.Context(), bytes.NewReader(all), ""); err != nil || len(names) != 2 {
		t.Errorf("all: %v, %v", names, err)
	}

	layer := digest.FromString("code 1").Encoded()
	bad := map[string]struct {
		archive []byte
		says    string
	}{
		"no archive":          {[]byte("layout"), "want a tar archive"},
		"one that ends early": {archive[:len(archive)/2], "unexpected EOF"},
		"an archive of something": {repacked(t, archive, func(name string, b []byte) []byte {
			if name == "index.json" {
				return nil
			}
			return b
		}), "want an OCI image layout"},
		"a layer that is missing": {repacked(t, archive, func(name string, b []byte) []byte {
			if strings.HasSuffix(name, layer) {
				return nil
			}
			return b
		}), layer},
		"a layer that is another": {repacked(t, archive, func(name string, b []byte) []byte {
			if strings.HasSuffix(name, layer) {
				return []byte("code X")
			}
			return b
		}), layer},
		"an index that is none": {repacked(t, archive, func(name string, b []byte) []byte {
			if name == "index.json" {
				return []byte("[")
			}
			return b
		}), "index.json"},
		"a name that is none": {repacked(t, archive, func(name string, b []byte) []byte {
			return bytes.ReplaceAll(b, []byte("team/app:1"), []byte("../../:x"))
		}), "image name"},
	}
	for what, tt := range bad {
		fresh := newServer(t)
		names, err := fresh.registry.Load(t.Context(), bytes.NewReader(tt.archive), "")
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, %v, want an error that says %q", what, names, err, tt.says)
		}
		if got := fresh.names(t); got != nil {
			t.Errorf("%s: the list has %v", what, got)
		}
		fresh.collect(t)
		if leases, err := fresh.stores.Leases.List(inStore(t.Context())); err != nil || len(leases) != 0 {
			t.Errorf("%s: leases left: %v, %v", what, leases, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	s := newServer(f)
	s.push(f, "app:1", newImage(f, runtime.GOARCH, "layer"))
	f.Add(saved(f, s))
	f.Fuzz(func(t *testing.T, archive []byte) {
		if names, err := s.registry.Load(t.Context(), bytes.NewReader(archive), ""); err == nil && len(names) > 0 {
			for _, name := range names {
				if _, err := oci.ParseReference(name); err != nil {
					t.Errorf("it took the name %q: %v", name, err)
				}
			}
		}
	})
}

func TestVerify(t *testing.T) {
	s := newServer(t)
	img := newImage(t, runtime.GOARCH, "weights", "code", "tail")
	s.push(t, "app:1", img)
	s.push(t, "app:2", img)
	found, err := s.images.Verify(t.Context())
	if err != nil || found.Blobs != 5 || len(found.Damage) != 0 || found.Bytes == 0 {
		t.Fatalf("a whole store: got %+v, %v", found, err)
	}
	path := func(content string) string {
		return filepath.Join(s.dir, "content", "blobs", "sha256", digest.FromString(content).Encoded())
	}
	// The disk has lost one blob and damaged another.
	if err := os.Chmod(path("code"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path("code"), []byte("c\x00de"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path("tail")); err != nil {
		t.Fatal(err)
	}
	found, err = s.images.Verify(t.Context())
	if err != nil || len(found.Damage) != 2 {
		t.Fatalf("got %+v, %v, want two damaged", found, err)
	}
	for _, d := range found.Damage {
		if !slices.Equal(d.Images, []string{"app:1", "app:2"}) || d.Fault == "" {
			t.Errorf("got %+v", d)
		}
	}
	if err := s.images.Drop(t.Context(), found.Damage); err != nil {
		t.Fatal(err)
	}
	s.collect(t)
	if !s.has(t, digest.FromString("weights").String()) {
		t.Error("what was not damaged went")
	}
	// The same push sends the dropped blobs again, which repairs both names.
	s.push(t, "app:1", img)
	if leases, err := s.stores.Leases.List(inStore(t.Context())); err != nil || len(leases) != 0 {
		t.Errorf("leases left: %v, %v", leases, err)
	}
	if found, err = s.images.Verify(t.Context()); err != nil || len(found.Damage) != 0 {
		t.Errorf("after a push: got %+v, %v", found, err)
	}
}
