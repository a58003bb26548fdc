package local_test

import (
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
	"penstock/internal/runtimes/runtimetest"
)

// quick is a backoff for tests: short enough not to slow them down, and long enough to be distinguished from none.
var quick = local.Backoff{First: 20 * time.Millisecond, Max: 100 * time.Millisecond, Reset: time.Hour}

func TestContract(t *testing.T) {
	runtimetest.Run(t, func(t testing.TB) *runtimetest.Subject {
		const memory = 1 << 30
		d := fake.New(fake.Options{})
		t.Cleanup(d.Close)
		replicas := t.TempDir()
		return &runtimetest.Subject{
			Start: func(t testing.TB) (runtimes.Runtime, func()) {
				return start(t, local.Config{Driver: d, Backoff: quick, Capacity: local.Capacity{Memory: memory}, Standbys: 2, Replicas: replicas})
			},
			Serve: fake.Echo, Deaf: fake.Deaf, Exit: fake.Exit, Done: fake.Done, Write: fake.Write, Missing: "fake/none", Port: 8080,
			Crash:  func(_ testing.TB, r resource.Replica) { d.Crash(r.Name, 1) },
			Left:   func() []string { return left(d) },
			Memory: memory, Standbys: 2,
		}
	})
}
