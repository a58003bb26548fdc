package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/examples/chat/internal/weightfile"
)

// patience is how long a test waits for what must happen before it gives up.
const patience = 2 * time.Minute

// asProgram makes the test's own binary run main, for tests that need a process to signal.
const asProgram = "CHAT_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program is a server that runs inside the test as it would in a container.
type program struct {
	t    *testing.T
	url  string
	logs *logBook
	stop context.CancelFunc // SIGTERM
	exit <-chan error       // what main would end with
}

// fast are settings of a server without waits, on a free port.
func fast(t *testing.T, extra map[string]string) map[string]string {
	t.Helper()
	env := map[string]string{"PORT": "0", "MODEL_PATH": weightsFile(t, 1<<20), "TIME_TO_FIRST_TOKEN": "0s", "TOKENS_PER_SECOND": "0"}
	maps.Copy(env, extra)
	return env
}

func weightsFile(t *testing.T, size int64) string {
	t.Helper()
	var b bytes.Buffer
	if err := weightfile.Write(&b, weightfile.Header{Name: "tiny", Size: size}, 1); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs the program with extra settings and waits until its port is open.
func start(t *testing.T, extra map[string]string) *program {
	t.Helper()
	env := fast(t, extra)
	return launch(t, func(ctx context.Context, logs *logBook) error {
		return run(ctx, func(name string) string { return env[name] }, logs)
	})
}

// gate is a pacer whose tokens the test lets through one by one.
type gate chan struct{}

func (g gate) wait(ctx context.Context, _ int) error {
	select {
	case <-g:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// open lets n tokens through, each taken by a generation.
func (g gate) open(t *testing.T, n int) {
	t.Helper()
	timeout := time.After(patience)
	for i := range n {
		select {
		case g <- struct{}{}:
		case <-timeout:
			t.Errorf("token %d of %d: no generation waits for it", i+1, n)
			return
		}
	}
}

// startGated is start with a loaded model whose tokens wait for the gate.
func startGated(t *testing.T, extra map[string]string) (*program, gate) {
	t.Helper()
	env := fast(t, extra)
	cfg, err := readConfig(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	g := make(gate)
	p := launch(t, func(ctx context.Context, logs *logBook) error {
		return newServer(cfg, newLogger(logs, slog.LevelInfo), func() pacer { return g }).run(ctx)
	})
	p.logs.wait(t, "ready")
	return p, g
}

func launch(t *testing.T, main func(context.Context, *logBook) error) *program {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	logs := &logBook{t: t, lines: make(chan map[string]any, 1000)}
	exit := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { exit <- main(ctx, logs) })
	t.Cleanup(func() { stop(); wg.Wait() })
	_, port, err := net.SplitHostPort(logs.wait(t, "listening")["addr"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return &program{t: t, url: "http://127.0.0.1:" + port, logs: logs, stop: stop, exit: exit}
}

// call sends a request and returns status, head and JSON body.
func (p *program) call(method, path, body string) (int, http.Header, map[string]any) {
	p.t.Helper()
	resp, err := p.open(p.t.Context(), method, path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		p.t.Fatalf("%s %s: %v in %q", method, path, err, raw)
	}
	return resp.StatusCode, resp.Header, answer
}

func (p *program) open(ctx context.Context, method, path, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return http.DefaultClient.Do(req)
}

// ask completes a prompt; more is the rest of the body's JSON object.
func (p *program) ask(prompt, more string) (text, finish string, tokens int) {
	p.t.Helper()
	status, _, answer := p.call(http.MethodPost, "/v1/chat/completions", question(prompt, more))
	if status != http.StatusOK {
		p.t.Fatalf("%s: got %d %v", question(prompt, more), status, answer)
	}
	choice := answer["choices"].([]any)[0].(map[string]any)
	return choice["message"].(map[string]any)["content"].(string), choice["finish_reason"].(string),
		int(answer["usage"].(map[string]any)["completion_tokens"].(float64))
}

func question(prompt, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`{"model": "tiny", "messages": [{"role": "user", "content": %q}]%s}`, prompt, more)
}

// metric returns the value of a line of /metrics.
func (p *program) metric(name string) string {
	p.t.Helper()
	resp, err := p.open(p.t.Context(), http.MethodGet, "/metrics", "")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	p.t.Fatalf("no metric %s in %s", name, raw)
	return ""
}

// until asks for a metric until it has the value want.
func (p *program) until(name, want string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); p.metric(name) != want; {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: got %s, want %s", name, p.metric(name), want)
		}
	}
}

// ended returns what the program ended with.
func (p *program) ended() error {
	p.t.Helper()
	select {
	case err := <-p.exit:
		return err
	case <-time.After(patience):
		p.t.Fatal("still running")
		return nil
	}
}

// logBook takes the program's standard output, one JSON object a line.
type logBook struct {
	t     *testing.T
	lines chan map[string]any
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
