//go:build linux

package build_test

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/internal/build"
)

// safetensorsFile is a file with a matrix of 1000 x 1000 numbers of 32 bits.
func safetensorsFile() string {
	header := `{"w":{"dtype":"F32","shape":[1000,1000],"data_offsets":[0,4000000]}}`
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))) + header + strings.Repeat("\x00", 4_000_000)
}

// ggufFile is the header of a file without tensors.
func ggufFile() string {
	b := append([]byte("GGUF"), 3, 0, 0, 0)
	return string(append(b, make([]byte, 120)...))
}

const goServer = `package main

import "net/http"

func main() {
	http.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	http.ListenAndServe(":9000", nil)
}
`

func TestLook(t *testing.T) {
	tests := map[string]struct {
		files  map[string]string
		kind   string
		ports  []int
		health string
		wrote  []string
		has    []string // text of the last file to write
	}{
		"an image.yaml comes first": {map[string]string{"image.yaml": twoLayers, "Dockerfile": "FROM x\n", "go.mod": "module x\n"}, "an image.yaml", []int{8080}, "", nil, nil},
		"a Dockerfile": {map[string]string{"Dockerfile": "FROM x\nEXPOSE 8000/tcp 9090\nexpose 53/udp\n", "main.js": `app.get("/health")`},
			"a Dockerfile", []int{8000, 9090}, "/health", nil, nil},
		"Python with requirements": {map[string]string{"requirements.txt": "fastapi\n", "main.py": "app = FastAPI()\n@app.get('/ready')\n@app.get('/health')\n"},
			"a Python program with a requirements.txt", []int{8000}, "/ready", []string{".dockerignore", "Dockerfile"}, []string{"uvicorn"}},
		"Python without requirements": {map[string]string{
			"main.py": "import numpy as np, json\nfrom fastapi import FastAPI\nimport helper\napp = FastAPI()\n", "helper.py": "  import PIL.Image\n",
			"models/m.safetensors": safetensorsFile(), "models/vocab.txt": "x", "top.onnx": "x", "tests/test_main.py": "import torch\n",
		}, "a Python program", []int{8000}, "", []string{".dockerignore", "image.yaml"}, []string{
			"packages: [libopenblas0-pthread, python3, python3-fastapi, python3-numpy, python3-pil, python3-uvicorn]\n",
			"from: models\n    to: /app/models\n    compression: none\n", "from: top.onnx\n    to: /app/top.onnx\n",
			`entrypoint: [python3, "-m", uvicorn, "main:app", "--host=0.0.0.0", "--port=8000"]`,
		}},
		"Go": {map[string]string{"go.mod": "module example.com/Chat.Server\n", "main.go": goServer, "main_test.go": `":1234"`, "model.safetensors": safetensorsFile()},
			"a Go program", []int{9000}, "/healthz", []string{"image.yaml"}, []string{
				"from: model.safetensors\n    to: /app/model.safetensors\n", "from: bin/chat.server\n    to: /app/bin/chat.server\n    compression: zstd\n    go: \".\"", "ports: [9000]\n",
			}},
		"Go in cmd, with its port in a variable": {map[string]string{"go.mod": "module chat\n", "cmd/chat/main.go": "package main\nfunc main() { os.Getenv(\"PORT\") }\n", "lib.go": "package chat\n", "cmd/tool/main.go": "package main\nfunc main() {}\n"},
			"a Go program", []int{8080}, "", []string{"image.yaml"}, []string{"go: cmd/chat", `env: {PORT: "8080"}`}},
		"Go with an unknown port": {map[string]string{"go.mod": "module chat\n", "main.go": "package main\nfunc main() {}\n"},
			"a Go program", nil, "", []string{"image.yaml"}, []string{"entrypoint: [/app/bin/chat]"}},
		"a GGUF model": {map[string]string{"tiny model.gguf": ggufFile(), "mmproj-x.gguf": ggufFile()},
			"a GGUF model", []int{8080}, "/health", []string{"image.yaml"}, []string{"image: ghcr.io/ggml-org/llama.cpp:server", `LLAMA_ARG_MODEL: "/models/tiny model.gguf"`}},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			p := newProject(t, tt.files)
			got, err := build.Look(t.Context(), p.dir)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, f := range got.Write {
				names = append(names, f.Name)
			}
			if got.Kind != tt.kind || !slices.Equal(got.Ports, tt.ports) || got.Health != tt.health || !slices.Equal(names, tt.wrote) {
				t.Fatalf("got %s, ports %v, health %q, files %v; want %s, %v, %q, %v", got.Kind, got.Ports, got.Health, names, tt.kind, tt.ports, tt.health, tt.wrote)
			}
			if len(names) == 0 {
				return
			}
			last := got.Write[len(names)-1]
			for _, want := range tt.has {
				if !strings.Contains(string(last.Content), want) {
					t.Errorf("want %q in\n%s", want, last.Content)
				}
			}
			if last.Name == build.SpecFile {
				spec, err := build.ParseSpec(last.Content)
				if err != nil || len(tt.ports) > 0 && !slices.Equal(spec.Ports, tt.ports) {
					t.Errorf("the image.yaml is not valid: %v, ports %v:\n%s", err, spec.Ports, last.Content)
				}
			}
			// What was written is taken from then on.
			if wrote, err := build.WriteNew(p.dir, got.Write); err != nil || len(wrote) != len(names) {
				t.Fatalf("wrote %v, %v", wrote, err)
			}
			if again, err := build.Look(t.Context(), p.dir); err != nil || len(again.Write) > 0 {
				t.Errorf("the second look: %+v, %v; want nothing to write", again, err)
			}
			if _, err := build.WriteNew(p.dir, got.Write); err == nil {
				t.Error("files are overwritten")
			}
		})
	}
}

