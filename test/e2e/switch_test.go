package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Revision after revision takes over under load, and no request is lost. PENSTOCK_SWITCHES sets how many.
func TestRevisionSwitchesLoseNothing(t *testing.T) {
	switches := times("PENSTOCK_SWITCHES", 10)
	m := bootMachine(t)
	m.image(t, "hello")
	manifest := func(n int) string {
		s := strings.Replace(helloManifest, "image: hello:1", fmt.Sprintf("image: hello:1\n        env: [{name: N, value: \"%d\"}]", n), 1)
		return strings.Replace(s, "minReplicas: 20, maxReplicas: 20", "minReplicas: 2, maxReplicas: 2", 1)
	}
	m.apply(t, manifest(0))
	stop := press(t, m, "hello")
	for n := range switches {
		m.apply(t, manifest(n+1))
	}
	p := stop()
	answered, failed, longest := p.counts()
	t.Logf("%d switches%s", switches, p)
	if failed > 0 || answered == 0 {
		t.Errorf("%d switches: %d requests answered, %d failed", switches, answered, failed)
	}
	if longest > 5*time.Second {
		t.Errorf("a request took %s: it waited for a replica that was not there", longest)
	}
	until(t, 30*time.Second, "the replicas of the last revision alone", func() bool { return len(m.processes(t)) == 2 })
}
