package images_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"penstock/test/penstocktest"
)

// One command leads from a folder with a program to a URL, and again after a change.
func TestUpFolder(t *testing.T) {
	m := penstocktest.Boot(t)
	t.Run("a Go program", func(t *testing.T) {
		folder := filepath.Join(t.TempDir(), "greeter")
		program := func(greeting string) {
			write(t, folder, "main.go", `package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		label, err := os.ReadFile("model/label.txt")
		fmt.Fprintln(w, "`+greeting+`", string(label), err)
	})
	panic(http.ListenAndServe(":9000", nil))
}
`)
		}
		write(t, folder, "go.mod", "module greeter\n\ngo 1.22\n")
		write(t, folder, "model/label.txt", "penstock")
		write(t, folder, "model/weights.bin", "w")
		program("hello")
		out, said, code := m.Run(t, "up", folder, "--timeout", "2m")
		if code != 0 || !strings.Contains(said, "found a Go program") || !strings.Contains(said, "try: curl "+strings.TrimSpace(out)+"/health") {
			t.Fatalf("exit %d: %s%s", code, out, said)
		}
		if status, answer := m.Ask(t, http.MethodGet, "greeter", "/", ""); status != http.StatusOK || answer != "hello penstock <nil>\n" {
			t.Errorf("it answers %d %q", status, answer)
		}
		manifest := filepath.Join(folder, "app.yaml")
		before, err := os.ReadFile(manifest)
		if err != nil {
			t.Fatal(err)
		}
		program("good morning")
		m.Must(t, "up", folder, "--timeout", "2m")
		if _, answer := m.Ask(t, http.MethodGet, "greeter", "/", ""); answer != "good morning penstock <nil>\n" {
			t.Errorf("after the change it answers %q", answer)
		}
		if after, err := os.ReadFile(manifest); err != nil || string(after) != string(before) {
			t.Errorf("the manifest has changed: %s, %v", after, err)
		}
	})
	t.Run("an image of the server", func(t *testing.T) {
		out, said, code := m.Run(t, "up", "--image", "greeter:1", "--name", "twin")
		if code != 0 || !strings.HasPrefix(out, "http://twin.") {
			t.Fatalf("exit %d: %s%s", code, out, said)
		}
		if status, _ := m.Ask(t, http.MethodGet, "twin", "/health", ""); status != http.StatusOK {
			t.Errorf("it answers %d", status)
		}
	})
	t.Run("a Python program with Debian's modules", func(t *testing.T) {
		penstocktest.Nightly(t, "Debian packages are fetched and installed")
		folder := filepath.Join(t.TempDir(), "py")
		write(t, folder, "main.py", "from fastapi import FastAPI\n\napp = FastAPI()\n\n@app.get('/health')\ndef health():\n    return {'status': 'ok'}\n")
		m.Must(t, "up", folder, "--name", "py-app")
		if status, answer := m.Ask(t, http.MethodGet, "py-app", "/health", ""); status != http.StatusOK || answer != `{"status":"ok"}` {
			t.Errorf("it answers %d %q", status, answer)
		}
	})
}

func write(t *testing.T, folder, name, content string) {
	t.Helper()
	file := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
