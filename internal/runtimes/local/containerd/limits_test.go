package containerd_test

import (
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// watch returns the events of containers.
func (l *lab) watch() <-chan local.Event {
	l.Helper()
	ch, err := l.driver.Watch(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	return ch
}

func next(t testing.TB, ch <-chan local.Event) local.Event {
	t.Helper()
	select {
	case e, ok := <-ch:
		if !ok {
			t.Fatal("the events have ended")
		}
		if e.Image != "" {
			return next(t, ch) // other tests check pushes
		}
		return e
	case <-time.After(15 * time.Second):
		t.Fatal("waited 15 s for an event")
	}
	return local.Event{}
}

func TestMemoryLimitKillsAndSaysSo(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	events := l.watch()
	const limit = 64 << 20
	r := l.run("hungry", func(_ *local.Sandbox, c *local.Container) { c.Resources.Memory = limit })
	if _, err := r.try("POST", "/eat", url.Values{"mb": {"200"}}); err == nil {
		t.Fatal("200 MiB fitted into 64 MiB")
	}
	e := next(t, events)
	if e.OOM == nil || e.Container != r.id {
		t.Fatalf("first event %+v, want the OOM of %s", e, r.id)
	}
	if e.OOM.Limit != limit || e.OOM.Peak < limit*9/10 || e.OOM.Peak > limit+1<<20 || e.OOM.At.IsZero() {
		t.Errorf("OOM %+v, want limit and peak near %d", *e.OOM, limit)
	}
	if e.OOM.Process != "hello" && kernelLogReadable() {
		t.Errorf("killed process %q, want hello", e.OOM.Process)
	}
	t.Logf("OOM: %+v", *e.OOM)
	e = next(t, events)
	if e.Exit == nil || e.Exit.Code != 137 || !e.Exit.OOM || e.Exit.Reason != "OOMKilled" {
		t.Errorf("second event %+v, want an OOM-killed exit", e.Exit)
	}
}

func kernelLogReadable() bool {
	f, err := os.Open("/dev/kmsg")
	if err != nil {
		return false
	}
	f.Close()
	return true
}

func TestCPUQuotaHolds(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("busy", func(_ *local.Sandbox, c *local.Container) { c.Resources.MilliCPU = 250 })
	before, err := l.driver.Usage(t.Context(), r.name)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r.post("/spin", url.Values{"ms": {"1000"}})
	took := time.Since(start)
	after, err := l.driver.Usage(t.Context(), r.name)
	if err != nil {
		t.Fatal(err)
	}
	used := time.Duration(after.CPUNanos - before.CPUNanos)
	// At each end, the container can use one period of 100 ms in addition to its share of the time.
	if limit := took/4 + 60*time.Millisecond; used > limit || used < 10*time.Millisecond {
		t.Errorf("used %v of CPU in %v, want at most %v", used, took, limit)
	}
}

func TestUsageTellsWhatTheReplicaUses(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("eater", nil)
	before, err := l.driver.Usage(t.Context(), r.name)
	if err != nil {
		t.Fatal(err)
	}
	r.post("/eat", url.Values{"mb": {"32"}})
	after, err := l.driver.Usage(t.Context(), r.name)
	if err != nil {
		t.Fatal(err)
	}
	if grown := int64(after.WorkingSet - before.WorkingSet); grown < 30<<20 || grown > 48<<20 {
		t.Errorf("working set grew by %d for 32 MiB", grown)
	}
	if after.MemoryLimit != 128<<20 || after.MemoryPeak < after.WorkingSet || after.Processes == 0 || after.CPUNanos == 0 {
		t.Errorf("usage %+v", after)
	}
}

func TestDiskLimitHoldsOverRestartsOfTheContainer(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const limit = 64 << 20
	var spec local.Container
	r := l.run("writer", func(s *local.Sandbox, c *local.Container) {
		s.DiskLimit = limit
		c.Image = l.push(nil)
		spec = *c
	})
	r.post("/write", url.Values{"path": {"/tmp/some"}, "mb": {"40"}})
	if _, err := r.try("POST", "/write", url.Values{"path": {"/tmp/more"}, "mb": {"40"}}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("80 MiB into 64 MiB: %v, want no space left", err)
	}
	l.close()
	l.open()
	if err := l.driver.Delete(t.Context(), r.id); err != nil {
		t.Fatal(err)
	}
	if err := l.driver.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if _, err := l.driver.Start(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	r.waitReady()
	// A new container starts with an empty disk and can use all of it.
	r.post("/write", url.Values{"path": {"/tmp/some"}, "mb": {"60"}})
	if _, err := r.try("POST", "/write", url.Values{"path": {"/tmp/more"}, "mb": {"20"}}); err == nil {
		t.Error("80 MiB fitted into 64 MiB")
	}
}

func TestImpossibleResourcesAreRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	image := l.push(nil)
	if _, err := l.driver.CreateSandbox(t.Context(), l.sandbox("r")); err != nil {
		t.Fatal(err)
	}
	c := l.containerOf("r", image)
	c.Resources = resource.Resources{Memory: 1 << 20}
	if err := l.driver.Create(t.Context(), c); err == nil {
		t.Error("created without CPU")
	}
	if err := l.driver.RemoveSandbox(t.Context(), "r"); err != nil {
		t.Error(err)
	}
	if left := l.leftovers(); len(left) != 0 {
		t.Errorf("left of the container that was refused: %q", left)
	}
}
