package runtimetest

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// ended lists the unacknowledged ends.
func (m *machine) ended(t *testing.T) []runtimes.End {
	t.Helper()
	list, err := m.rt.Ended(t.Context())
	if err != nil {
		t.Fatalf("Ended: %v", err)
	}
	return list
}

func (m *machine) acknowledge(t *testing.T, replicas ...string) {
	t.Helper()
	if err := m.rt.Acknowledge(t.Context(), replicas...); err != nil {
		t.Fatalf("Acknowledge(%q): %v", replicas, err)
	}
}

func endedNames(list []runtimes.End) (names []string) {
	for _, end := range list {
		names = append(names, end.Replica)
	}
	slices.Sort(names)
	return names
}

func testEnds(t *testing.T, m *machine) {
	began := time.Now()
	w := m.workload("web", m.Serve, 3)
	m.apply(t, w)
	all := m.ready(t, w, 3)
	if list := m.ended(t); len(list) != 0 {
		t.Errorf("while all run: want no ends, got %+v", list)
	}
	w.Replicas, w.Retire = 2, []string{all[0].Name}
	told := time.Now()
	m.apply(t, w)
	rest := m.ready(t, w, 2)
	list := m.ended(t)
	if got := endedNames(list); !slices.Equal(got, w.Retire) {
		t.Fatalf("after one has ended: want its end listed, got %q", got)
	}
	end := list[0]
	if end.Revision.Key() != w.Revision.ID.Key() || end.Reason != runtimes.EndScaledIn || !end.Created.Equal(all[0].Created) || !end.Ready.Equal(all[0].ReadySince) {
		t.Errorf("want the end of %+v by %s, got %+v", all[0], runtimes.EndScaledIn, end)
	}
	if times := []time.Time{began, end.Created, end.Started, end.Ready, told, end.Ended, time.Now()}; !slices.IsSortedFunc(times, time.Time.Compare) {
		t.Errorf("want the times of its life in their order, got %v", times)
	}

	// Restarted replicas continue, and end only once.
	m.Crash(t, rest[0])
	m.until(t, w.Revision, "a restart", func(list []resource.Replica) bool {
		return len(list) == 2 && list[0].State == resource.ReplicaReady && list[1].State == resource.ReplicaReady && list[0].Restarts+list[1].Restarts == 1
	})
	m.remove(t, w.Revision)
	m.gone(t, w.Revision)
	list = m.ended(t)
	if got := endedNames(list); !slices.Equal(got, names(all)) {
		t.Errorf("after all have ended: want the ends of %q, got %q", names(all), got)
	}
	for _, end := range list {
		if end.Replica == rest[0].Name && (end.Reason != runtimes.EndRemoved || !end.Ready.Equal(rest[0].ReadySince)) {
			t.Errorf("one that was restarted: want %s and the time at which it was first ready, %s, got %+v", runtimes.EndRemoved, rest[0].ReadySince, end)
		}
	}

	// Unacknowledged ends stay listed, even after a restart of the platform.
	m.stop()
	m.start(t)
	if again := m.ended(t); !reflect.DeepEqual(again, list) {
		t.Errorf("after the platform came back:\ngot  %+v\nwant %+v", again, list)
	}
	m.acknowledge(t, list[0].Replica, "nobody")
	m.acknowledge(t, list[0].Replica)
	m.stop()
	m.start(t)
	if again := m.ended(t); !reflect.DeepEqual(again, list[1:]) {
		t.Errorf("after one was acknowledged and the platform came back:\ngot  %+v\nwant %+v", again, list[1:])
	}
	m.acknowledge(t, endedNames(list)...)
	if again := m.ended(t); len(again) != 0 {
		t.Errorf("after all were acknowledged: got %+v", again)
	}

	// A running replica has no end to acknowledge.
	w.Replicas, w.Retire = 1, nil
	m.apply(t, w)
	running := m.ready(t, w, 1)[0].Name
	m.acknowledge(t, running)
	m.remove(t, w.Revision)
	m.gone(t, w.Revision)
	if got := endedNames(m.ended(t)); !slices.Equal(got, []string{running}) {
		t.Errorf("want the end of %s, got %q", running, got)
	}
}

func testEndsWhileAway(t *testing.T, m *machine) {
	w := m.workload("web", m.Deaf, 1)
	m.apply(t, w)
	r := m.ready(t, w, 1)[0]
	m.remove(t, w.Revision)
	// The platform ends after the engine has told the replica to end, during its grace period.
	if !poll(t, func() bool {
		return m.get(t, r.Address) == 200 && m.replicas(t, w.Revision)[0].State == resource.ReplicaStopping
	}) {
		t.Fatal("the replica was to be in its grace")
	}
	m.stop()
	before := time.Now()
	m.Crash(t, r)
	if !poll(t, func() bool { return m.get(t, r.Address) == 0 }) {
		t.Fatal("the replica was to end and still answers")
	}
	after := time.Now()
	m.start(t)
	m.apply(t, m.workload("web", m.Deaf, 0))
	m.gone(t, w.Revision)
	list := m.ended(t)
	if got := endedNames(list); !slices.Equal(got, []string{r.Name}) {
		t.Fatalf("want the end of %s, once, got %q", r.Name, got)
	}
	// Shims record an end after it has happened, but not after its effects can be seen.
	const slack = 500 * time.Millisecond
	if end := list[0]; end.Ended.Before(before) || end.Ended.After(after.Add(slack)) || !end.Ready.Equal(r.ReadySince) || end.Reason != runtimes.EndRemoved {
		t.Errorf("it ended between %s and %s, for %s: got %+v", before, after, runtimes.EndRemoved, end)
	}
}
