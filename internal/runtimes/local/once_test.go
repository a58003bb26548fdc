package local_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/fake"
)

// batch is an execution with one replica of these containers.
func batch(containers ...resource.Container) runtimes.Workload {
	w := web(0)
	w.Revision.ID, w.Revision.TargetPort = resource.JobID("s", "g", "batch").Child("executions", "batch-1"), 0
	w.Revision.Template.Containers = containers
	w.Run = &runtimes.Run{Replicas: []string{"batch-1-a"}}
	return w
}

// once waits until the one replica has ended.
func (b *bench) once(t *testing.T) resource.Replica {
	t.Helper()
	return b.until(t, "the replica's end", func(list []resource.Replica) bool {
		return len(list) == 1 && (list[0].State == resource.ReplicaSucceeded || list[0].State == resource.ReplicaFailed)
	})[0]
}

func TestEventsOfAnExecution(t *testing.T) {
	b := setUp(t, nil)
	w := batch(initOf("work", fake.Done))
	b.apply(t, w)
	b.once(t)
	want := []string{"AssigningReplica", "PullingImage", "PulledImage", "ContainerCreated", "ContainerStarted", "ContainerTerminated"}
	if got := b.events.reasons(); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	// As in Azure, where this is a warning with exit code 0 too.
	ev := b.events.want(t, "ContainerTerminated", "Container 'work' was terminated with exit code '0' and reason 'ProcessExited'")
	if !ev.Warning || ev.App != w.Revision.App() || ev.Revision != "batch-1" || ev.Replica != "batch-1-a" {
		t.Errorf("want a warning of the job and its execution, got %+v", ev)
	}
	w.Run.Replicas = nil
	b.apply(t, w)
	b.gone(t)
}

// A replica has ended when all its containers have.
func TestExecutionWaitsForAllItsContainers(t *testing.T) {
	b := setUp(t, nil)
	b.apply(t, batch(initOf("work", fake.Done), initOf("beside", fake.Echo)))
	r := b.until(t, "one container's end", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].State == resource.ReplicaReady && list[0].Containers[0].LastExit != nil
	})[0]
	if r.Restarts != 0 || !r.Containers[1].Running {
		t.Errorf("want the other running and nothing restarted, got %+v", r)
	}
	b.driver.Crash(r.Name, 5)
	if r = b.once(t); r.State != resource.ReplicaFailed || r.Reason != "container 'beside' ended with exit code 5 (Error)" {
		t.Errorf("got %s %q", r.State, r.Reason)
	}
}

func TestExecutionWhoseContainerNeverStarts(t *testing.T) {
	b := setUp(t, nil)
	bad := initOf("work", fake.Echo, "FAKE_START_ERROR=no such file")
	b.apply(t, batch(initOf("beside", fake.Echo), bad))
	r := b.once(t)
	if r.State != resource.ReplicaFailed || !strings.Contains(r.Reason, "container 'work' cannot be started") || !strings.Contains(r.Reason, "no such file") {
		t.Errorf("got %s %q", r.State, r.Reason)
	}
	if r.Containers[0].Running || r.Containers[1].LastExit == nil || r.Containers[1].LastExit.Code != 128 {
		t.Errorf("want the one beside it ended, and code 128; got %+v", r.Containers)
	}
	tries := 0
	for _, reason := range b.events.reasons() {
		if reason == "ContainerCreateFailure" {
			tries++
		}
	}
	if tries != 3 {
		t.Errorf("want 3 tries to start it, got %d", tries)
	}
}

// An end that a probe asked for is no success, whatever the code.
func TestExecutionFailsItsLivenessProbe(t *testing.T) {
	b := setUp(t, nil)
	work := initOf("work", fake.Echo)
	work.Probes = []resource.Probe{{
		Type: resource.Liveness, TCP: &resource.TCPSocket{Port: 9}, Period: time.Second, Timeout: time.Second, FailureThreshold: 1, SuccessThreshold: 1,
	}}
	b.apply(t, batch(work))
	if r := b.once(t); r.State != resource.ReplicaFailed || r.Containers[0].LastExit.Code != 0 || r.Restarts != 0 {
		t.Errorf("want a failure that was ended by SIGTERM and not restarted, got %+v (last exit %+v)", r, r.Containers[0].LastExit)
	}
}

func TestWorkloadsOfTheWrongKind(t *testing.T) {
	b := setUp(t, nil)
	run, keep := batch(initOf("work", fake.Done)), web(1)
	run.Revision.ID, keep.Revision.ID = keep.Revision.ID, run.Revision.ID
	for name, w := range map[string]runtimes.Workload{"a revision that ends": run, "an execution that is kept": keep} {
		if err := b.Apply(t.Context(), w); err == nil || !strings.Contains(err.Error(), "want a Microsoft.App/") {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}
