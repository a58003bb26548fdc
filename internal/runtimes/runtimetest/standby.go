package runtimetest

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// standby waits for the revision to have no replicas and one ready standby of that kind.
func (m *machine) standby(t *testing.T, rev resource.Revision, kind resource.Standby) runtimes.Standby {
	t.Helper()
	m.gone(t, rev)
	var found runtimes.Standby
	if !poll(t, func() bool {
		list := m.standbys(t, rev)
		if len(list) == 1 {
			found = list[0]
		}
		return len(list) == 1 && found.Kind == kind && found.Ready
	}) {
		t.Fatalf("after %s there is no standby that is %s: %+v", patience, kind, m.standbys(t, rev))
	}
	return found
}

// standbys lists those of one revision.
func (m *machine) standbys(t *testing.T, rev resource.Revision) []runtimes.Standby {
	t.Helper()
	list, err := m.rt.Standbys(t.Context())
	if err != nil {
		t.Fatalf("Standbys: %v", err)
	}
	return slices.DeleteFunc(list, func(s runtimes.Standby) bool { return s.Revision.Key() != rev.ID.Key() })
}

func (m *machine) noStandby(t *testing.T, rev resource.Revision) {
	t.Helper()
	if !poll(t, func() bool { return len(m.standbys(t, rev)) == 0 }) {
		t.Fatalf("after %s there is a standby still: %+v", patience, m.standbys(t, rev))
	}
}

func testStandbyCreated(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 0)
	w.Standby = resource.StandbyCreated
	for range 2 {
		w.Replicas = 0
		m.apply(t, w)
		waits := m.standby(t, w.Revision, resource.StandbyCreated)
		m.apply(t, w)
		if again := m.standby(t, w.Revision, resource.StandbyCreated); again.Replica != waits.Replica {
			t.Errorf("the same Apply again made another standby: %s, then %s", waits.Replica, again.Replica)
		}
		w.Replicas = 1
		before := time.Now()
		m.apply(t, w)
		if list := m.replicas(t, w.Revision); len(list) != 1 || list[0].Name != waits.Replica || list[0].Created.Before(before) {
			t.Errorf("right after the wake: want the replica %s made now, got %s", waits.Replica, describe(list))
		}
		r := m.ready(t, w, 1)[0]
		if r.Stage != resource.StageReady || r.Start <= 0 || r.Load <= 0 || r.Start+r.Load > time.Since(before) {
			t.Errorf("a woken replica: want the times of this start, got %v and %v at stage %q", r.Start, r.Load, r.Stage)
		}
		if r.Created.Before(before) || r.ReadySince.Before(before) || r.Restarts != 0 || r.Failures != 0 {
			t.Errorf("a woken replica: want it to be made and ready since the wake, without a failure, got %+v", r)
		}
		if status := m.get(t, r.Address); status != http.StatusOK {
			t.Errorf("a woken replica: want 200, got %d", status)
		}
		if list := m.standbys(t, w.Revision); len(list) != 0 {
			t.Errorf("beside a replica: want no standby, got %+v", list)
		}
	}
	w.Replicas = 0
	m.apply(t, w)
	m.standby(t, w.Revision, resource.StandbyCreated)
	w.Standby = resource.StandbyNone
	m.apply(t, w)
	m.noStandby(t, w.Revision)
}

func testStandbyPaused(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 2)
	w.Standby = resource.StandbyPaused
	m.apply(t, w)
	running := m.ready(t, w, 2)
	for range 2 {
		w.Replicas, w.Retire = 0, []string{running[0].Name}
		m.apply(t, w)
		waits := m.standby(t, w.Revision, resource.StandbyPaused)
		last := running[len(running)-1]
		if waits.Replica != last.Name {
			t.Errorf("want %s frozen, the last to go, got %s", last.Name, waits.Replica)
		}
		if ends := m.ended(t); slices.ContainsFunc(ends, func(e runtimes.End) bool { return e.Replica == waits.Replica }) {
			t.Errorf("a frozen replica has not ended, got %+v", ends)
		}
		before := time.Now()
		w.Replicas = 1
		m.apply(t, w)
		woken := m.ready(t, w, 1)
		if got, want := identity(woken), identity([]resource.Replica{last}); got != want {
			t.Errorf("after the wake:\ngot  %s\nwant %s, the same process", got, want)
		}
		if r := woken[0]; r.Start <= 0 || r.Load != 0 || r.Start > time.Since(before) {
			t.Errorf("a thawed replica: want a start and no load, got %v and %v", r.Start, r.Load)
		}
		if r := woken[0]; r.ReadySince.Before(before) || r.Created.Before(before) || r.Restarts != 0 {
			t.Errorf("a thawed replica: want it to be made and ready since the wake, got %+v", r)
		}
		if status := m.get(t, woken[0].Address); status != http.StatusOK {
			t.Errorf("a thawed replica: want 200, got %d", status)
		}
		running = woken
	}
	w.Replicas = 0
	m.apply(t, w)
	waits := m.standby(t, w.Revision, resource.StandbyPaused)
	m.remove(t, w.Revision)
	m.gone(t, w.Revision)
	m.noStandby(t, w.Revision)
	if ends := m.ended(t); !slices.ContainsFunc(ends, func(e runtimes.End) bool { return e.Replica == waits.Replica }) {
		t.Errorf("a frozen replica that was removed has ended, got %+v", ends)
	}
}

