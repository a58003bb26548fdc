package runtimetest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// execution is one of a job of that name, with these replicas, or as many as nobody named.
func (m *machine) execution(job, image string, replicas ...string) runtimes.Workload {
	w := m.workload(job, image, 0)
	id := resource.JobID(w.Revision.ID.Subscription, w.Revision.ID.Group, job)
	w.Revision.ID, w.Revision.TargetPort = id.Child("executions", job+"-0000001"), 0
	w.Run = &runtimes.Run{Replicas: replicas}
	return w
}

// over waits until all replicas of an execution have ended, and returns them by name.
func (m *machine) over(t *testing.T, w runtimes.Workload) []resource.Replica {
	t.Helper()
	n := len(w.Run.Replicas)
	return m.until(t, w, fmt.Sprintf("the end of %d replicas", n), func(list []resource.Replica) bool {
		return len(list) == n && !slices.ContainsFunc(list, func(r resource.Replica) bool { return !hasEnded(r) })
	})
}

func hasEnded(r resource.Replica) bool {
	return r.State == resource.ReplicaSucceeded || r.State == resource.ReplicaFailed
}

// answers waits until a replica answers: then it takes notice of SIGTERM too.
func (m *machine) answers(t *testing.T, w runtimes.Workload) resource.Replica {
	t.Helper()
	return m.until(t, w, "a replica that answers", func(list []resource.Replica) bool {
		return len(list) > 0 && list[0].Address.IsValid() && len(list[0].Containers) > 0 && list[0].Containers[0].Running &&
			m.get(t, list[0].Address) == http.StatusOK
	})[0]
}

func testOnce(t *testing.T, m *machine) {
	good, bad := m.withInit(m.execution("good", m.Done, "good-1", "good-2"), m.Done), m.execution("bad", m.Exit, "bad-1")
	m.apply(t, good)
	m.apply(t, bad)
	before := m.over(t, good)
	if got := names(before); !slices.Equal(got, good.Run.Replicas) {
		t.Errorf("want the replicas %v, got %v", good.Run.Replicas, got)
	}
	for _, r := range before {
		last := r.Containers[0].LastExit
		if r.State != resource.ReplicaSucceeded || r.Reason != "" || last == nil || last.Code != 0 || r.Restarts != 0 || r.Containers[0].Running {
			t.Errorf("want a success and nothing restarted, got %s (last exit %+v)", describe([]resource.Replica{r}), last)
		}
		if first := r.InitContainers[0]; !first.Done || first.LastExit.At.After(r.Containers[0].Started) {
			t.Errorf("want its init container done before, got %+v", first)
		}
	}
	r := m.over(t, bad)[0]
	if last := r.Containers[0].LastExit; r.State != resource.ReplicaFailed || last == nil || last.Code != 3 || r.Restarts != 0 || !strings.Contains(r.Reason, "exit code 3") {
		t.Errorf("want a failure with code 3 and nothing restarted, got %s (last exit %+v)", describe([]resource.Replica{r}), last)
	}
	// What has ended is not run again, and makes no way for others.
	good.Run.Replicas = append(good.Run.Replicas, "good-3")
	m.apply(t, good)
	after := m.over(t, good)
	for i, r := range before {
		if !after[i].Containers[0].Started.Equal(r.Containers[0].Started) {
			t.Errorf("%s ran twice: %s and %s", r.Name, r.Containers[0].Started, after[i].Containers[0].Started)
		}
	}
	good.Run.Replicas = []string{"good-3"}
	m.apply(t, good)
	m.until(t, good, "good-3 alone", func(list []resource.Replica) bool { return slices.Equal(names(list), good.Run.Replicas) })

	good.Run.Replicas, good.Run.Begun = []string{"good-3", "good-4"}, []string{"good-3", "good-4"}
	m.apply(t, good)
	if got := names(m.replicas(t, good)); !slices.Equal(got, []string{"good-3"}) {
		t.Errorf("begun before and gone: want only good-3, got %v", got)
	}
	taken := m.execution("other", m.Done, "good-3")
	if err := m.rt.Apply(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "good-3") {
		t.Errorf("a name of another execution: want it refused by name, got %v", err)
	}
	m.remove(t, good)
	m.gone(t, good)
}

