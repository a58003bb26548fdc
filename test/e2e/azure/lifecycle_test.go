package azure_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"

	"penstock/test/penstocktest"
)

// The Azure SDK for Go stops an app and starts it again.
func TestStopAndStart(t *testing.T) {
	target := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	clients := target.azure(t)
	apps := clients.NewContainerAppsClient()
	environment := environment(ctx, t, clients.NewManagedEnvironmentsClient(), "e2e")
	revision := *put(ctx, t, apps, "e2e-echo", app(environment, target.image)).Properties.LatestRevisionName

	stopping, err := apps.BeginStop(ctx, group, "e2e-echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	stopped, err := stopping.PollUntilDone(ctx, often)
	if err != nil {
		t.Fatal(err)
	}
	if got := *stopped.Properties.RunningStatus; got != armappcontainers.ContainerAppRunningStatusStopped {
		t.Errorf("stopped: %s", got)
	}
	if left := replicas(ctx, t, clients, revision); len(left) > 0 {
		t.Errorf("a stopped app has replicas: %v", left)
	}
	starting, err := apps.BeginStart(ctx, group, "e2e-echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	started, err := starting.PollUntilDone(ctx, often)
	if err != nil {
		t.Fatal(err)
	}
	if got := *started.Properties.RunningStatus; got != armappcontainers.ContainerAppRunningStatusRunning {
		t.Errorf("started: %s", got)
	}
	if got := *started.Properties.LatestRevisionName; got != revision {
		t.Errorf("a start made revision %s after %s", got, revision)
	}
	running(ctx, t, clients, revision)
	remove(ctx, t, clients)
}

// A changed secret reaches a replica when its revision is restarted, and not before.
func TestARestartBringsAChangedSecret(t *testing.T) {
	target := open(t)
	if len(target.folders) == 0 {
		t.Skip("only the fake image listens where a variable says")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	clients := target.azure(t)
	apps, revisions := clients.NewContainerAppsClient(), clients.NewContainerAppsRevisionsClient()
	environment := environment(ctx, t, clients.NewManagedEnvironmentsClient(), "e2e")
	wanted := app(environment, target.image)
	wanted.Properties.Template.Containers[0].Env = []*armappcontainers.EnvironmentVar{{Name: new("PORT"), SecretRef: new("port")}}
	listen := func(port string) string {
		t.Helper()
		wanted.Properties.Configuration.Secrets = []*armappcontainers.Secret{{Name: new("port"), Value: new(port)}}
		return *put(ctx, t, apps, "e2e-echo", wanted).Properties.LatestRevisionName
	}
	restart := func(revision string) {
		t.Helper()
		if _, err := revisions.RestartRevision(ctx, group, "e2e-echo", revision, nil); err != nil {
			t.Fatal(err)
		}
	}
	revision := listen("8080")
	first := replicas(ctx, t, clients, revision)
	listen("9090") // not where it is asked
	if now := replicas(ctx, t, clients, revision); !slices.Equal(now, first) {
		t.Errorf("a changed secret replaced %v by %v", first, now)
	}
	restart(revision)
	penstocktest.Until(t, time.Minute, "a new replica beside the old one", func() bool { return len(replicas(ctx, t, clients, revision)) == 2 })
	if now := replicas(ctx, t, clients, revision); !slices.Contains(now, first[0]) {
		t.Errorf("the old replica went before the new one was ready: %v", now)
	}
	listen("8080")
	restart(revision)
	penstocktest.Until(t, time.Minute, "one new replica", func() bool {
		now := replicas(ctx, t, clients, revision)
		return len(now) == 1 && now[0] != first[0]
	})
	running(ctx, t, clients, revision)
	remove(ctx, t, clients)
}

// replicas are the names of a revision's replicas.
func replicas(ctx context.Context, t *testing.T, clients *armappcontainers.ClientFactory, revision string) (names []string) {
	t.Helper()
	list, err := clients.NewContainerAppsRevisionReplicasClient().ListReplicas(ctx, group, "e2e-echo", revision, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list.Value {
		names = append(names, *r.Name)
	}
	return names
}
