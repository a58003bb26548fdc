package azure_test

import (
	"context"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"

	"penstock/internal/runtimes/fake"
)

// What the SDK writes of a replica's init containers and volumes comes back from the app, its revision and its replica.
func TestReplicaFields(t *testing.T) {
	target := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	clients := target.azure(t)
	wanted := app(environment(ctx, t, clients.NewManagedEnvironmentsClient(), "e2e"), target.image)
	wanted.Properties.Template.InitContainers = []*armappcontainers.InitContainer{{
		Name: new("seed"), Image: new(fake.Write), Args: []*string{new("/out/greeting"), new("hello")},
		VolumeMounts: []*armappcontainers.VolumeMount{{VolumeName: new("shared"), MountPath: new("/out"), SubPath: new("sub")}},
		Env:          []*armappcontainers.EnvironmentVar{{Name: new("FROM"), Value: new("here")}},
		Resources:    &armappcontainers.ContainerResources{CPU: new(2.0), Memory: new("128Mi")},
	}}
	wanted.Properties.Template.Volumes = []*armappcontainers.Volume{{Name: new("shared"), StorageType: to.Ptr(armappcontainers.StorageTypeEmptyDir)}}
	wanted.Properties.Template.Containers[0].VolumeMounts = []*armappcontainers.VolumeMount{{VolumeName: new("shared"), MountPath: new("/in")}}
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
		if *c.Name != "seed" || *c.Image != fake.Write || *c.Args[1] != "hello" || *c.Env[0].Value != "here" || *c.Resources.CPU != 2 || *c.Resources.Memory != "128Mi" {
			t.Errorf("init container %s: image %s, args %q, env %q, %g vCPU, %s", *c.Name, *c.Image, *c.Args[1], *c.Env[0].Value, *c.Resources.CPU, *c.Resources.Memory)
		}
		if m := c.VolumeMounts[0]; *m.VolumeName != "shared" || *m.MountPath != "/out" || *m.SubPath != "sub" {
			t.Errorf("its mount: %s at %s, sub path %s", *m.VolumeName, *m.MountPath, *m.SubPath)
		}
		if m := template.Containers[0].VolumeMounts[0]; *m.VolumeName != "shared" || *m.MountPath != "/in" || m.SubPath != nil {
			t.Errorf("the container's mount: %+v", m)
		}
		if v := template.Volumes[0]; *v.Name != "shared" || *v.StorageType != armappcontainers.StorageTypeEmptyDir || v.StorageName != nil {
			t.Errorf("volume %s of type %s", *v.Name, *v.StorageType)
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