func testOnceFails(t *testing.T, m *machine) {
	first := m.withInit(m.execution("first", m.Done, "first-1"), m.Exit)
	missing := m.execution("missing", m.Missing, "missing-1")
	m.apply(t, first)
	m.apply(t, missing)
	r := m.over(t, first)[0]
	if r.State != resource.ReplicaFailed || !r.Containers[0].Started.IsZero() || r.InitContainers[0].Done {
		t.Errorf("an init container failed: want a failure and nothing behind it started, got %s", describe([]resource.Replica{r}))
	}
	r = m.over(t, missing)[0]
	if r.State != resource.ReplicaFailed || !strings.Contains(r.Reason, "image") {
		t.Errorf("no image: want a failure that says so, got %s", describe([]resource.Replica{r}))
	}
}

func testOnceTimeout(t *testing.T, m *machine) {
	polite, deaf := m.execution("polite", m.Serve, "polite-1"), m.execution("deaf", m.Deaf, "deaf-1")
	polite.Run.Timeout, deaf.Run.Timeout = 500*time.Millisecond, 100*time.Millisecond
	deaf.Revision.Template.Grace = 200 * time.Millisecond
	m.apply(t, polite)
	m.apply(t, deaf)
	for _, w := range []runtimes.Workload{polite, deaf} {
		r := m.over(t, w)[0]
		c := r.Containers[0]
		if ran := c.LastExit.At.Sub(c.Started); ran < w.Run.Timeout {
			t.Errorf("%s ended after %s, want not before %s", r.Name, ran, w.Run.Timeout)
		}
		if r.State != resource.ReplicaFailed || !strings.Contains(r.Reason, w.Run.Timeout.String()) {
			t.Errorf("want a failure that names the limit, got %s", describe([]resource.Replica{r}))
		}
	}
}

func testOnceAdopt(t *testing.T, m *machine) {
	done, runs, dies := m.execution("done", m.Done, "done-1"), m.execution("runs", m.Serve, "runs-1"), m.execution("dies", m.Serve, "dies-1")
	for _, w := range []runtimes.Workload{done, runs, dies} {
		m.apply(t, w)
	}
	ended := m.over(t, done)[0]
	victim := m.answers(t, dies)
	m.answers(t, runs)
	before := identity(m.replicas(t, runs))
	m.stop()
	m.Crash(t, victim)
	if !poll(t, func() bool { return m.get(t, victim.Address) == 0 }) {
		t.Fatal("the replica was to crash and still answers")
	}
	m.start(t)
	for _, w := range []runtimes.Workload{done, runs, dies} {
		m.apply(t, w)
	}
	r := m.over(t, done)[0]
	if last := r.Containers[0].LastExit; r.State != resource.ReplicaSucceeded || last.Code != 0 || !last.At.Equal(ended.Containers[0].LastExit.At) {
		t.Errorf("want its success known and it not run again, got %s (last exit %+v)", describe([]resource.Replica{r}), last)
	}
	m.answers(t, runs)
	if after := identity(m.replicas(t, runs)); after != before {
		t.Errorf("want it adopted:\ngot  %s\nwant %s", after, before)
	}
	if r := m.over(t, dies)[0]; r.State != resource.ReplicaFailed || r.Restarts != 0 {
		t.Errorf("ended while the platform was away: want a failure, not a restart; got %s", describe([]resource.Replica{r}))
	}
}

func testOnceMemory(t *testing.T, m *machine) {
	if m.Memory == 0 {
		t.Skip("this machine bounds no memory")
	}
	first, second := m.execution("first", m.Serve, "first-1"), m.execution("second", m.Done, "second-1", "second-2")
	for _, w := range []runtimes.Workload{first, second} {
		w.Revision.Template.Containers[0].Resources.Memory = m.Memory/2 + 1
		m.apply(t, w)
		if w.Revision.ID == first.Revision.ID {
			m.answers(t, first)
		}
	}
	m.until(t, second, "waiting for memory", func(list []resource.Replica) bool {
		return len(list) == 2 && list[0].State == resource.ReplicaWaiting && list[1].State == resource.ReplicaWaiting
	})
	m.remove(t, first)
	m.over(t, second) // one after the other, the first still listed
}
