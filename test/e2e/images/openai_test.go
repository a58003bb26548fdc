package images_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// streamed asks with Python alone, as programs do that find no name below .localhost.
const streamed = `
import json, sys, time, urllib.request
base_url = sys.argv[1]
body = {"model": "simulated-llm", "messages": [{"role": "user", "content": "Where?"}], "stream": True, "max_tokens": 8}
request = urllib.request.Request(base_url + "/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
times, text = [], ""
with urllib.request.urlopen(request, timeout=120) as answer:
    for line in answer:
        line = line.decode().strip()
        if line.startswith("data: ") and line != "data: [DONE]":
            times.append(time.monotonic())
            text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
print(text)
if times[-1] - times[0] < 0.05:
    sys.exit("all %d events came at once" % len(times))
`

// openAIClients runs the README's programs against its app, which gets a port of its own.
func openAIClients(t *testing.T, m *penstocktest.Machine, readme, manifest string) {
	_, section, found := strings.Cut(readme, "## Call it with OpenAI's clients\n")
	section, _, _ = strings.Cut(section, "\n## ")
	tags, python, script := blocks(section, "yaml"), blocks(section, "python"), blocks(section, "js")
	if !found || len(tags) != 1 || len(python) != 1 || len(script) != 1 {
		t.Fatalf("got %d blocks of YAML, %d of Python and %d of JavaScript, want one each", len(tags), len(python), len(script))
	}
	port := penstocktest.FreePort(t)
	own := func(text string) string {
		if !strings.Contains(text, "9001") {
			t.Errorf("want the port 9001 in %s", text)
		}
		return strings.ReplaceAll(text, "9001", port)
	}
	_, said, code := m.Run(t, "up", "-f", m.File(t, manifest+own(tags[0])))
	if code != 0 || !strings.Contains(said, "on this machine also http://127.0.0.1:"+port) {
		t.Fatalf("up: exit %d, %s", code, said)
	}
	run := func(t *testing.T, dir string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir, cmd.WaitDelay = dir, time.Second
		if out, err := cmd.CombinedOutput(); err != nil || len(strings.Fields(string(out))) < 5 {
			t.Errorf("got %v, %s, want a sentence", err, out)
		}
	}
	file := func(t *testing.T, dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("Python's urllib", func(t *testing.T) {
		run(t, t.TempDir(), "python3", "-c", streamed, "http://127.0.0.1:"+port+"/v1")
	})
	t.Run("Python's urllib by name, with --hosts", func(t *testing.T) {
		// A mount namespace has an /etc/hosts of its own, which cannot be replaced as a whole, like that of a container.
		hosts := m.File(t, "127.0.0.1 localhost\n")
		script := `mount --bind "$1" /etc/hosts && "$2" up --hosts && python3 -c "$3" "$4" && cat /etc/hosts`
		cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-ec", script, "sh", hosts, m.Program, streamed,
			fmt.Sprintf("http://chat.penstock.localhost:%d/v1", m.Status.HTTPPort))
		cmd.Env, cmd.WaitDelay = m.Env(), time.Second
		out, err := cmd.CombinedOutput()
		want := "127.0.0.1 localhost\n# BEGIN penstock " + m.Status.Instance + "\n127.0.0.1 chat.penstock.localhost\n# END"
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("got %v, %s, want an answer by name, and a file with %s", err, out, want)
		}
	})
	t.Run("Python's openai", func(t *testing.T) {
		if err := exec.Command("python3", "-c", "import openai").Run(); err != nil {
			t.Skip("python3 has no module openai: pip install openai")
		}
		dir := t.TempDir()
		file(t, dir, "ask.py", own(python[0]))
		run(t, dir, "python3", "ask.py")
	})
	t.Run("npm's openai", func(t *testing.T) {
		penstocktest.Nightly(t, "installs a package of npm")
		dir := t.TempDir()
		penstocktest.NPM(t, dir, "install", "openai@6")
		file(t, dir, "ask.mjs", own(script[0]))
		run(t, dir, "node", "ask.mjs")
	})
}
