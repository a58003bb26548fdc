package main

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhileLoadingThePortAnswers503(t *testing.T) {
	p := start(t, map[string]string{"LOAD_SECONDS": "3000"})
	status, head, answer := p.call(http.MethodGet, "/health", "")
	fault, _ := answer["error"].(map[string]any)
	if status != 503 || head.Get("Retry-After") == "" || fault["message"] != "Loading model" || fault["code"] != 503.0 {
		t.Errorf("health: got %d %v, want llama.cpp's 503", status, answer)
	}
	for path, method := range map[string]string{"/v1/models": http.MethodGet, "/v1/models/tiny": http.MethodGet, "/v1/chat/completions": http.MethodPost} {
		status, head, answer := p.call(method, path, "")
		fault, _ := answer["error"].(map[string]any)
		if status != 503 || head.Get("Retry-After") == "" || fault["code"] != "model_loading" {
			t.Errorf("%s: got %d %v, want 503 model_loading", path, status, answer)
		}
	}
	if got := p.metric("chat_ready"); got != "0" {
		t.Errorf("chat_ready: got %s", got)
	}
	p.stop()
	if err := p.ended(); err != nil {
		t.Errorf("SIGTERM while loading: ended with %v, want a clean end", err)
	}
}

func TestLoadedModelIsHealthy(t *testing.T) {
	p := start(t, nil)
	p.logs.wait(t, "ready")
	if status, _, answer := p.call(http.MethodGet, "/health", ""); status != 200 || answer["status"] != "ok" {
		t.Errorf("got %d %v, want 200", status, answer)
	}
	if got := p.metric("chat_weights_bytes"); got != "1048576" {
		t.Errorf("chat_weights_bytes: got %s, want 1048576", got)
	}
}

// TestPortStaysClosedWhileLoading looks at the order of the log: with "closed" the weights come first, then the port.
func TestPortStaysClosedWhileLoading(t *testing.T) {
	p := start(t, map[string]string{"PORT_WHILE_LOADING": "closed"}) // has read the log up to "listening"
	if status, _, _ := p.call(http.MethodGet, "/health", ""); status != 200 {
		t.Errorf("first answer: got %d, want 200", status)
	}
	p.stop()
	p.logs.wait(t, "draining")
	if err := p.ended(); err != nil {
		t.Error(err)
	}
	for len(p.logs.lines) > 0 {
		if line := <-p.logs.lines; line["msg"] == "ready" {
			t.Error("the weights were loaded after the port was open")
		}
	}
}

func TestLoadTakesItsTimeAndTouchesWhatItShall(t *testing.T) {
	const size = 32 << 20
	env := map[string]string{"MODEL_PATH": weightsFile(t, size), "LOAD_SECONDS": "90", "RESIDENT_BYTES": "24MiB"}
	cfg, err := readConfig(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newServer(cfg, newLogger(t.Output(), slog.LevelInfo), nil)
		before, start := residentBytes(), time.Now()
		if err := s.loadModel(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer s.unload()
		if got := time.Since(start); got != 90*time.Second {
			t.Errorf("took %s, want 90s", got)
		}
		if before == 0 {
			t.Skip("no /proc: the kernel does not say how much memory the process holds")
		}
		if grown := residentBytes() - before; grown < 22<<20 || grown > 30<<20 {
			t.Errorf("memory grew by %d bytes, want 24 MiB and little more", grown)
		}
	})
}

func TestModelsThatDoNotLoad(t *testing.T) {
	for says, env := range map[string]map[string]string{
		"MODEL_PATH: open /nowhere/model.safetensors: no such file": {"MODEL_PATH": "/nowhere/model.safetensors"},
		"RESIDENT_BYTES: want all or at most the 1048576":           {"RESIDENT_BYTES": "1GiB"},
	} {
		for _, port := range []string{"closed", "503"} {
			env := fast(t, env)
			env["PORT_WHILE_LOADING"] = port
			err := run(t.Context(), func(name string) string { return env[name] }, t.Output())
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("port %s: got %v, want %q", port, err, says)
			}
		}
	}
}
