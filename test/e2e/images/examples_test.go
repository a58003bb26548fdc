package images_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// clone copies what a clone of the repository has to a folder.
func clone(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files := exec.Command("bash", "-euo", "pipefail", "-c",
		`git ls-files -z --cached --others --exclude-standard | tar -c --null -T - --ignore-failed-read | tar -x -C "$0"`, dir)
	files.Dir = penstocktest.Path()
	if out, err := files.CombinedOutput(); err != nil {
		t.Fatalf("copy the tracked files: %v\n%s", err, out)
	}
	return dir
}

// follow runs a block of commands from the documentation in a clone, and returns what they print.
func follow(t *testing.T, m *penstocktest.Machine, dir, block string) string {
	t.Helper()
	path := t.TempDir()
	if err := os.Symlink(m.Program, filepath.Join(path, "penstock")); err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf(".penstock.localhost:%d/", m.Status.HTTPPort)
	cmd := exec.CommandContext(t.Context(), "bash", "-euxc", strings.ReplaceAll(block, ".penstock.localhost:8080/", own))
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, append(m.Env(), "PATH="+path+":"+os.Getenv("PATH")), time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return string(out)
}

// example follows the commands in the README of an example, which has one block of them. The app gets a port of its own on
// loopback if its manifest asks for one.
func example(t *testing.T, m *penstocktest.Machine, name string) (dir, out string) {
	t.Helper()
	dir = clone(t)
	readme, err := os.ReadFile(filepath.Join(dir, "examples", name, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	commands := blocks(string(readme), "sh")
	if len(commands) != 1 {
		t.Fatalf("examples/%s/README.md has %d blocks of commands, want one", name, len(commands))
	}
	file := filepath.Join(dir, "examples", name, "app.yaml")
	manifest, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if before, after, found := strings.Cut(string(manifest), `penstock.host-port: "`); found {
		_, after, _ = strings.Cut(after, `"`)
		manifest = []byte(before + `penstock.host-port: "` + penstocktest.FreePort(t) + `"` + after)
	}
	if !strings.Contains(string(manifest), "minReplicas: 0") {
		t.Errorf("examples/%s/app.yaml does not scale to zero", name)
	}
	if err := os.WriteFile(file, manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, follow(t, m, dir, commands[0])
}

// streamedEvents sends a request whose answer is server-sent events, and returns the data of each. It fails if they arrive at once.
func streamedEvents(t *testing.T, m *penstocktest.Machine, app, path, body string) (events []string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+app+".penstock.localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := m.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var first, last time.Time
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if data, is := strings.CutPrefix(lines.Text(), "data: "); is {
			events, last = append(events, data), time.Now()
			if first.IsZero() {
				first = last
			}
		}
	}
	if err := lines.Err(); err != nil || len(events) == 0 || events[len(events)-1] != "[DONE]" {
		t.Fatalf("%s: %s, %v, want events up to [DONE], got %d: %.1000s", path, resp.Status, err, len(events), events)
	}
	if spread := last.Sub(first); spread < 10*time.Millisecond {
		t.Errorf("%s: all %d events came within %s, want each when it is made", path, len(events), spread)
	}
	return events
}

// llama.cpp behind OpenAI's API, as its README says.
func TestLlama(t *testing.T) {
	penstocktest.Nightly(t, "installs packages of npm and Debian")
	m := penstocktest.Boot(t)
	_, out := example(t, m, "llama")
	if !strings.Contains(out, `"content":"`) || !strings.Contains(out, "data: [DONE]") {
		t.Errorf("the README's request got %s", out)
	}
	const ask = `{"messages": [{"role": "user", "content": "Where?"}], "max_tokens": 150, "stream": true}`
	events := streamedEvents(t, m, "llama", "/v1/chat/completions", ask)
	var text strings.Builder
	for _, data := range events[:len(events)-1] {
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil || len(chunk.Choices) != 1 {
			t.Fatalf("%v: %s", err, data)
		}
		text.WriteString(chunk.Choices[0].Delta.Content)
	}
	if words := strings.Fields(text.String()); len(words) < 100 {
		t.Errorf("got %d words, want about one for each of 150 tokens: %s", len(words), text.String())
	}
	status, whole := m.Ask(t, http.MethodPost, "llama", "/v1/chat/completions", strings.Replace(ask, `"stream": true`, `"stream": false`, 1))
	var answer struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal([]byte(whole), &answer); status != http.StatusOK || err != nil || len(answer.Choices) != 1 || answer.Choices[0].Message.Content != text.String() {
		t.Errorf("got %d, %s, %v, want in one piece what was streamed: %s", status, whole, err, text.String())
	}
	if status, answer := m.Ask(t, http.MethodGet, "llama", "/v1/models", ""); status != http.StatusOK || !strings.Contains(answer, `"id":"untrained"`) {
		t.Errorf("models: %d %s", status, answer)
	}
	if status, answer := m.Ask(t, http.MethodPost, "llama", "/v1/chat/completions", `{"messages": [{"role": "user", "content": 7}]}`); status != http.StatusBadRequest || !strings.Contains(answer, "messages[0].content: want a text, got 7") {
		t.Errorf("a wrong request: %d %s", status, answer)
	}
}

// An ONNX model in Go with ONNX Runtime, as its README says.
func TestVad(t *testing.T) {
	penstocktest.Nightly(t, "installs packages of npm and Debian")
	m := penstocktest.Boot(t)
	dir, _ := example(t, m, "vad")
	tests := map[string]struct {
		sound string
		words int
	}{
		"a voice says two words": {"Front_Center.wav", 2},
		"noise has no speech":    {"Noise.wav", 0},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			sound, err := os.ReadFile(filepath.Join(dir, "examples/vad/sounds", tt.sound))
			if err != nil {
				t.Fatal(err)
			}
			status, got := m.Ask(t, http.MethodPost, "vad", "/speech", string(sound))
			var answer struct {
				Seconds float64
				Speech  []struct{ Start, End float64 }
			}
			if err := json.Unmarshal([]byte(got), &answer); status != http.StatusOK || err != nil || answer.Seconds < 1 || len(answer.Speech) != tt.words {
				t.Errorf("got %d, %s, %v, want %d words", status, got, err, tt.words)
			}
		})
	}
	if status, answer := m.Ask(t, http.MethodPost, "vad", "/speech", "ID3"); status != http.StatusBadRequest || !strings.Contains(answer, "want a WAV file") {
		t.Errorf("another file: %d %s", status, answer)
	}
}

