package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen before it gives up.
const patience = 2 * time.Minute

// process is a server that runs inside the test as it would in a container.
type process struct {
	url  string
	logs *logBook
	stop context.CancelFunc // SIGTERM
	exit <-chan error       // what main would end with
}

// start runs the whole program with the environment env on a free port.
func start(t *testing.T, env map[string]string) *process {
	t.Helper()
	getenv := func(name string) string {
		if name == "PORT" {
			return "0"
		}
		return env[name]
	}
	logs := newLogBook(t)
	return launch(t, logs, func(ctx context.Context) error { return run(ctx, getenv, logs) })
}

func launch(t *testing.T, logs *logBook, main func(context.Context) error) *process {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	exit := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { exit <- main(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	_, port, err := net.SplitHostPort(logs.wait(t, "listening")["addr"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return &process{url: "http://127.0.0.1:" + port, logs: logs, stop: stop, exit: exit}
}

// do sends a request and returns the answer with its JSON body.
func (p *process) do(t *testing.T, req *http.Request) (*http.Response, map[string]any) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if req.Method != http.MethodHead {
		if err := json.Unmarshal(raw, &body); err != nil {
			t.Fatalf("%s %s: %v in %q", req.Method, req.URL.Path, err, raw)
		}
	}
	return resp, body
}

func (p *process) request(t *testing.T, method, path, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func (p *process) get(t *testing.T, path string) (*http.Response, map[string]any) {
	t.Helper()
	return p.do(t, p.request(t, http.MethodGet, path, ""))
}

func (p *process) detect(t *testing.T, text string) (*http.Response, map[string]any) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		t.Fatal(err)
	}
	return p.do(t, p.request(t, http.MethodPost, "/detect", string(body)))
}

// logBook takes the program's standard output, one JSON object a line.
type logBook struct {
	t     *testing.T
	lines chan map[string]any
}

func newLogBook(t *testing.T) *logBook {
	return &logBook{t: t, lines: make(chan map[string]any, 1000)}
}

// Write is called once a line by slog's handler.
func (b *logBook) Write(p []byte) (int, error) {
	var line map[string]any
	if err := json.Unmarshal(bytes.TrimSpace(p), &line); err != nil {
		b.t.Errorf("standard output: want JSON lines, got %q", p)
		return len(p), nil
	}
	b.lines <- line
	return len(p), nil
}

// wait returns the next line with the message msg and forgets those before it.
func (b *logBook) wait(t *testing.T, msg string) map[string]any {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-b.lines:
			if line["msg"] == msg {
				return line
			}
		case <-timeout:
			t.Fatalf("no log line %q within %s", msg, patience)
		}
	}
}
