package weightfile_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"penstock/examples/chat/internal/weightfile"
)

// write returns the bytes of a valid file.
func write(t testing.TB, size int64, seed uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := weightfile.Write(&b, weightfile.Header{Name: "tiny", Size: size}, seed); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func save(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrittenFileOpens(t *testing.T) {
	const size = 1<<20 + 6
	content := write(t, size, 1)
	m, err := weightfile.Open(save(t, content))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if want := (weightfile.Header{Name: "tiny", Size: size}); m.Header != want {
		t.Errorf("got %+v, want %+v", m.Header, want)
	}
	var want uint64
	for i := 0; i < size; i += os.Getpagesize() {
		want += uint64(content[i])
	}
	if got := m.Touch(0, size); got != want {
		t.Errorf("touch all: got sum %d, want %d", got, want)
	}
}

func TestSeedDecidesTheBytes(t *testing.T) {
	if !bytes.Equal(write(t, 1<<16, 1), write(t, 1<<16, 1)) {
		t.Error("the same seed gave different files")
	}
	if bytes.Equal(write(t, 1<<16, 1), write(t, 1<<16, 2)) {
		t.Error("different seeds gave the same file")
	}
}

func TestWeightsDoNotCompress(t *testing.T) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(write(t, 1<<20, 1)[weightfile.HeaderSize:]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if out.Len() < 1<<20-weightfile.HeaderSize {
		t.Errorf("gzip made %d bytes of %d", out.Len(), 1<<20-weightfile.HeaderSize)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	good := write(t, 1<<16, 1)
	other := bytes.Replace(good, []byte(`"F16"`), []byte(`"F32"`), 1)
	broken := bytes.Replace(good, []byte(`{`), []byte(`[`), 1)
	for name, tt := range map[string]struct {
		content []byte
		says    string
	}{
		"empty":             {nil, "want a header of 4096 bytes, found 0"},
		"cut in the header": {good[:100], "found 100"},
		"cut in the middle": {good[:len(good)/2], "the header says 65536 bytes, the file has 32768"},
		"too long":          {append(bytes.Clone(good), 0), "the file has 65537"},
		"another format":    {append([]byte("GGUF"), good[4:]...), "want safetensors"},
		"another type":      {other, "found F32"},
		"broken JSON":       {broken, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			path := save(t, tt.content)
			m, err := weightfile.Open(path)
			if err == nil {
				m.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %q, want the path and %q", err, tt.says)
			}
		})
	}
	if _, err := weightfile.Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "want a file") {
		t.Errorf("a folder: got %v", err)
	}
	if _, err := weightfile.Open(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no file: opened")
	}
}

func TestHeadersThatAreRefused(t *testing.T) {
	for _, h := range []weightfile.Header{
		{Name: "", Size: 8192}, {Name: "A", Size: 8192}, {Name: "-a", Size: 8192}, {Name: strings.Repeat("a", 65), Size: 8192}, {Name: "a", Size: 4095}, {Name: "a", Size: 8193},
	} {
		var b bytes.Buffer
		if err := weightfile.Write(&b, h, 1); err == nil || b.Len() > 0 {
			t.Errorf("%+v: got %v after %d bytes, want an error before the first", h, err, b.Len())
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	good := write(f, 8192, 1)[:weightfile.HeaderSize]
	f.Add(good)
	f.Add(good[:50])
	f.Add([]byte("GGUF"))
	f.Fuzz(func(t *testing.T, page []byte) {
		h, err := weightfile.ParseHeader(page)
		if err == nil && h.Validate() != nil {
			t.Errorf("%q: got %+v", page, h)
		}
	})
}
