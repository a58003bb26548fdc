package azure_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"
)

const group = "e2e"

// often is how the tests poll: as often as the SDK allows.
var often = &runtime.PollUntilDoneOptions{Frequency: time.Second}

// The Azure SDK for Go makes an environment and an app, changes the app, looks at it, and deletes both.
func TestContainerApps(t *testing.T) {
	target := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	clients := target.azure(t)
	apps, revisions := clients.NewContainerAppsClient(), clients.NewContainerAppsRevisionsClient()
	environment := environment(ctx, t, clients.NewManagedEnvironmentsClient(), "e2e")

	wanted := app(environment, target.image)
	first := put(ctx, t, apps, "e2e-echo", wanted)
	if got := *first.Properties.ProvisioningState; got != armappcontainers.ContainerAppProvisioningStateSucceeded {
		t.Errorf("provisioning state %s", got)
	}
	if *first.Properties.LatestRevisionName != *first.Properties.LatestReadyRevisionName {
		t.Errorf("the latest revision is %s, ready is %s", *first.Properties.LatestRevisionName, *first.Properties.LatestReadyRevisionName)
	}
	if host := *first.Properties.Configuration.Ingress.Fqdn; !strings.HasPrefix(host, "e2e-echo.") {
		t.Errorf("host name %q", host)
	}
	running(ctx, t, clients, *first.Properties.LatestRevisionName)

	if again := put(ctx, t, apps, "e2e-echo", wanted); *again.Properties.LatestRevisionName != *first.Properties.LatestRevisionName {
		t.Errorf("the same app made another revision: %s after %s", *again.Properties.LatestRevisionName, *first.Properties.LatestRevisionName)
	}
	wanted.Properties.Template.Containers[0].Env = []*armappcontainers.EnvironmentVar{{Name: new("COLOUR"), Value: new("green")}}
	second := put(ctx, t, apps, "e2e-echo", wanted)
	if *second.Properties.LatestRevisionName == *first.Properties.LatestRevisionName {
		t.Errorf("a changed template made no revision after %s", *first.Properties.LatestRevisionName)
	}
	running(ctx, t, clients, *second.Properties.LatestRevisionName)

	var listed []string
	for pages := apps.NewListByResourceGroupPager(group, nil); pages.More(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Value {
			listed = append(listed, *a.Name)
		}
	}
	for pages := revisions.NewListRevisionsPager(group, "e2e-echo", nil); pages.More(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Value {
			listed = append(listed, *r.Name)
		}
	}
	want := "e2e-echo " + *first.Properties.LatestRevisionName + " " + *second.Properties.LatestRevisionName
	if got := strings.Join(listed, " "); got != want {
		t.Errorf("listed %s, want %s", got, want)
	}

	remove(ctx, t, clients)
	_, err := apps.Get(ctx, group, "e2e-echo", nil)
	if refused, ok := errors.AsType[*azcore.ResponseError](err); !ok || refused.StatusCode != http.StatusNotFound || refused.ErrorCode != "ResourceNotFound" {
		t.Errorf("an app that was deleted: %v", err)
	}
}

// What is refused reaches a program as Azure's error code, and leaves nothing behind.
func TestRefusals(t *testing.T) {
	target := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	clients := target.azure(t)
	apps := clients.NewContainerAppsClient()
	environment := environment(ctx, t, clients.NewManagedEnvironmentsClient(), "e2e")
	tests := map[string]struct {
		change func(*armappcontainers.ContainerApp)
		code   string
	}{
		"cpu 0": {func(a *armappcontainers.ContainerApp) {
			a.Properties.Template.Containers[0].Resources.CPU = new(0.0)
		}, "ContainerAppInvalidCpuResource"},
		"a quarter of a vCPU with 4 GiB": {func(a *armappcontainers.ContainerApp) {
			a.Properties.Template.Containers[0].Resources = &armappcontainers.ContainerResources{CPU: new(0.25), Memory: new("4Gi")}
		}, "ContainerAppInvalidResourceTotal"},
		"an unknown tag": {func(a *armappcontainers.ContainerApp) {
			a.Tags = map[string]*string{"penstock.speed": new("high")}
		}, "PenstockInvalidTag"},
		"a revision name of 69 characters": {func(a *armappcontainers.ContainerApp) {
			a.Properties.Template.RevisionSuffix = new(strings.Repeat("v", 69-len("e2e-refused--")))
		}, "ContainerAppInvalidRevisionName"},
		"an image that is not there": {func(a *armappcontainers.ContainerApp) {
			a.Properties.Template.Containers[0].Image = new("e2e/nowhere:1")
		}, "InvalidParameterValueInContainerTemplate"},
		"Dapr": {func(a *armappcontainers.ContainerApp) {
			a.Properties.Configuration.Dapr = &armappcontainers.Dapr{Enabled: new(true)}
		}, "FeatureNotSupported"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			wanted := app(environment, target.image)
			test.change(&wanted)
			_, err := apps.BeginCreateOrUpdate(ctx, group, "e2e-refused", wanted, nil)
			if refused, ok := errors.AsType[*azcore.ResponseError](err); !ok || refused.StatusCode != http.StatusBadRequest || refused.ErrorCode != test.code {
				t.Errorf("got %v, want 400 %s", err, test.code)
			}
			if _, err := apps.Get(ctx, group, "e2e-refused", nil); err == nil {
				t.Error("the refused app is there")
			}
		})
	}
	remove(ctx, t, clients)
}

