package local_test

import (
	"slices"
	"strings"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

func initOf(name, image string, vars ...string) resource.Container {
	return resource.Container{Name: name, Image: image, Env: env(vars...), Resources: resource.Resources{MilliCPU: 250, Memory: 1 << 29}}
}

func TestEventsOfInitContainers(t *testing.T) {
	b := setUp(t, nil)
	w := web(1)
	// The first one runs until the test tells it how to end.
	w.Revision.Template.InitContainers = []resource.Container{initOf("first", fake.Echo, "PORT=9090"), initOf("second", fake.Done)}
	b.apply(t, w)
	runs := func(restarts int) resource.Replica {
		return b.until(t, "the first init container", func(list []resource.Replica) bool {
			return len(list) == 1 && list[0].InitContainers[0].Running && list[0].InitContainers[0].Restarts == restarts
		})[0]
	}
	r := runs(0)
	if r.State != resource.ReplicaCreating || r.Reason != "init container 'first' runs" {
		t.Errorf("got %s %q", r.State, r.Reason)
	}
	b.driver.Crash(r.Name, 7)
	if r = runs(1); r.Failures != 1 {
		t.Errorf("want its failure counted, got %+v", r)
	}
	b.driver.Crash(r.Name, 0)
	b.ready(t, 1)
	want := []string{
		"AssigningReplica", "PullingImage", "PulledImage", "PullingImage", "PulledImage", "PullingImage", "PulledImage",
		"ContainerCreated", "ContainerStarted", "ContainerTerminated", // first
		"ContainerCreated", "ContainerStarted", "ContainerTerminated", // and again
		"ContainerCreated", "ContainerStarted", "ContainerTerminated", // second
		"ContainerCreated", "ContainerStarted", "ReplicaReady",
	}
	if got := b.events.reasons(); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if ev := b.events.want(t, "ContainerTerminated", "Container 'first' was terminated with exit code '7' and reason 'ProcessExited'"); !ev.Warning {
		t.Error("want a warning")
	}
	if ev := b.events.want(t, "ContainerTerminated", "Container 'first' was terminated with exit code '0' and reason 'Completed'"); ev.Warning {
		t.Error("a good end: want no warning")
	}
	// Init containers that are done use nothing on the machine.
	b.until(t, "the main container alone", func([]resource.Replica) bool {
		return slices.Equal(left(b.driver), []string{"sandbox " + r.Name + " with 1 containers"})
	})
}

// An init container runs alone, so it uses the memory that its replica was promised for its main containers.
func TestMemoryOfInitContainers(t *testing.T) {
	b := setUp(t, func(c *local.Config) { c.Capacity = local.Capacity{Memory: 1 << 30} })
	w := web(2)
	w.Revision.Template.InitContainers = []resource.Container{initOf("first", fake.Done), initOf("second", fake.Done)}
	b.apply(t, w)
	b.ready(t, 2) // half a GiB each
	w.Revision.ID = w.Revision.App().Child("revisions", "web--0000002")
	w.Revision.Template.InitContainers[1].Resources.Memory = 3 << 29
	if err := b.Apply(t.Context(), w); err == nil || !strings.Contains(err.Error(), "needs 1.5 GiB of memory (init container second)") {
		t.Errorf("got %v, want it refused with the init container that needs so much", err)
	}
}
