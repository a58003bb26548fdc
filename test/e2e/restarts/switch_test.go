package restarts_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// Revision after revision takes over under load, and no request is lost. PENSTOCK_SWITCHES sets how many.
func TestRevisionSwitchesLoseNothing(t *testing.T) {
	switches := penstocktest.Times("PENSTOCK_SWITCHES", 10)
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	manifest := func(n int) string {
		return strings.Replace(penstocktest.Hello("hello", 2), "image: hello:1", fmt.Sprintf("image: hello:1\n        env: [{name: N, value: \"%d\"}]", n), 1)
	}
	m.Apply(t, manifest(0))
	stop := m.Press(t, "hello")
	for n := range switches {
		m.Apply(t, manifest(n+1))
	}
	p := stop()
	answered, failed, longest := p.Counts()
	t.Logf("%d switches%s", switches, p)
	if failed > 0 || answered == 0 {
		t.Errorf("%d switches: %d requests answered, %d failed", switches, answered, failed)
	}
	if longest > penstocktest.LongestRequest {
		t.Errorf("a request took %s: it waited for a replica that was not there", longest)
	}
	penstocktest.Until(t, time.Minute, "the replicas of the last revision alone", func() bool { return len(m.Processes(t)) == 2 })
}