func TestLookSaysWhatIsMissing(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		says  string
	}{
		"nothing":                      {nil, "is empty: want an image.yaml"},
		"other files":                  {map[string]string{"a.txt": "x"}, "recognised as a program or a model (found a.txt)"},
		"a model without a program":    {map[string]string{"m.safetensors": safetensorsFile()}, "has the model m.safetensors (safetensors, 1 M parameters in f32: 3.8 MiB of weights) and no program that serves it"},
		"a module that Debian has not": {map[string]string{"app.py": "import transformers\nfrom fastapi import FastAPI\napp = FastAPI()\n"}, "imports transformers, which Debian does not have: list what it needs in a requirements.txt"},
		"several Go programs":          {map[string]string{"go.mod": "module m\n", "a/m.go": "package main\nfunc main() {}\n", "b/m.go": "package main\nfunc main() {}\n"}, "has 2 programs (a, b)"},
		"several models":               {map[string]string{"a.gguf": ggufFile(), "b.gguf": ggufFile()}, "has 2 models (a.gguf, b.gguf)"},
		"a library":                    {map[string]string{"go.mod": "module m\n", "m.go": "package m\n"}, "recognised as a program"},
		"a faulty image.yaml":          {map[string]string{"image.yaml": "layer: x\n"}, "unknown field"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			p := newProject(t, tt.files)
			if _, err := build.Look(t.Context(), p.dir); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q in it", err, tt.says)
			}
		})
	}
}

