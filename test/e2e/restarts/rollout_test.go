package restarts_test

import (
	"encoding/json"
	"os/exec"
	"testing"

	"penstock/test/penstocktest"
)

// Everything that may happen to an app's replicas and to the server's roles, a few times: no request is lost, and what fails
// was in hand of what was killed.
func TestRollout(t *testing.T) {
	penstocktest.Nightly(t, "takes 20 s or more")
	m := penstocktest.Boot(t)
	m.Image(t, "hello") // which builds the program
	cmd := exec.CommandContext(t.Context(), m.Program, "bench", "rollout", penstocktest.Path("examples", "hello", "bin", "hello"), "--quick", "-o", "json")
	cmd.Env, cmd.Stderr = m.Env(), t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("bench rollout: %v\n%s", err, out)
	}
	var r struct {
		Requests, Answered int64
		Lost               int
		Done               []struct {
			What  string
			Count int
		}
		Failures []struct {
			Cause   string
			Excused bool
			Count   int
		}
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	failed := int64(0)
	for _, f := range r.Failures {
		if failed += int64(f.Count); !f.Excused {
			t.Errorf("%d requests failed: %s", f.Count, f.Cause)
		}
	}
	if r.Requests < 10_000 || r.Answered+failed != r.Requests || r.Lost != 0 {
		t.Errorf("%d requests, %d answered, %d failed, %d lost; want 10,000 or more of which none is lost", r.Requests, r.Answered, failed, r.Lost)
	}
	if len(r.Done) != 6 {
		t.Errorf("done: %v, want 6 kinds of changes", r.Done)
	}
	for _, d := range r.Done {
		if d.Count < 1 {
			t.Errorf("%s: %d", d.What, d.Count)
		}
	}
}
