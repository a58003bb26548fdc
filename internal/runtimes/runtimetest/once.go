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

// execution returns an execution of a job with replicas of these names.
func (m *machine) execution(job, image string, replicas ...string) runtimes.Execution {
	rev := m.workload(job, image, 0).Revision
	rev.ID, rev.TargetPort = resource.JobID(rev.ID.Subscription, rev.ID.Group, job).Child("executions", job+"-0000001"), 0
	return runtimes.Execution{Revision: rev, Replicas: replicas}
}

func (m *machine) execute(t *testing.T, x runtimes.Execution) {
	t.Helper()
	if err := m.rt.Execute(t.Context(), x); err != nil {
		t.Fatalf("Execute(%s, replicas %q): %v", x.Revision.Name(), x.Replicas, err)
	}
}

// over waits until all replicas of an execution have ended, and returns them by name.
func (m *machine) over(t *testing.T, x runtimes.Execution) []resource.Replica {
	t.Helper()
	n := len(x.Replicas)
	return m.until(t, x.Revision, fmt.Sprintf("the end of %d replicas", n), func(list []resource.Replica) bool {
		return len(list) == n && !slices.ContainsFunc(list, func(r resource.Replica) bool { return !hasEnded(r) })
	})
}

func hasEnded(r resource.Replica) bool {
	return r.State == resource.ReplicaSucceeded || r.State == resource.ReplicaFailed
}

// answers waits until a replica answers. It then handles SIGTERM too.
func (m *machine) answers(t *testing.T, rev resource.Revision) resource.Replica {
	t.Helper()
	return m.until(t, rev, "a replica that answers", func(list []resource.Replica) bool {
		return len(list) > 0 && list[0].Address.IsValid() && len(list[0].Containers) > 0 && list[0].Containers[0].Running &&
			m.get(t, list[0].Address) == http.StatusOK
	})[0]
}

func testOnce(t *testing.T, m *machine) {
	good, bad := m.execution("good", m.Done, "good-1", "good-2"), m.execution("bad", m.Exit, "bad-1")
	good.Revision.Template.InitContainers = initContainers(m.Done)
	m.execute(t, good)
	m.execute(t, bad)
	before := m.over(t, good)
	if got := names(before); !slices.Equal(got, good.Replicas) {
		t.Errorf("want the replicas %v, got %v", good.Replicas, got)
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
	// A replica that has ended is not run again, and does not delay others.
	good.Replicas = append(good.Replicas, "good-3")
	m.execute(t, good)
	after := m.over(t, good)
	for i, r := range before {
		if !after[i].Containers[0].Started.Equal(r.Containers[0].Started) {
			t.Errorf("%s ran twice: %s and %s", r.Name, r.Containers[0].Started, after[i].Containers[0].Started)
		}
	}
	good.Replicas = []string{"good-3"}
	m.execute(t, good)
	m.until(t, good.Revision, "good-3 alone", func(list []resource.Replica) bool { return slices.Equal(names(list), good.Replicas) })

	good.Replicas, good.Begun = []string{"good-3", "good-4"}, []string{"good-3", "good-4"}
	m.execute(t, good)
	if got := names(m.replicas(t, good.Revision)); !slices.Equal(got, []string{"good-3"}) {
		t.Errorf("begun before and gone: want only good-3, got %v", got)
	}
	taken := m.execution("other", m.Done, "good-3")
	if err := m.rt.Execute(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "good-3") {
		t.Errorf("a name of another execution: want it refused by name, got %v", err)
	}
	m.remove(t, good.Revision)
	m.gone(t, good.Revision)
}

func testOnceFails(t *testing.T, m *machine) {
	first := m.execution("first", m.Done, "first-1")
	first.Revision.Template.InitContainers = initContainers(m.Exit)
	missing := m.execution("missing", m.Missing, "missing-1")
	m.execute(t, first)
	m.execute(t, missing)
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
	polite.Timeout, deaf.Timeout = 500*time.Millisecond, 100*time.Millisecond
	deaf.Revision.Template.Grace = 200 * time.Millisecond
	m.execute(t, polite)
	m.execute(t, deaf)
	for _, x := range []runtimes.Execution{polite, deaf} {
		r := m.over(t, x)[0]
		c := r.Containers[0]
		if ran := c.LastExit.At.Sub(c.Started); ran < x.Timeout {
			t.Errorf("%s ended after %s, want not before %s", r.Name, ran, x.Timeout)
		}
		if r.State != resource.ReplicaFailed || !strings.Contains(r.Reason, x.Timeout.String()) {
			t.Errorf("want a failure that names the limit, got %s", describe([]resource.Replica{r}))
		}
	}
}

func testOnceAdopt(t *testing.T, m *machine) {
	done, runs, dies := m.execution("done", m.Done, "done-1"), m.execution("runs", m.Serve, "runs-1"), m.execution("dies", m.Serve, "dies-1")
	for _, x := range []runtimes.Execution{done, runs, dies} {
		m.execute(t, x)
	}
	ended := m.over(t, done)[0]
	victim := m.answers(t, dies.Revision)
	m.answers(t, runs.Revision)
	before := identity(m.replicas(t, runs.Revision))
	m.stop()
	m.Crash(t, victim)
	if !poll(t, func() bool { return m.get(t, victim.Address) == 0 }) {
		t.Fatal("the replica was to crash and still answers")
	}
	m.start(t)
	for _, x := range []runtimes.Execution{done, runs, dies} {
		m.execute(t, x)
	}
	r := m.over(t, done)[0]
	if last := r.Containers[0].LastExit; r.State != resource.ReplicaSucceeded || last.Code != 0 || !last.At.Equal(ended.Containers[0].LastExit.At) {
		t.Errorf("want its success known and it not run again, got %s (last exit %+v)", describe([]resource.Replica{r}), last)
	}
	m.answers(t, runs.Revision)
	if after := identity(m.replicas(t, runs.Revision)); after != before {
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
	for _, x := range []runtimes.Execution{first, second} {
		x.Revision.Template.Containers[0].Resources.Memory = m.Memory/2 + 1
		m.execute(t, x)
		if x.Revision.ID == first.Revision.ID {
			m.answers(t, first.Revision)
		}
	}
	m.until(t, second.Revision, "waiting for memory", func(list []resource.Replica) bool {
		return len(list) == 2 && list[0].State == resource.ReplicaWaiting && list[1].State == resource.ReplicaWaiting
	})
	m.remove(t, first.Revision)
	m.over(t, second) // one after the other, while the first is still listed
}
