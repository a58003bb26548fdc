package azure_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"

	"penstock/test/penstocktest"
)

// The Azure SDK for Go runs two revisions side by side, moves requests and a label between them, and takes one out of
// service and back.
func TestRevisionsSideBySide(t *testing.T) {
	target := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	clients := target.azure(t)
	apps, revisions := clients.NewContainerAppsClient(), clients.NewContainerAppsRevisionsClient()
	environment := environment(ctx, t, clients.NewManagedEnvironmentsClient(), "e2e")
	wanted := app(environment, target.image)
	wanted.Properties.Configuration.ActiveRevisionsMode = to.Ptr(armappcontainers.ActiveRevisionsModeMultiple)
	template, ingress := wanted.Properties.Template, wanted.Properties.Configuration.Ingress
	share := func(name string, weight int32, label string) *armappcontainers.TrafficWeight {
		s := &armappcontainers.TrafficWeight{RevisionName: &name, Weight: &weight}
		if label != "" {
			s.Label = &label
		}
		return s
	}
	weights := func(want map[string]int32) {
		t.Helper()
		for name, weight := range want {
			rev, err := revisions.GetRevision(ctx, group, "e2e-echo", name, nil)
			if err != nil {
				t.Fatal(err)
			}
			if *rev.Properties.TrafficWeight != weight || !*rev.Properties.Active {
				t.Errorf("revision %s has %d%% and is active: %t; want %d%%", name, *rev.Properties.TrafficWeight, *rev.Properties.Active, weight)
			}
		}
	}

	template.RevisionSuffix = new("v1")
	put(ctx, t, apps, "e2e-echo", wanted)
	template.RevisionSuffix = new("v2")
	ingress.Traffic = []*armappcontainers.TrafficWeight{share("e2e-echo--v1", 90, ""), share("e2e-echo--v2", 10, "blue")}
	made := put(ctx, t, apps, "e2e-echo", wanted)
	if got := *made.Properties.Configuration.ActiveRevisionsMode; got != armappcontainers.ActiveRevisionsModeMultiple {
		t.Errorf("mode %s", got)
	}
	answered := made.Properties.Configuration.Ingress.Traffic
	if len(answered) != 2 || *answered[1].RevisionName != "e2e-echo--v2" || *answered[1].Weight != 10 || *answered[1].Label != "blue" {
		t.Errorf("%d shares are answered", len(answered))
	}
	weights(map[string]int32{"e2e-echo--v1": 90, "e2e-echo--v2": 10})
	running(ctx, t, clients, "e2e-echo--v1")
	running(ctx, t, clients, "e2e-echo--v2")

	moving, err := apps.BeginUpdate(ctx, group, "e2e-echo", armappcontainers.ContainerApp{Properties: &armappcontainers.ContainerAppProperties{
		Configuration: &armappcontainers.Configuration{Ingress: &armappcontainers.Ingress{
			Traffic: []*armappcontainers.TrafficWeight{share("e2e-echo--v1", 0, "blue"), share("e2e-echo--v2", 100, "")},
		}},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := moving.PollUntilDone(ctx, often); err != nil {
		t.Fatal(err)
	}
	weights(map[string]int32{"e2e-echo--v1": 0, "e2e-echo--v2": 100})

	if _, err := revisions.DeactivateRevision(ctx, group, "e2e-echo", "e2e-echo--v1", nil); err != nil {
		t.Fatal(err)
	}
	penstocktest.Until(t, time.Minute, "its replica has gone", func() bool { return len(replicas(ctx, t, clients, "e2e-echo--v1")) == 0 })
	if _, err := revisions.ActivateRevision(ctx, group, "e2e-echo", "e2e-echo--v1", nil); err != nil {
		t.Fatal(err)
	}
	penstocktest.Until(t, time.Minute, "it runs again", func() bool {
		rev, err := revisions.GetRevision(ctx, group, "e2e-echo", "e2e-echo--v1", nil)
		return err == nil && *rev.Properties.RunningState == armappcontainers.RevisionRunningStateRunning
	})

	ingress.Traffic = []*armappcontainers.TrafficWeight{share("e2e-echo--v1", 60, ""), share("e2e-echo--v2", 60, "")}
	_, err = apps.BeginCreateOrUpdate(ctx, group, "e2e-echo", wanted, nil)
	if refused, ok := errors.AsType[*azcore.ResponseError](err); !ok || refused.StatusCode != http.StatusBadRequest || refused.ErrorCode != "ContainerAppInvalidValue" {
		t.Errorf("120 percent: %v", err)
	}
	remove(ctx, t, clients)
}
