package restarts_test

import (
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// Restart after restart under load, and no request is lost. PENSTOCK_RESTARTS sets how many.
func TestRestartsLoseNothing(t *testing.T) {
	restarts := penstocktest.Times("PENSTOCK_RESTARTS", 10)
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	m.Apply(t, penstocktest.Hello("hello", 2))
	stop := m.Press(t, "hello")
	for range restarts {
		before := m.Processes(t)
		m.Must(t, "app", "restart", "hello")
		penstocktest.Until(t, time.Minute, "two new replicas and no old one", func() bool {
			now := m.Processes(t)
			for name := range now {
				if _, old := before[name]; old {
					return false
				}
			}
			return len(now) == 2
		})
	}
	p := stop()
	answered, failed, _ := p.Counts()
	t.Logf("%d restarts%s", restarts, p)
	if failed > 0 || answered == 0 {
		t.Errorf("%d restarts: %d requests answered, %d failed", restarts, answered, failed)
	}
}