// PyTorch from Debian packages, from training to answers, as its README says. Some minutes, the first time.
func TestTorch(t *testing.T) {
	penstocktest.Nightly(t, "downloads 340 MiB of packages and takes minutes")
	m := penstocktest.Boot(t)
	dir, out := example(t, m, "torch")
	if !strings.Contains(out, `{"text": "`) || !strings.Contains(out, "data: [DONE]") {
		t.Errorf("the README's request got %s", out)
	}
	const ask = `{"prompt": "The server ", "max_tokens": 16}`
	var took []time.Duration
	for range 20 {
		from := time.Now()
		if status, answer := m.Ask(t, http.MethodPost, "torch", "/generate", ask); status != http.StatusOK || !strings.Contains(answer, `"tokens":16`) {
			t.Fatalf("%d %s", status, answer)
		}
		took = append(took, time.Since(from))
	}
	slices.Sort(took)
	t.Logf("16 tokens: median %s", took[len(took)/2].Round(time.Microsecond))
	if events := streamedEvents(t, m, "torch", "/generate", `{"prompt": "The server ", "max_tokens": 32, "stream": true}`); len(events) != 33 {
		t.Errorf("got %d events, want one for each of 32 tokens and the end: %s", len(events), events)
	}
	if status, answer := m.Ask(t, http.MethodPost, "torch", "/generate", `{"prompt": 7, "max_tokens": 0}`); status != http.StatusUnprocessableEntity || !strings.Contains(answer, "max_tokens") {
		t.Errorf("a wrong request: %d %s", status, answer)
	}
	if out := m.Must(t, "build", "-t", "torch:1", filepath.Join(dir, "examples/torch"), "-o", "json"); !strings.Contains(out, `"movedBytes": 0`) {
		t.Errorf("built again: %s", out)
	}
}