// environment makes an environment and returns its ID.
func environment(ctx context.Context, t *testing.T, client *armappcontainers.ManagedEnvironmentsClient, name string) string {
	t.Helper()
	making, err := client.BeginCreateOrUpdate(ctx, group, name, armappcontainers.ManagedEnvironment{
		Location: new("koreacentral"), Properties: &armappcontainers.ManagedEnvironmentProperties{},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := making.PollUntilDone(ctx, often)
	if err != nil {
		t.Fatal(err)
	}
	if *made.Properties.DefaultDomain == "" {
		t.Errorf("environment %s has no domain", name)
	}
	return *made.ID
}

func app(environment, image string) armappcontainers.ContainerApp {
	return armappcontainers.ContainerApp{
		Location: new("koreacentral"),
		Properties: &armappcontainers.ContainerAppProperties{
			EnvironmentID: &environment,
			Configuration: &armappcontainers.Configuration{
				Ingress: &armappcontainers.Ingress{External: new(true), TargetPort: to.Ptr[int32](8080), AllowInsecure: new(true)},
			},
			Template: &armappcontainers.Template{
				Containers: []*armappcontainers.Container{{
					Name: new("main"), Image: &image,
					Resources: &armappcontainers.ContainerResources{CPU: new(0.5), Memory: new("1Gi")},
				}},
				Scale: &armappcontainers.Scale{MinReplicas: to.Ptr[int32](1), MaxReplicas: to.Ptr[int32](1)},
			},
		},
	}
}

func put(ctx context.Context, t *testing.T, client *armappcontainers.ContainerAppsClient, name string, wanted armappcontainers.ContainerApp) armappcontainers.ContainerApp {
	t.Helper()
	writing, err := client.BeginCreateOrUpdate(ctx, group, name, wanted, nil)
	if err != nil {
		t.Fatal(err)
	}
	written, err := writing.PollUntilDone(ctx, often)
	if err != nil {
		t.Fatal(err)
	}
	return written.ContainerApp
}

// running checks that a revision runs in one replica with all its containers ready.
func running(ctx context.Context, t *testing.T, clients *armappcontainers.ClientFactory, revision string) {
	t.Helper()
	found, err := clients.NewContainerAppsRevisionsClient().GetRevision(ctx, group, "e2e-echo", revision, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := found.Properties; !*p.Active || *p.RunningState != armappcontainers.RevisionRunningStateRunning || *p.HealthState != armappcontainers.RevisionHealthStateHealthy {
		t.Errorf("revision %s: active %t, %s, %s", revision, *p.Active, *p.RunningState, *p.HealthState)
	}
	replicas, err := clients.NewContainerAppsRevisionReplicasClient().ListReplicas(ctx, group, "e2e-echo", revision, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(replicas.Value) != 1 || len(replicas.Value[0].Properties.Containers) != 1 || !*replicas.Value[0].Properties.Containers[0].Ready {
		t.Errorf("replicas of revision %s: %d, want one with a ready container", revision, len(replicas.Value))
	}
}

// remove deletes the tests' app and environment.
func remove(ctx context.Context, t *testing.T, clients *armappcontainers.ClientFactory) {
	t.Helper()
	app, err := clients.NewContainerAppsClient().BeginDelete(ctx, group, "e2e-echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.PollUntilDone(ctx, often); err != nil {
		t.Fatal(err)
	}
	environment, err := clients.NewManagedEnvironmentsClient().BeginDelete(ctx, group, "e2e", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := environment.PollUntilDone(ctx, often); err != nil {
		t.Fatal(err)
	}
}
