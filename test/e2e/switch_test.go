package e2e_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Revision after revision takes over under load, and no request is lost. PENSTOCK_SWITCHES sets how many.
func TestRevisionSwitchesLoseNothing(t *testing.T) {
	switches := 10
	if n, err := strconv.Atoi(os.Getenv("PENSTOCK_SWITCHES")); err == nil {
		switches = n
	}
	m := bootMachine(t)
	m.image(t, "hello")
	manifest := func(n int) string {
		s := strings.Replace(helloManifest, "image: hello:1", fmt.Sprintf("image: hello:1\n        env: [{name: N, value: \"%d\"}]", n), 1)
		return strings.Replace(s, "minReplicas: 20, maxReplicas: 20", "minReplicas: 2, maxReplicas: 2", 1)
	}
	m.apply(t, manifest(0))
	stop := load(t, m, "hello")
	for n := range switches {
		m.apply(t, manifest(n+1))
	}
	answered, failed, longest := stop()
	t.Logf("%d switches: %d requests answered, %d failed, the longest took %s", switches, answered, failed, longest)
	if failed > 0 || answered == 0 {
		t.Errorf("%d switches: %d requests answered, %d failed", switches, answered, failed)
	}
	if longest > 5*time.Second {
		t.Errorf("a request took %s: it waited for a replica that was not there", longest)
	}
	if left := m.processes(t); len(left) > 4 { // the last but one may still be on its way out
		t.Errorf("%d replicas are left of %d revisions with 2 each: %v", len(left), switches+1, left)
	}
}
