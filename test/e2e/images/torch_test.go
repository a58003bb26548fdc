package images_test

import (
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// PyTorch from Debian packages, from training to answers. Some minutes, the first time.
func TestTorch(t *testing.T) {
	penstocktest.Nightly(t, "downloads 340 MiB of packages and takes minutes")
	m := penstocktest.Boot(t)
	if out, err := exec.Command("make", "-C", "../../..", "example-torch").CombinedOutput(); err != nil {
		t.Fatalf("make example-torch: %v\n%s", err, out)
	}
	m.Must(t, "build", "-t", "torch:1", "../../../examples/torch")
	from := time.Now()
	m.Must(t, "up", "-f", "../../../examples/torch/app.yaml")
	t.Logf("ready after %s", time.Since(from).Round(time.Millisecond))
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
	if status, answer := m.Ask(t, http.MethodPost, "torch", "/generate", `{"prompt": 7, "max_tokens": 0}`); status != http.StatusUnprocessableEntity || !strings.Contains(answer, "max_tokens") {
		t.Errorf("a wrong request: %d %s", status, answer)
	}
	if out := m.Must(t, "build", "-t", "torch:1", "../../../examples/torch", "-o", "json"); !strings.Contains(out, `"movedBytes": 0`) {
		t.Errorf("built again: %s", out)
	}
}
