//go:build linux

package build_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"penstock/internal/build"
)

// buildah gives a test the real program, with a store of its own.
func buildah(t *testing.T) {
	t.Helper()
	path, err := exec.LookPath("buildah")
	if err != nil {
		t.Skip("buildah is missing: apt-get install buildah")
	}
	if os.Geteuid() != 0 {
		t.Skip("buildah is run as root here")
	}
	only := t.TempDir() // without buildctl
	if err := os.Symlink(path, filepath.Join(only, "buildah")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", only)
	dir := t.TempDir()
	conf := filepath.Join(dir, "storage.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", dir+"/graph", dir+"/run"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
}

func TestDockerfile(t *testing.T) {
	buildah(t)
	s := newServer(t)
	below := newProject(t, model()).build(t, s)
	p := newProject(t, map[string]string{
		"Dockerfile":    "FROM app:1 AS base\nFROM base\nCOPY requirements.txt /deps/\nCOPY . /code\nENV MODE=fast\nUSER 7\nCMD [\"/code/main\"]\n",
		".dockerignore": "*.log\n",
		"main":          "1", "requirements.txt": "x", "debug.log": "x",
	})
	opts := p.options(s)
	opts.Name = "docked:1"
	do := func(t *testing.T) build.Result {
		t.Helper()
		result, err := build.Build(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	first := do(t)
	if n := len(first.Layers); n != len(below.Layers)+2 || first.Layers[n-1].Pushed != true || first.Layers[n-1].Size == 0 {
		t.Errorf("got layers %+v, want two on the server's own", first.Layers)
	}
	layers := pullWith(t, s, "docked:1", true)
	if code := strings.Join(layers[len(layers)-1], "\n"); !strings.Contains(code, "code/main 100644") || strings.Contains(code, "debug.log") {
		t.Errorf("the code's layer has %q", code)
	}
	if config := configOf(t, s, "docked:1").Config; config.User != "7" || strings.Join(config.Cmd, " ") != "/code/main" {
		t.Errorf("config %+v", config)
	}
	t.Run("without a change nothing is sent", func(t *testing.T) {
		again := do(t)
		for _, l := range again.Layers {
			if l.Pushed {
				t.Errorf("%s is sent again", l.Name)
			}
		}
		if again.Digest != first.Digest || again.Hashed != 0 {
			t.Errorf("got %+v, want the same image", again)
		}
	})
	t.Run("a changed file sends its layer alone", func(t *testing.T) {
		p.write(t, map[string]string{"main": "2"})
		again := do(t)
		for i, l := range again.Layers {
			if last := i == len(again.Layers)-1; l.Pushed != last {
				t.Errorf("%s: sent %v", l.Name, l.Pushed)
			}
		}
		if again.Moved > 32<<10 {
			t.Errorf("%d bytes moved", again.Moved)
		}
	})
	t.Run("what the builder says is told", func(t *testing.T) {
		p.write(t, map[string]string{"Dockerfile": "FROM app:1\nCOPY nothing /x\n"})
		if _, err := build.Build(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "nothing") || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("image.yaml comes first", func(t *testing.T) {
		p.write(t, map[string]string{"image.yaml": "layers: [{name: code, from: main, to: /code/}]\n"})
		if got := do(t); len(got.Layers) != 1 || got.Layers[0].Name != "code" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestDockerfileWithoutABuilder(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	p := newProject(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	if _, err := build.Build(t.Context(), p.options(newServer(t))); err == nil || !strings.Contains(err.Error(), "apt-get install buildah") {
		t.Errorf("got %v, want how to get a builder", err)
	}
}