func testStandbyCrash(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 1)
	w.Standby = resource.StandbyPaused
	m.apply(t, w)
	running := m.ready(t, w, 1)
	w.Replicas = 0
	m.apply(t, w)
	m.standby(t, w.Revision, resource.StandbyPaused)
	m.Crash(t, running[0])
	// It may be seen now, and then another is made that does not run, or at the wake.
	w.Replicas = 1
	m.apply(t, w)
	var r resource.Replica
	m.until(t, w.Revision, "a replica that answers", func(list []resource.Replica) bool {
		if len(list) != 1 || list[0].State != resource.ReplicaReady || list[0].Containers[0].PID == running[0].Containers[0].PID {
			return false
		}
		r = list[0]
		return true
	})
	if status := m.get(t, r.Address); status != http.StatusOK {
		t.Errorf("want 200, got %d", status)
	}
}

func testStandbyAdopt(t *testing.T, m *machine) {
	for _, kind := range []resource.Standby{resource.StandbyCreated, resource.StandbyPaused} {
		w := m.workload("web"+string(kind), m.Serve, 1)
		w.Standby = kind
		m.apply(t, w)
		before := identity(m.ready(t, w, 1))
		w.Replicas = 0
		m.apply(t, w)
		waits := m.standby(t, w.Revision, kind)
		m.stop()
		m.start(t)
		if list := m.replicas(t, w.Revision); len(list) != 0 {
			t.Errorf("%s: the platform comes back: want no replicas, got %s", kind, describe(list))
		}
		m.apply(t, w)
		if again := m.standby(t, w.Revision, kind); again.Replica != waits.Replica {
			t.Errorf("%s: want the standby %s after the platform comes back, got %s", kind, waits.Replica, again.Replica)
		}
		m.stop()
		m.start(t)
		w.Replicas = 1
		m.apply(t, w) // at once
		list := m.ready(t, w, 1)
		if list[0].Name != waits.Replica {
			t.Errorf("%s: want %s woken, got %s", kind, waits.Replica, list[0].Name)
		}
		if after := identity(list); kind == resource.StandbyPaused && after != before {
			t.Errorf("the wake after the platform came back:\ngot  %s\nwant %s", after, before)
		}
		after := identity(list)
		m.stop()
		m.start(t)
		m.apply(t, w)
		if again := identity(m.ready(t, w, 1)); again != after {
			t.Errorf("%s: a woken replica is kept when the platform comes back:\ngot  %s\nwant %s", kind, again, after)
		}
	}
}

func testStandbyChanged(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 0)
	w.Standby = resource.StandbyCreated
	m.apply(t, w)
	first := m.standby(t, w.Revision, resource.StandbyCreated)
	w.Env = []resource.EnvVar{{Name: "CONTRACT", Value: "later"}}
	m.apply(t, w)
	if second := m.standby(t, w.Revision, resource.StandbyCreated); second.Replica == first.Replica {
		t.Errorf("after another environment: want another standby than %s", first.Replica)
	}
	w.Env = nil
	w.Replicas = 1
	m.apply(t, w)
	m.ready(t, w, 1)
	m.noStandby(t, w.Revision)
}

func testStandbyBudget(t *testing.T, m *machine) {
	var all []runtimes.Workload
	for i := range m.Standbys + 1 {
		w := m.workload(fmt.Sprintf("web%d", i), m.Serve, 0)
		w.Standby = resource.StandbyCreated
		m.apply(t, w)
		m.standby(t, w.Revision, resource.StandbyCreated)
		all = append(all, w)
	}
	m.noStandby(t, all[0].Revision)
	// One that is used is the latest after it, and the first but one has to go.
	all[0].Replicas = 1
	m.apply(t, all[0])
	m.ready(t, all[0], 1)
	all[0].Replicas = 0
	m.apply(t, all[0])
	m.standby(t, all[0].Revision, resource.StandbyCreated)
	m.noStandby(t, all[1].Revision)
	// There is room again when another goes.
	m.remove(t, all[2].Revision)
	m.gone(t, all[2].Revision)
	m.apply(t, all[1])
	m.standby(t, all[1].Revision, resource.StandbyCreated)
}

func testStandbyMemory(t *testing.T, m *machine) {
	if m.Memory == 0 {
		t.Skip("this machine promises without a bound")
	}
	large := func(name string, n int) runtimes.Workload {
		w := m.workload(name, m.Serve, n)
		w.Revision.Template.Containers[0].Resources.Memory = m.Memory * 2 / 3
		return w
	}
	a := large("a", 1)
	a.Standby = resource.StandbyCreated
	b := large("b", 1)
	m.apply(t, b)
	m.ready(t, b, 1)
	a.Replicas = 0
	m.apply(t, a)
	m.standby(t, a.Revision, resource.StandbyCreated) // it takes no memory
	a.Replicas = 1
	m.apply(t, a)
	m.until(t, a.Revision, "a replica that waits for memory", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].State == resource.ReplicaWaiting
	})
	b.Standby, b.Replicas = resource.StandbyPaused, 0
	m.apply(t, b) // it keeps its memory, until another needs it
	m.ready(t, a, 1)
	m.gone(t, b.Revision)
}
