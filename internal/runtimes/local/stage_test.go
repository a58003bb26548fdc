package local_test

import (
	"context"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// Each stage of a start is shown while it lasts, and how long the start took once the replica is ready.
func TestStagesOfAStart(t *testing.T) {
	b := setUp(t, nil)
	pulled, created := make(chan struct{}), make(chan struct{})
	b.driver.pull = func(ctx context.Context) error {
		select {
		case <-pulled:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	b.driver.before(func(local.Container) { <-created })
	w := web(1, env("FAKE_START_DELAY=100ms")...)
	w.Revision.Settings.Progress = true
	stage := func(want resource.Stage) resource.Replica {
		t.Helper()
		return b.until(t, "the stage "+string(want), func(list []resource.Replica) bool { return len(list) == 1 && list[0].Stage == want })[0]
	}
	began := time.Now()
	b.apply(t, w)
	stage(resource.StageQueued)
	close(pulled)
	if r := stage(resource.StagePulled); r.Start != 0 || r.Load != 0 {
		t.Errorf("before it is ready: got a start of %v and a load of %v, want none", r.Start, r.Load)
	}
	close(created)
	stage(resource.StageLoading)
	r := stage(resource.StageReady)
	if all := time.Since(began); r.Start <= 0 || r.Load < 100*time.Millisecond || r.Start+r.Load > all {
		t.Errorf("got a start of %v and a load of %v, want both, the load at least 100ms, and no more than %v together", r.Start, r.Load, all)
	}
}