// A layer with a Go package is compiled at each build. An unchanged program is not sent again.
func TestGoLayer(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is missing")
	}
	s := newServer(t)
	p := newProject(t, map[string]string{"go.mod": "module m\ngo 1.21\n", "main.go": "package main\nfunc main() {}\n"})
	found, err := build.Look(t.Context(), p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := build.WriteNew(p.dir, found.Write); err != nil {
		t.Fatal(err)
	}
	first := p.build(t, s)
	if len(first.Layers) != 1 || !first.Layers[0].Pushed {
		t.Fatalf("got %+v, want one layer that was sent", first)
	}
	if again := p.build(t, s); again.Digest != first.Digest || again.Layers[0].Pushed {
		t.Errorf("the second build gives %s and sends %v, want %s and nothing", again.Digest, again.Layers[0].Pushed, first.Digest)
	}
	p.write(t, map[string]string{"main.go": "package main\nfunc main() { println(1) }\n"})
	if changed := p.build(t, s); changed.Digest == first.Digest {
		t.Error("a changed program gives the same image")
	}
	p.write(t, map[string]string{"main.go": "package main\nfunc main() { lost() }\n"})
	if _, err := build.Build(t.Context(), p.options(s)); err == nil || !strings.Contains(err.Error(), "layers[0].go (server)") || !strings.Contains(err.Error(), "undefined: lost") {
		t.Errorf("got %v, want the compiler's message", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := build.Build(t.Context(), p.options(s)); err == nil || !strings.Contains(err.Error(), "needs the go command on PATH") {
		t.Errorf("without Go: got %v", err)
	}
	if matches, _ := filepath.Glob(filepath.Join(p.dir, "bin", "*")); len(matches) != 1 {
		t.Errorf("got %v in bin, want the program", matches)
	}
}

// A base of another registry is pulled if the server does not have it. Its own images are not.
func TestBaseIsPulled(t *testing.T) {
	s := newServer(t)
	p := newProject(t, map[string]string{"image.yaml": "layers: [{name: a, from: f, to: /f}]\n", "f": "x"})
	var asked []string
	build1 := func(name, spec string) error {
		p.write(t, map[string]string{"image.yaml": spec})
		o := p.options(s)
		o.Name = name
		o.Pull = func(_ context.Context, image string) error {
			asked = append(asked, image)
			o := p.options(s)
			o.Name = image
			other := newProject(t, map[string]string{"image.yaml": "layers: [{name: base, from: f, to: /base}]\n", "f": "y"})
			o.Dir = other.dir
			_, err := build.Build(t.Context(), o)
			return err
		}
		_, err := build.Build(t.Context(), o)
		return err
	}
	const layer = "layers: [{name: a, from: f, to: /f}]\n"
	if err := build1("one:1", "base: {image: lost:1}\n"+layer); err == nil || len(asked) > 0 {
		t.Errorf("an image of this server: got %v, pulled %v", err, asked)
	}
	for range 2 {
		if err := build1("two:1", "base: {image: registry.example/team/base:1}\n"+layer); err != nil || len(asked) != 1 {
			t.Errorf("got %v, pulled %v, want the base pulled once", err, asked)
		}
	}
}

func FuzzLook(f *testing.F) {
	f.Add("module m\n", goServer, "import os\n", "FROM x\nEXPOSE 1\n")
	f.Fuzz(func(t *testing.T, mod, program, script, dockerfile string) {
		for _, files := range []map[string]string{
			{"go.mod": mod, "main.go": program}, {"main.py": script + "\napp = FastAPI()\n", "x.gguf": program}, {"Dockerfile": dockerfile},
		} {
			p := newProject(t, files)
			found, err := build.Look(t.Context(), p.dir)
			if err != nil {
				continue
			}
			for _, file := range found.Write {
				if file.Name != build.SpecFile {
					continue
				}
				if _, err := build.ParseSpec(file.Content); err != nil {
					t.Errorf("the image.yaml is not valid: %v\n%s", err, file.Content)
				}
			}
		}
	})
}

// A named pipe in a folder is waited for by who opens it.
func TestPipesAreNotWaitedFor(t *testing.T) {
	for _, name := range []string{build.SpecFile, "Dockerfile", build.IgnoreFile, "requirements.txt", "main.py", "go.mod", "model.safetensors"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if name != "go.mod" {
				if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := syscall.Mkfifo(filepath.Join(dir, name), 0o644); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := build.Look(t.Context(), dir)
				done <- err
			}()
			select {
			case err := <-done:
				if needed := name == build.SpecFile || name == "Dockerfile"; err == nil || needed && !strings.Contains(err.Error(), name+": want a file, got a named pipe") {
					t.Errorf("got %v, want an error, which says what %s is if that is all that counts", err, name)
				}
			case <-time.After(time.Minute):
				t.Fatal("still waiting")
			}
		})
	}
}
