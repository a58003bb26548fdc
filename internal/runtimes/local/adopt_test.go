package local_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

func TestAdoptionTellsSo(t *testing.T) {
	b := setUp(t, nil)
	w := web(1)
	b.apply(t, w)
	before := b.ready(t, 1)[0]
	b.events.list = nil
	b.restart(t, nil)
	b.ready(t, 1)
	ev := b.events.want(t, "ReplicaAdopted", "Container 'main' was found running and is kept (process ")
	if ev.Replica != before.Name || ev.App.Name != "web" {
		t.Errorf("got %+v", ev)
	}
	if got, want := b.events.reasons(), []string{"ReplicaAdopted", "ReplicaReady"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The memory of adopted replicas counts as promised, even if the machine could not promise it.
func TestAdoptedMemoryCounts(t *testing.T) {
	b := setUp(t, nil)
	w := web(2)
	b.apply(t, w)
	b.ready(t, 2)
	b.restart(t, func(c *local.Config) { c.Capacity = local.Capacity{Memory: 1 << 29} })
	b.ready(t, 2)
	w.Replicas = 3
	b.apply(t, w)
	b.until(t, "a third that waits", func(list []resource.Replica) bool {
		n := count(list)
		return n[resource.ReplicaReady] == 2 && n[resource.ReplicaWaiting] == 1
	})
}

// A process of the platform may end at any point of a start.
func TestHalfMadeReplicasAreFinished(t *testing.T) {
	tests := map[string]func(*testing.T, *spy, local.Container){
		"only the sandbox": func(t *testing.T, d *spy, c local.Container) {
			if err := d.Delete(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
		},
		"a container that was not started": func(t *testing.T, d *spy, c local.Container) {
			if err := d.Delete(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
			if err := d.Driver.Create(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, halve := range tests {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, nil)
			w := web(1)
			b.apply(t, w)
			before := b.ready(t, 1)[0]
			b.stop()
			halve(t, b.driver, b.driver.created()[0])
			b.restart(t, nil)
			after := b.ready(t, 1)[0]
			if after.Name != before.Name || after.Address != before.Address || after.Restarts != 0 {
				t.Errorf("want %s at %s without a restart, got %+v", before.Name, before.Address, after)
			}
			b.remove(t, w)
			b.gone(t)
		})
	}
}

func TestAStrayIsLeftAlone(t *testing.T) {
	b := setUp(t, nil)
	b.stop()
	makeStray(t, b.driver.Driver, []byte("no record"))
	b.restart(t, func(c *local.Config) { c.Capacity = local.Capacity{Memory: 1 << 30} })
	list := b.list(t)
	if len(list) != 1 || list[0].Name != "stray" || list[0].State == resource.ReplicaReady || list[0].Reason == "" || !list[0].Containers[0].Running {
		t.Fatalf("want the stray listed with a reason and not ready, got %+v", list)
	}
	if ev := b.events.want(t, "ReplicaNotAdopted", "Replica 'stray' cannot be adopted and is left as it is"); !ev.Warning {
		t.Error("want a warning")
	}
	b.apply(t, web(2)) // the limit of half a GiB has room for one
	b.until(t, "one that waits for the stray's memory", func(list []resource.Replica) bool {
		return slices.ContainsFunc(list, func(r resource.Replica) bool { return strings.Contains(r.Reason, "stray 0.5 GiB") })
	})
	b.remove(t, web(0))
	b.until(t, "the stray alone", func(list []resource.Replica) bool { return len(list) == 1 })
	if got := left(b.driver); !slices.Equal(got, []string{"sandbox stray with 1 containers"}) {
		t.Errorf("on the machine: %q", got)
	}
}

// Since the first version, a record has the status of its revision in the same JSON object. Replicas survive an
// upgrade.
func TestRecordOfTheVersionBeforeIsAdopted(t *testing.T) {
	b := setUp(t, nil)
	b.stop()
	makeStray(t, b.driver.Driver, []byte(`{"Version":1,"Created":"2026-11-30T21:27:59.7Z","Revision":{
		"ID":"/subscriptions/s/resourceGroups/g/providers/Microsoft.App/containerApps/web/revisions/web--0000001",
		"Environment":"/subscriptions/s/resourceGroups/g/providers/Microsoft.App/managedEnvironments/env","Created":"2026-11-30T21:27:59.6Z",
		"Template":{"RevisionSuffix":"","Grace":30000000000,"Containers":[{"Name":"main","Image":"fake/echo","Resources":{"MilliCPU":250,"Memory":536870912}}],"Scale":{"Min":0,"Max":10}},
		"TargetPort":8080,"Settings":{"Behaviour":"fast","Capabilities":"default"},"Images":{},"Generation":1,"Active":true,"State":"Activating","Ready":"0001-01-01T00:00:00Z"}}`))
	b.restart(t, nil)
	list := b.until(t, "the replica of before is ready", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].State == resource.ReplicaReady
	})
	if list[0].Port != 8080 || list[0].Revision.Base() != "web--0000001" {
		t.Errorf("got port %d of %s, want 8080 of web--0000001", list[0].Port, list[0].Revision)
	}
}

// makeStray runs a container in a sandbox with the given record.
func makeStray(t testing.TB, d *fake.Driver, record []byte) {
	t.Helper()
	ctx := t.Context()
	if _, err := d.CreateSandbox(ctx, local.Sandbox{Replica: "stray", Record: record}); err != nil {
		t.Fatal(err)
	}
	c := local.Container{ID: "stray-1", Replica: "stray", Name: "main", Image: fake.Echo, Resources: resource.Resources{Memory: 1 << 29}}
	if err := d.Create(ctx, c); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(ctx, c.ID); err != nil {
		t.Fatal(err)
	}
}

// Whatever a record contains, the engine starts, lists the sandbox and does not remove it.
func FuzzRecord(f *testing.F) {
	good, err := json.Marshal(map[string]any{"Version": 1, "Revision": web(1).Revision})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"Version":2}`))
	f.Add([]byte(`{"Version":1,"Revision":{"ID":"","Template":{"Containers":[{}]}}}`))
	f.Add([]byte(`{"Version":1,"Revision":{"ID":"/subscriptions/s/resourceGroups/g/providers/Microsoft.App/containerApps/a/revisions/r","Template":{"Containers":[{"Probes":[{"Type":"Startup"}]}]}}}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		d := fake.New(fake.Options{})
		defer d.Close()
		makeStray(t, d, record)
		e, stop := start(t, local.Config{Driver: d, Backoff: quick})
		defer stop()
		list, err := e.Replicas(t.Context())
		if err != nil || len(list) != 1 || list[0].Name != "stray" {
			t.Errorf("want the sandbox listed, got %+v, %v", list, err)
		}
		if lines := left(d); len(lines) != 1 {
			t.Errorf("want the sandbox there, got %q", lines)
		}
	})
}

func TestCallsWaitForAdoption(t *testing.T) {
	d := fake.New(fake.Options{})
	defer d.Close()
	e := local.New(local.Config{Driver: d})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Apply(ctx, web(1)); err == nil {
		t.Error("Apply before Run with a context that has ended: want an error")
	}
	if _, err := e.Replicas(ctx); err == nil {
		t.Error("Replicas before Run with a context that has ended: want an error, not an empty list")
	}
	run, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(run) }()
	if err := e.Apply(t.Context(), web(1)); err != nil {
		t.Errorf("Apply: %v", err)
	}
	end()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := e.Apply(t.Context(), web(2)); err == nil {
		t.Error("Apply after the end of Run: want an error")
	}
}
