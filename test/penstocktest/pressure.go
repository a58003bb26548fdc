package penstocktest

import (
	"os"
	"strconv"
	"testing"
	"time"

	"penstock/internal/bench/rollout"
)

// LongestRequest is what a request may take while replicas or roles change. A request that waits for a replica that does
// not exist runs into the load's time limit of 30 s; a request on a busy machine takes a few seconds.
const LongestRequest = 15 * time.Second

// Press starts a load on an app, and returns what ends it and says how it went.
func (m *Machine) Press(t *testing.T, app string) (stop func() *rollout.Pressure) {
	t.Helper()
	p, err := rollout.Press(t.Context(), rollout.Target{Address: "127.0.0.1:" + strconv.Itoa(m.Status.HTTPPort), Host: app + ".penstock.localhost"})
	if err != nil {
		t.Fatal(err)
	}
	Until(t, time.Minute, "open event streams", func() bool {
		m.ReadStatus(t)
		return m.Status.InFlight >= rollout.Streams
	})
	return func() *rollout.Pressure {
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
		return p
	}
}

// Times returns how often something is done: as the environment variable says, or few times.
func Times(variable string, few int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return few
}
