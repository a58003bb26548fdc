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

// batch returns an execution with one replica of these containers.
func batch(containers ...resource.Container) runtimes.Execution {
	rev := web(0).Revision
	rev.ID, rev.TargetPort = resource.JobID("s", "g", "batch").Child("executions", "batch-1"), 0
	rev.Template.Containers = containers
	return runtimes.Execution{Revision: rev, Replicas: []string{"batch-1-a"}}
}

func (b *bench) execute(t testing.TB, x runtimes.Execution) {
	t.Helper()
	if err := b.Execute(t.Context(), x); err != nil {
		t.Fatalf("Execute: %v", err)
	}
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
	x := batch(initOf("work", fake.Done))
	b.execute(t, x)
	b.once(t)
	want := []string{"AssigningReplica", "PullingImage", "PulledImage", "ContainerCreated", "ContainerStarted", "ContainerTerminated"}
	if got := b.events.reasons(); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	// As in Azure, where this is a warning even with exit code 0.
	ev := b.events.want(t, "ContainerTerminated", "Container 'work' was terminated with exit code '0' and reason 'ProcessExited'")
	if !ev.Warning || ev.App != x.Revision.App() || ev.Revision != "batch-1" || ev.Replica != "batch-1-a" {
		t.Errorf("want a warning of the job and its execution, got %+v", ev)
	}
	x.Replicas = nil
	b.execute(t, x)
	b.gone(t)
}

// A replica has ended when all its containers have ended.
func TestExecutionWaitsForAllItsContainers(t *testing.T) {
	b := setUp(t, nil)
	b.execute(t, batch(initOf("work", fake.Done), initOf("beside", fake.Echo)))
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
	b.execute(t, batch(initOf("beside", fake.Echo), bad))
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

// An end that a probe caused is a failure, whatever the exit code.
func TestExecutionFailsItsLivenessProbe(t *testing.T) {
	b := setUp(t, nil)
	work := initOf("work", fake.Echo)
	work.Probes = []resource.Probe{{
		Type: resource.Liveness, TCP: &resource.TCPSocket{Port: 9}, Period: time.Second, Timeout: time.Second, FailureThreshold: 1, SuccessThreshold: 1,
	}}
	b.execute(t, batch(work))
	if r := b.once(t); r.State != resource.ReplicaFailed || r.Containers[0].LastExit.Code != 0 || r.Restarts != 0 {
		t.Errorf("want a failure that was ended by SIGTERM and not restarted, got %+v (last exit %+v)", r, r.Containers[0].LastExit)
	}
}

func TestWorkloadsOfTheWrongKind(t *testing.T) {
	b := setUp(t, nil)
	x, w := batch(initOf("work", fake.Done)), web(1)
	x.Revision.ID, w.Revision.ID = w.Revision.ID, x.Revision.ID
	if err := b.Execute(t.Context(), x); err == nil || !strings.Contains(err.Error(), "want a Microsoft.App/") {
		t.Errorf("Execute of a revision: got %v, want a refusal", err)
	}
	if err := b.Apply(t.Context(), w); err == nil || !strings.Contains(err.Error(), "want a Microsoft.App/") {
		t.Errorf("Apply of an execution: got %v, want a refusal", err)
	}
}
