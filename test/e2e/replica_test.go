package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"

	"penstock/internal/runtimes/fake"
)

// What the SDK writes of a replica's init containers comes back from the app, its revision and its replica.
func TestReplicaFields(t *testing.T) {
	target := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	clients := target.azure(t)
	wanted := app(environment(ctx, t, clients.NewManagedEnvironmentsClient(), "e2e"), target.image)
	wanted.Properties.Template.InitContainers = []*armappcontainers.InitContainer{{
		Name: new("seed"), Image: new(fake.Done), Args: []*string{new("--quick")},
		Env:       []*armappcontainers.EnvironmentVar{{Name: new("FROM"), Value: new("here")}},
		Resources: &armappcontainers.ContainerResources{CPU: new(2.0), Memory: new("128Mi")},
	}}
	written := put(ctx, t, clients.NewContainerAppsClient(), "e2e-echo", wanted)
	revision := *written.Properties.LatestReadyRevisionName
	found, err := clients.NewContainerAppsRevisionsClient().GetRevision(ctx, group, "e2e-echo", revision, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, template := range []*armappcontainers.Template{written.Properties.Template, found.Properties.Template} {
		if len(template.InitContainers) != 1 {
			t.Fatalf("want one init container, got %d", len(template.InitContainers))
		}
		c := template.InitContainers[0]
		if *c.Name != "seed" || *c.Image != fake.Done || *c.Args[0] != "--quick" || *c.Env[0].Value != "here" || *c.Resources.CPU != 2 || *c.Resources.Memory != "128Mi" {
			t.Errorf("init container %s: image %s, args %q, env %q, %g vCPU, %s", *c.Name, *c.Image, *c.Args[0], *c.Env[0].Value, *c.Resources.CPU, *c.Resources.Memory)
		}
	}
	replicas, err := clients.NewContainerAppsRevisionReplicasClient().ListReplicas(ctx, group, "e2e-echo", revision, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(replicas.Value) != 1 || len(replicas.Value[0].Properties.InitContainers) != 1 {
		t.Fatalf("want one replica with one init container, got %d replicas", len(replicas.Value))
	}
	seed := replicas.Value[0].Properties.InitContainers[0]
	if *seed.Name != "seed" || *seed.RunningState != armappcontainers.ContainerAppContainerRunningStateTerminated || !*seed.Ready || *seed.RunningStateDetails != "Completed" || *seed.RestartCount != 0 {
		t.Errorf("init container %s is %s (%s), ready %t", *seed.Name, *seed.RunningState, *seed.RunningStateDetails, *seed.Ready)
	}
	remove(ctx, t, clients)
}
