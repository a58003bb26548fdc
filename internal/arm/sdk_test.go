package arm_test

import (
	"context"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"

	"penstock/internal/resource"
)

// credential is a token that is known already.
type credential string

func (c credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(c), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// The Azure SDK for Go drives an app from its environment to its end. It polls by the headers that it is given, and
// decodes answers into its own types.
func TestAzureSDK(t *testing.T) {
	t.Parallel() // it waits for whole seconds between polls
	s := start(t)
	options := &azarm.ClientOptions{DisableRPRegistration: true, ClientOptions: policy.ClientOptions{
		Cloud: cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: s.URL, Audience: s.URL},
		}},
		Transport: s.Client(),
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}}
	clients, err := armappcontainers.NewClientFactory(subscription, credential(token), options)
	if err != nil {
		t.Fatal(err)
	}
	environments, apps := clients.NewManagedEnvironmentsClient(), clients.NewContainerAppsClient()
	revisions, replicas := clients.NewContainerAppsRevisionsClient(), clients.NewContainerAppsRevisionReplicasClient()
	often := &runtime.PollUntilDoneOptions{Frequency: time.Second}
	ctx := t.Context()

	making, err := environments.BeginCreateOrUpdate(ctx, "ml", "e", armappcontainers.ManagedEnvironment{
		Location: new("koreacentral"), Properties: &armappcontainers.ManagedEnvironmentProperties{},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	environment, err := making.PollUntilDone(ctx, often)
	if err != nil || *environment.Properties.ProvisioningState != armappcontainers.EnvironmentProvisioningStateSucceeded {
		t.Fatalf("environment: %v, %+v", err, environment.Properties)
	}

	desired := armappcontainers.ContainerApp{
		Location: new("koreacentral"),
		Tags:     map[string]*string{"penstock.retry": new("all")},
		Properties: &armappcontainers.ContainerAppProperties{
			EnvironmentID: environment.ID,
			Configuration: &armappcontainers.Configuration{Ingress: &armappcontainers.Ingress{External: new(true), TargetPort: to.Ptr[int32](8080)}},
			Template: &armappcontainers.Template{
				Containers: []*armappcontainers.Container{{
					Name: new("chat"), Image: new("chat:1"),
					Resources: &armappcontainers.ContainerResources{CPU: new(0.5), Memory: new("1Gi")},
					Probes: []*armappcontainers.ContainerAppProbe{{
						Type:    to.Ptr(armappcontainers.TypeReadiness),
						HTTPGet: &armappcontainers.ContainerAppProbeHTTPGet{Path: new("/health"), Port: to.Ptr[int32](8080)},
					}},
				}},
				Scale: &armappcontainers.Scale{MinReplicas: to.Ptr[int32](1), MaxReplicas: to.Ptr[int32](3)},
			},
		},
	}
	put := func() armappcontainers.ContainerApp {
		t.Helper()
		writing, err := apps.BeginCreateOrUpdate(ctx, "ml", "chat", desired, nil)
		if err != nil {
			t.Fatal(err)
		}
		written, err := writing.PollUntilDone(ctx, often)
		if err != nil {
			t.Fatal(err)
		}
		return written.ContainerApp
	}
	first := put()
	if got := *first.Properties.Configuration.Ingress.Fqdn; got != "chat.e.penstock.localhost" {
		t.Errorf("host name %q", got)
	}
	if got := *first.Properties.ProvisioningState; got != armappcontainers.ContainerAppProvisioningStateSucceeded {
		t.Errorf("provisioning state %q", got)
	}
	if again := put(); *again.Properties.LatestRevisionName != *first.Properties.LatestRevisionName {
		t.Errorf("the same template made a new revision: %s after %s", *again.Properties.LatestRevisionName, *first.Properties.LatestRevisionName)
	}
	desired.Properties.Template.Containers[0].Image = new("chat:2")
	if got := *put().Properties.LatestRevisionName; got != "chat--0000001" {
		t.Errorf("a changed template made revision %s", got)
	}
	updating, err := apps.BeginUpdate(ctx, "ml", "chat", armappcontainers.ContainerApp{Tags: map[string]*string{"team": new("ml")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	updated, err := updating.PollUntilDone(ctx, often)
	if err != nil || *updated.Tags["team"] != "ml" || *updated.Tags["penstock.retry"] != "all" || *updated.Properties.LatestRevisionName != "chat--0000001" {
		t.Errorf("update of a tag: %v, %+v", err, updated.Tags)
	}

	var names []string
	for pager := apps.NewListByResourceGroupPager("ml", nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Value {
			names = append(names, *a.Name)
		}
	}
	for pager := revisions.NewListRevisionsPager("ml", "chat", nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Value {
			names = append(names, *r.Properties.Template.Containers[0].Image)
		}
	}
	if len(names) != 3 || names[0] != "chat" || names[1] != "chat:1" || names[2] != "chat:2" {
		t.Errorf("listed %q", names)
	}
	s.mu.Lock()
	s.replicas = []resource.Replica{{
		Name: "chat--0000001-5b8d8f4c6f-x7k2p", Revision: resource.AppID(subscription, "ml", "chat").Child("revisions", "chat--0000001"),
		State: resource.ReplicaReady, Created: time.Now(), Containers: []resource.ContainerStatus{{Name: "chat", ID: "containerd://1", Running: true}},
	}}
	s.mu.Unlock()
	running, err := replicas.ListReplicas(ctx, "ml", "chat", "chat--0000001", nil)
	if err != nil || len(running.Value) != 1 || *running.Value[0].Properties.RunningState != armappcontainers.ContainerAppReplicaRunningStateRunning {
		t.Errorf("replicas: %v, %+v", err, running.Value)
	}
	if granted, err := apps.GetAuthToken(ctx, "ml", "chat", nil); err != nil || *granted.Properties.Token == "" || time.Until(*granted.Properties.Expires) < time.Minute {
		t.Errorf("token for streams: %v", err)
	}

	deleting, err := apps.BeginDelete(ctx, "ml", "chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deleting.PollUntilDone(ctx, often); err != nil {
		t.Fatal(err)
	}
	if _, err := apps.Get(ctx, "ml", "chat", nil); err == nil {
		t.Error("the app is there after its deletion")
	}
	closing, err := environments.BeginDelete(ctx, "ml", "e", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := closing.PollUntilDone(ctx, often); err != nil {
		t.Fatal(err)
	}
}
