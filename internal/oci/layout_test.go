package oci_test

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// One store exports and another imports the same images with the same names, and garbage collection keeps them.
func TestLayoutRoundTrip(t *testing.T) {
	from, to := newServer(t), newServer(t)
	one := newImage(t, runtime.GOARCH, "weights", "program 1")
	two := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: newImage(t, runtime.GOARCH, "weights", "program 2")})
	from.push(t, "team/model:1", one)
	if err := remote.WriteIndex(from.ref(t, "team/model:2"), two); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := 0
	add := func(name string, size int64, content io.Reader) error {
		files++
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		b, err := io.ReadAll(content)
		if err != nil || int64(len(b)) != size {
			t.Errorf("%s: %d bytes and %v, want %d", name, len(b), err, size)
		}
		return os.WriteFile(path, b, 0o600)
	}
	if err := from.images.Export(t.Context(), add); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time the store has everything
		if n, err := to.registry.Import(t.Context(), dir); err != nil || n != 2 {
			t.Fatalf("imported %d images, %v; want 2", n, err)
		}
	}
	to.collect(t)
	for name, want := range map[string]string{"team/model:1": digestOf(t, one), "team/model:2": digestOf(t, two)} {
		got, err := to.images.Resolve(t.Context(), name)
		if err != nil || got.Digest.String() != want {
			t.Errorf("%s: got %s, %v; want %s", name, got.Digest, err, want)
		}
	}

	// The layout is incomplete.
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil || len(blobs) != files-2 {
		t.Fatalf("%d blobs of %d files, %v", len(blobs), files, err)
	}
	for _, blob := range blobs {
		content, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blob, append(content, 'x'), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := newServer(t).registry.Import(t.Context(), dir); err == nil {
			t.Errorf("imported %d images with a changed blob %s", n, filepath.Base(blob))
		}
		if err := os.Remove(blob); err != nil {
			t.Fatal(err)
		}
		if _, err := newServer(t).registry.Import(t.Context(), dir); err == nil || !strings.Contains(err.Error(), filepath.Base(blob)) {
			t.Errorf("a missing blob: %v, want an error that names %s", err, filepath.Base(blob))
		}
		if err := os.WriteFile(blob, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
