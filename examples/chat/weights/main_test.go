package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"penstock/examples/chat/internal/weightfile"
)

func TestWritesAFileThatOpens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	for _, size := range []string{"64KiB", "128KiB"} { // the second replaces the first
		if err := run([]string{"-size", size, "-o", path, "-name", "tiny"}, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	m, err := weightfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Name != "tiny" || m.Size != 128<<10 {
		t.Errorf("got %+v, want tiny of 128 KiB", m.Header)
	}
}

func TestMistakesLeaveNothingBehind(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "model.safetensors")
	for says, args := range map[string][]string{
		"-size: want bytes":    {"-size", "1.5GiB", "-o", out},
		"size: want at least":  {"-size", "1KiB", "-o", out},
		"name: want 1 to 64":   {"-name", "My Model", "-o", out},
		`got "extra"`:          {"-o", out, "extra"},
		"no such file":         {"-o", filepath.Join(dir, "none", "model.safetensors")},
		"file exists":          {"-o", dir + "/"},
		"flag provided but no": {"-bytes", "1"},
	} {
		if err := run(args, io.Discard); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want %q", args, err, says)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
}
