package containerd

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Pages that are in the page cache are not read again, missing pages are read, and a link in a layer is not followed.
func TestOnlyWhatIsMissingIsRead(t *testing.T) {
	below, above := t.TempDir(), t.TempDir()
	const size = 9<<20 + 5
	path := filepath.Join(below, "model.gguf")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, size), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	layers := []string{above, below}
	if n, err := readThrough(t.Context(), layers, "/model.gguf"); err != nil || n < size/2 { // the kernel reads ahead of us
		t.Errorf("with an empty cache: read %d of %d, %v", n, size, err)
	}
	if n, err := readThrough(t.Context(), layers, "/model.gguf"); err != nil || n != 0 {
		t.Errorf("with a full cache: read %d, %v, want 0", n, err)
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(above, "model.gguf")); err != nil {
		t.Fatal(err)
	}
	if n, err := readThrough(t.Context(), layers, "/model.gguf"); err == nil || n != 0 {
		t.Errorf("through a link: read %d, %v, want an error", n, err)
	}
	if n, err := readThrough(t.Context(), layers, "/../../etc/shadow"); err == nil || n != 0 {
		t.Errorf("out of the layer: read %d, %v, want an error", n, err)
	}
}
