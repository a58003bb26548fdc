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
	t.Run("an image of the server comes before Debian's alias for its name", func(t *testing.T) {
		own := newProject(t, model()).options(s)
		own.Name = "python:3.12-slim" // docker.io/library/python in /etc/containers/registries.conf.d/shortnames.conf
		if _, err := build.Build(t.Context(), own); err != nil {
			t.Fatal(err)
		}
		p.write(t, map[string]string{"Dockerfile": "FROM python:3.12-slim\nCOPY main /x\n"})
		if got := do(t); len(got.Layers) != len(below.Layers)+1 {
			t.Errorf("got layers %+v, want one on the server's own", got.Layers)
		}
	})
	t.Run("a failed build leaves no working container", func(t *testing.T) {
		p.write(t, map[string]string{"Dockerfile": "FROM app:1\nCOPY main /x\nCOPY nothing /y\n"})
		if _, err := build.Build(t.Context(), opts); err == nil {
			t.Fatal("built")
		}
		if left, err := exec.Command("buildah", "containers", "--quiet").Output(); err != nil || len(left) > 0 {
			t.Errorf("left containers %s(%v)", left, err)
		}
	})
	t.Run("another image on the same base sends its own layer alone", func(t *testing.T) {
		p.write(t, map[string]string{"Dockerfile": "FROM app:1\nCOPY main /another\n"})
		other := opts
		other.Name = "another:1"
		result, err := build.Build(t.Context(), other)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range result.Layers {
			if last := i == len(result.Layers)-1; l.Pushed != last {
				t.Errorf("%s: sent %v", l.Name, l.Pushed)
			}
		}
	})
	t.Run("a base that has changed on the server is used as it is now", func(t *testing.T) {
		own := newProject(t, map[string]string{"image.yaml": "layers: [{name: code, from: main, to: /code/}]\n", "main": "new base"}).options(s)
		own.Name = "app:1"
		if _, err := build.Build(t.Context(), own); err != nil {
			t.Fatal(err)
		}
		p.write(t, map[string]string{"Dockerfile": "FROM app:1\nCOPY main /x\n"})
		if got := do(t); len(got.Layers) != 2 {
			t.Errorf("got layers %+v, want one on the one that the server's image has now", got.Layers)
		}
	})
	t.Run("image.yaml comes first", func(t *testing.T) {
		p.write(t, map[string]string{"image.yaml": "layers: [{name: code, from: main, to: /code/}]\n"})
		if got := do(t); len(got.Layers) != 1 || got.Layers[0].Name != "code" {
			t.Errorf("got %+v", got)
		}
	})
}

// A RUN instruction works with what is installed, and where crun is first on PATH but rejects the machine's cgroups.
func TestRunInstruction(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/program").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	buildah(t)
	try := func(t *testing.T) string {
		t.Helper()
		how, err := build.TryRun(t.Context(), t.TempDir(), program)
		if err != nil {
			t.Error(err)
		}
		return how
	}
	try(t)
	if _, err := os.Stat("/sys/fs/cgroup/unified"); err != nil {
		return // crun accepts a machine with one kind of cgroups
	}
	crun := "#!/bin/sh\necho cgroups in hybrid mode not supported >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(os.Getenv("PATH"), "crun"), []byte(crun), 0o700); err != nil {
		t.Fatal(err)
	}
	if how := try(t); how != "--isolation=chroot" {
		t.Errorf("RUN with %s", how)
	}
}

func TestDockerfileWithoutABuilder(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	p := newProject(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	if _, err := build.Build(t.Context(), p.options(newServer(t))); err == nil || !strings.Contains(err.Error(), "apt-get install buildah") {
		t.Errorf("got %v, want how to get a builder", err)
	}
}
