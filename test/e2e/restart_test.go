package e2e_test

import (
	"strings"
	"testing"
	"time"
)

// Restart after restart under load, and no request is lost. PENSTOCK_RESTARTS sets how many.
func TestRestartsLoseNothing(t *testing.T) {
	restarts := times("PENSTOCK_RESTARTS", 10)
	m := bootMachine(t)
	m.image(t, "hello")
	m.apply(t, strings.Replace(helloManifest, "minReplicas: 20, maxReplicas: 20", "minReplicas: 2, maxReplicas: 2", 1))
	stop := press(t, m, "hello")
	for range restarts {
		before := m.processes(t)
		m.must(t, "app", "restart", "hello")
		until(t, 30*time.Second, "two new replicas and no old one", func() bool {
			now := m.processes(t)
			for name := range now {
				if _, old := before[name]; old {
					return false
				}
			}
			return len(now) == 2
		})
	}
	p := stop()
	answered, failed, _ := p.counts()
	t.Logf("%d restarts%s", restarts, p)
	if failed > 0 || answered == 0 {
		t.Errorf("%d restarts: %d requests answered, %d failed", restarts, answered, failed)
	}
}
