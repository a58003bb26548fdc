package images_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"penstock/test/penstocktest"
)

// The commands of the README's "Serve your own model" work as written, in a tree that has only what a clone has.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(penstocktest.Path("README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## Serve your own model\n")
	section, _, _ = strings.Cut(section, "\n## ")
	commands, manifests := blocks(section, "sh"), blocks(section, "yaml")
	if len(commands) != 2 || len(manifests) != 2 || !strings.Contains(manifests[1], "image: chat:1") {
		t.Fatalf("got %d blocks of commands and %d of YAML, want an image.yaml with its command and an app's with its", len(commands), len(manifests))
	}
	m := penstocktest.Boot(t)
	dir := clone(t)
	if err := os.WriteFile(filepath.Join(dir, "app.yaml"), []byte(manifests[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, block := range commands {
		follow(t, m, dir, block)
	}
	if status, answer := m.Ask(t, http.MethodGet, "chat", "/v1/models", ""); status != http.StatusOK || !strings.Contains(answer, "simulated-llm") {
		t.Errorf("the README's app answers %d %s", status, answer)
	}
	t.Run("OpenAI's clients", func(t *testing.T) { openAIClients(t, m, string(text), manifests[1]) })
	// The image.yaml that the README shows is the example's, but for what it leaves out.
	example, err := os.ReadFile(filepath.Join(dir, "examples/chat/image.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(manifests[0]) {
		if code, _, _ := strings.Cut(line, "#"); !strings.Contains(string(example), strings.TrimSpace(code)) {
			t.Errorf("the README's image.yaml has %q, examples/chat has not", strings.TrimSpace(code))
		}
	}
}

// blocks are the code blocks of a Markdown text in a language, without the indentation of their fence.
func blocks(text, language string) (found []string) {
	var block *strings.Builder
	indent := ""
	for line := range strings.Lines(text) {
		before, kind, fence := strings.Cut(line, "```")
		switch {
		case fence && block != nil:
			found, block = append(found, block.String()), nil
		case fence && strings.TrimSpace(kind) == language:
			block, indent = &strings.Builder{}, before
		case block != nil:
			block.WriteString(strings.TrimPrefix(line, indent))
		}
	}
	return found
}
