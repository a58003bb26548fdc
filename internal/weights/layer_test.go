package weights_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/weights"
)

type entry struct {
	name string
	raw  []byte
}

func layer(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.raw)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestALayerIsReadInPlaceOrAsAStream(t *testing.T) {
	raw := layer(t,
		entry{"./models/a.gguf", gguf(3, tensor{"t", []uint64{256}, 12})},
		entry{"models/checkpoint.pt", file(t, "checkpoint.pt")},
		entry{"../../etc/matmul.onnx", file(t, "matmul.onnx")},
		entry{"app/main.py", []byte("print('hello')")},
		entry{"models/.wh.old.gguf", nil},
		entry{"old/.wh..wh..opq", nil},
	)
	at, err := weights.ScanAt(t.Context(), bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range at.Files {
		if f.Problem != "" || f.Bytes() == 0 {
			t.Errorf("%+v", f)
		}
		paths = append(paths, f.Path)
	}
	if diff := cmp.Diff([]string{"/models/a.gguf", "/models/checkpoint.pt", "/etc/matmul.onnx"}, paths); diff != "" {
		t.Errorf("want - got +:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/models/old.gguf", "/old/"}, at.Hidden); diff != "" {
		t.Errorf("hidden, want - got +:\n%s", diff)
	}
	streamed, err := weights.Scan(t.Context(), io.MultiReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(at, streamed); diff != "" {
		t.Errorf("a stream is read otherwise, at - stream +:\n%s", diff)
	}
}

func TestALayerThatIsNone(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, 4096)
	if _, err := weights.ScanAt(t.Context(), bytes.NewReader(raw), int64(len(raw))); !errors.Is(err, tar.ErrHeader) {
		t.Errorf("ScanAt = %v, want %v", err, tar.ErrHeader)
	}
}

func TestUpperLayersHideLowerOnes(t *testing.T) {
	model := func(path string, bytes int64) weights.File {
		return weights.File{Path: path, Format: weights.GGUF, Parts: []weights.Part{{Type: "f16", Parameters: bytes / 2, Bytes: bytes}}}
	}
	files := weights.Image([]weights.Layer{
		{Files: []weights.File{model("/m/a.gguf", 10), model("/m/b.gguf", 10), model("/old/c.gguf", 10), model("/older/d.gguf", 10)}},
		{Hidden: []string{"/m/a.gguf", "/old/"}},
		{Files: []weights.File{model("/m/b.gguf", 30), model("/old/e.gguf", 20)}},
	})
	var got []string
	for _, m := range weights.Models(files) {
		got = append(got, m.Path)
	}
	if diff := cmp.Diff([]string{"/m/b.gguf", "/old/e.gguf", "/older/d.gguf"}, got); diff != "" {
		t.Errorf("the largest first, want - got +:\n%s", diff)
	}
}
