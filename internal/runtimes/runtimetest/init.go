package runtimetest

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// withInit returns a workload with init containers of these images, named first, second ...
func (m *machine) withInit(w runtimes.Workload, images ...string) runtimes.Workload {
	w.Revision.Template.InitContainers = initContainers(images...)
	return w
}

func initContainers(images ...string) []resource.Container {
	var list []resource.Container
	for i, image := range images {
		list = append(list, resource.Container{
			Name: []string{"first", "second", "third"}[i], Image: image, Resources: resource.Resources{MilliCPU: 250, Memory: small},
		})
	}
	return list
}

func testInit(t *testing.T, m *machine) {
	w := m.withInit(m.workload("web", m.Serve, 1), m.Done, m.Done)
	m.apply(t, w)
	r := m.ready(t, w, 1)[0]
	if len(r.InitContainers) != 2 || r.InitContainers[0].Name != "first" || r.InitContainers[1].Name != "second" {
		t.Fatalf("want the init containers first and second, got %+v", r.InitContainers)
	}
	for _, c := range r.InitContainers {
		if c.Running || !c.Done || c.LastExit == nil || c.LastExit.Code != 0 || c.LastExit.Reason != "Completed" || c.Restarts != 0 {
			t.Errorf("init container %s: want it ended with code 0 as Completed and never restarted, got %+v (last exit %+v)", c.Name, c, c.LastExit)
		}
	}
	first, second, main := r.InitContainers[0], r.InitContainers[1], r.Containers[0]
	if first.LastExit.At.After(second.Started) || second.LastExit.At.After(main.Started) {
		t.Errorf("want one after the other, got first %s to %s, second %s to %s, main from %s",
			first.Started, first.LastExit.At, second.Started, second.LastExit.At, main.Started)
	}
	if r.Restarts != 0 || r.Failures != 0 {
		t.Errorf("want no restarts and no failures, got %+v", r)
	}
	m.Crash(t, r)
	r = m.until(t, w.Revision, "a restart", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].Restarts > 0 && list[0].State == resource.ReplicaReady
	})[0]
	if again := r.InitContainers[0]; again.Restarts != 0 || !again.Started.Equal(first.Started) {
		t.Errorf("a container was restarted: want init containers not to run again, got %+v", again)
	}
}

func testInitFails(t *testing.T, m *machine) {
	w := m.withInit(m.workload("web", m.Serve, 1), m.Done, m.Exit, m.Done)
	m.apply(t, w)
	r := m.until(t, w.Revision, "a third failed start", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].Failures >= 3
	})[0]
	if last := r.InitContainers[1].LastExit; last == nil || last.Code != 3 || r.InitContainers[1].Restarts < 2 || r.InitContainers[1].Done {
		t.Errorf("want it restarted after ends with code 3, got %+v", r.InitContainers[1])
	}
	if !r.InitContainers[0].Done || r.InitContainers[0].Restarts != 0 {
		t.Errorf("want the one before it done once, got %+v", r.InitContainers[0])
	}
	for _, c := range []resource.ContainerStatus{r.InitContainers[2], r.Containers[0]} {
		if c.Running || !c.Started.IsZero() || c.LastExit != nil {
			t.Errorf("want nothing behind it started, got %+v", c)
		}
	}
}

func testInitRuns(t *testing.T, m *machine) {
	w := m.withInit(m.workload("web", m.Serve, 1), m.Serve) // it does not end by itself
	m.apply(t, w)
	r := m.until(t, w.Revision, "an init container that runs", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].InitContainers[0].Running
	})[0]
	if r.State != resource.ReplicaCreating || r.Reason == "" || r.Containers[0].Running {
		t.Errorf("want the replica %s with a reason, got %s", resource.ReplicaCreating, describe([]resource.Replica{r}))
	}
	// The kernel drops a SIGTERM to the first process of a container until the process handles the signal.
	if !poll(t, func() bool { return m.get(t, r.Address) == http.StatusOK }) {
		t.Fatal("the init container never answered")
	}
	began := time.Now()
	m.remove(t, w.Revision)
	m.gone(t, w.Revision)
	if took := time.Since(began); took >= w.Revision.Template.Grace {
		t.Errorf("ended after %s, want it on SIGTERM", took)
	}
}

func testInitAdopt(t *testing.T, m *machine) {
	done := m.withInit(m.workload("done", m.Serve, 1), m.Done)
	runs := m.withInit(m.workload("runs", m.Serve, 1), m.Done, m.Serve)
	m.apply(t, done)
	m.apply(t, runs)
	before := identity(m.ready(t, done, 1))
	m.until(t, runs.Revision, "the second init container", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].InitContainers[1].Running
	})
	m.stop()
	m.start(t)
	after := m.ready(t, done, 1)
	if got := identity(after); got != before || !after[0].InitContainers[0].Done {
		t.Errorf("want %s with its init container done, got %s", before, describe(after))
	}
	r := m.replicas(t, runs.Revision)[0]
	if !r.InitContainers[0].Done || !r.InitContainers[1].Running || slices.ContainsFunc(r.Containers, func(c resource.ContainerStatus) bool { return c.Running }) {
		t.Errorf("want the first init container done and the second running, got %+v", r.InitContainers)
	}
}
