package arm_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	azarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"
	"github.com/google/go-cmp/cmp"

	"penstock/internal/arm"
	"penstock/internal/link"
	"penstock/internal/logs"
	"penstock/internal/reconcile"
	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

// imagesOf resolves what the driver has.
type imagesOf struct{ driver *fake.Driver }

func (i imagesOf) Digest(ctx context.Context, _ resource.Keyring, ref string) (string, error) {
	image, err := i.driver.Image(ctx, ref)
	if errors.Is(err, local.ErrImageNotFound) {
		err = errors.Join(resource.ErrNotFound, err)
	}
	return image.Digest, err
}

// consoleOf files what containers print.
type consoleOf struct{ console *logs.Console }

func (c consoleOf) Open(o local.Output) io.WriteCloser {
	return c.console.Writer(logs.Source{App: o.Revision.Parent(), Revision: o.Revision.Base(), Replica: o.Replica, Container: o.Container, Stream: o.Stream})
}

// platform is the API with all that is behind it, but for containers: those are the fake driver's.
func platform(t *testing.T) *server {
	t.Helper()
	s := start(t, func(s *server, cfg *arm.Config) {
		driver := fake.New(fake.Options{Console: consoleOf{s.console}})
		engine := local.New(local.Config{Driver: driver, Emit: s.system.Append, Log: cfg.Log, Capacity: local.Capacity{Memory: 8 << 30}})
		loop := reconcile.New(reconcile.Config{
			Store: s.store, Runtime: engine, Images: imagesOf{driver}, Routes: link.NewHub("test", cfg.Log),
			Certificate: func(names []string) (link.Certificate, time.Time, error) {
				return link.Certificate{Names: names}, time.Now().Add(time.Hour), nil
			},
			Addresses: func(resource.ID) (netip.Prefix, netip.Addr, error) { return netip.Prefix{}, netip.Addr{}, nil },
			Domain:    "penstock.localhost", Emit: s.system.Append, Created: func(resource.Revision) {}, Log: cfg.Log,
			Forget: func(id resource.ID) error { return errors.Join(s.console.Forget(id), s.system.Forget(id)) },
		})
		cfg.Runtime, cfg.Images, cfg.Reconcile = engine, imagesOf{driver}, loop.Touch
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		var wg sync.WaitGroup
		ready := make(chan struct{})
		run := func(f func() error) {
			wg.Go(func() {
				if err := f(); err != nil {
					t.Error(err)
				}
			})
		}
		run(func() error { return engine.Run(ctx) })
		run(func() error { return loop.Run(ctx, func() { close(ready) }) })
		t.Cleanup(func() { cancel(); wg.Wait(); driver.Close() })
		<-ready
	})
	s.environment("e")
	return s
}

const jobPath = base + "/jobs/batch"

func (a answer) text() string { return string(a.body) }

// job is a manual one of an image; change alters its properties.
func job(t *testing.T, image string, change func(properties map[string]any)) string {
	t.Helper()
	properties := map[string]any{
		"environmentId": base + "/managedEnvironments/e",
		"configuration": map[string]any{"triggerType": "Manual", "replicaTimeout": 600},
		"template":      map[string]any{"containers": []any{map[string]any{"name": "work", "image": image}}},
	}
	if change != nil {
		change(properties)
	}
	body, err := json.Marshal(map[string]any{"location": "koreacentral", "properties": properties})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// put writes a job and waits for it.
func (s *server) job(body string) {
	s.t.Helper()
	s.await(s.want(201, "PUT", jobPath+version, body), "Azure-AsyncOperation")
}

// begin starts the job and returns the name of the execution.
func (s *server) begin(body string) string {
	s.t.Helper()
	done := s.await(s.want(202, "POST", jobPath+"/start"+version, body), "Location")
	name, _ := done.get(s.t, "name").(string)
	if id, _ := done.get(s.t, "id").(string); !strings.HasPrefix(name, "batch-") || id != jobPath+"/executions/"+name {
		s.t.Fatalf("start ended with %s, want the id and name of an execution", done.text())
	}
	return name
}

// ended waits until an execution is over.
func (s *server) ended(name string) answer {
	s.t.Helper()
	return s.status(name, "Succeeded", "Failed", "Stopped")
}

func (s *server) status(name string, any ...string) answer {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		e := s.want(200, "GET", jobPath+"/executions/"+name+version, "")
		if status, _ := e.get(s.t, "properties", "status").(string); slices.Contains(any, status) {
			return e
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("never one of %v: %s", any, e.text())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestExecutionFromStartToEnd(t *testing.T) {
	s := platform(t)
	s.job(job(t, fake.Done, nil))
	name := s.begin("")
	e := s.ended(name)
	p := e.get(t, "properties").(map[string]any)
	if p["status"] != "Succeeded" || p["reason"] != "Completed" || p["startTime"] == nil || p["endTime"] == nil {
		t.Errorf("got %s", e.text())
	}
	replicas := e.get(t, "properties", "detailedStatus", "replicas").([]any)
	container := replicas[0].(map[string]any)["containers"].([]any)[0].(map[string]any)
	if len(replicas) != 1 || container["name"] != "work" || container["code"] != 0.0 || container["status"] != "Terminated" || container["additionalInformation"] != "Completed" {
		t.Errorf("detailedStatus: %v", replicas)
	}

	// What it printed and what was done are filed under the job, with the execution's name.
	var events string
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(events, `"Completed"`) && time.Now().Before(deadline); {
		// The end is told once it is stored.
		events = s.want(200, "GET", strings.Replace(jobPath, "/providers/Microsoft.App", "", 1)+"/eventstream?tailLines=300", "").text()
	}
	at := 0
	for _, reason := range []string{"SuccessfulCreate", "AssigningReplica", "PulledImage", "ContainerStarted", "ContainerTerminated", "Completed"} {
		i := strings.Index(events[at:], `"Reason":"`+reason+`"`)
		if i < 0 {
			t.Fatalf("want %s after what came before, got\n%s", reason, events)
		}
		at += i
	}
	if !strings.Contains(events, `"JobName":"batch","ExecutionName":"`+name+`"`) || strings.Contains(events, "ContainerAppName") {
		t.Errorf("want the names of the job and the execution, got\n%s", events)
	}
	lines := s.want(200, "GET", jobPath+"/logstream?tailLines=300&execution="+name, "").text()
	if !strings.Contains(lines, `"Log":"ended with code 0"`) || !strings.Contains(lines, `"ExecutionName":"`+name+`"`) {
		t.Errorf("log: %s", lines)
	}
}

func TestExecutionsAreFiltered(t *testing.T) {
	s := platform(t)
	s.job(job(t, fake.Done, nil))
	good := s.begin("")
	s.ended(good)
	bad := s.begin(`{"containers":[{"name":"work","image":"` + fake.Exit + `"}]}`)
	if e := s.ended(bad); e.get(t, "properties", "reason") != "BackoffLimitExceeded" || !strings.Contains(e.text(), `"code":3`) {
		t.Errorf("got %s", e.text())
	}
	list := func(filter string) (names []string) {
		t.Helper()
		for _, e := range s.want(200, "GET", jobPath+"/executions"+version+"&$filter="+strings.ReplaceAll(filter, " ", "%20"), "").get(t, "value").([]any) {
			names = append(names, e.(map[string]any)["name"].(string))
		}
		return names
	}
	tests := map[string][]string{
		"":                              {bad, good},
		"status eq 'Failed'":            {bad},
		"properties/status ne 'failed'": {good},
		"name eq '" + good + "'":        {good},
		"startTime ge 2026-01-01T00:00:00Z and status eq 'Succeeded'": {good},
		"endTime lt 2020-01-01T00:00:00Z":                             nil,
	}
	for filter, want := range tests {
		if got := list(filter); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", filter, got, want)
		}
	}
	if a := s.want(400, "GET", jobPath+"/executions"+version+"&$filter=status%20is%20good", ""); a.get(t, "error", "code") != "InvalidFilter" {
		t.Errorf("got %s", a.text())
	}
}

func TestExecutionsAreStopped(t *testing.T) {
	s := platform(t)
	s.job(job(t, fake.Echo, nil))
	one, two, three := s.begin(""), s.begin(""), s.begin("")
	for _, name := range []string{one, two, three} {
		s.status(name, "Running")
	}
	replicas := s.want(200, "GET", jobPath+"/executions/"+one+"/replicas"+version, "")
	if !strings.Contains(replicas.text(), `"type":"Microsoft.App/jobs/executions/replicas"`) ||
		!strings.Contains(replicas.text(), "/jobs/batch/executions/"+one+"/replicas/") || strings.Count(replicas.text(), `"runningState":"Running"`) != 2 {
		t.Errorf("replicas: %s", replicas.text())
	}
	s.await(s.want(202, "POST", jobPath+"/executions/"+one+"/stop"+version, ""), "Location")
	if e := s.want(200, "GET", jobPath+"/executions/"+one+version, ""); e.get(t, "properties", "status") != "Stopped" {
		t.Errorf("stopped: %s", e.text())
	}
	stopped := s.await(s.want(202, "POST", jobPath+"/stop"+version, ""), "Location").get(t, "value").([]any)
	var names []string
	for _, e := range stopped {
		names = append(names, e.(map[string]any)["name"].(string))
	}
	slices.Sort(names)
	want := []string{two, three}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("stopped %v, want %v", names, want)
	}
	s.await(s.want(202, "POST", jobPath+"/executions/"+one+"/stop"+version, ""), "Location") // it is over already
	s.want(404, "POST", jobPath+"/executions/batch-none/stop"+version, "")
	s.await(s.want(202, "DELETE", jobPath+version, ""), "Location")
	s.want(404, "GET", jobPath+version, "")
	s.want(204, "DELETE", jobPath+version, "")
}

func TestSuspendedJob(t *testing.T) {
	s := platform(t)
	s.job(job(t, fake.Done, nil))
	state := func() any { return s.want(200, "GET", jobPath+version, "").get(t, "properties", "runningState") }
	if state() != "Ready" {
		t.Errorf("runningState: %v", state())
	}
	s.await(s.want(202, "POST", jobPath+"/suspend"+version, ""), "Azure-AsyncOperation")
	if state() != "Suspended" {
		t.Errorf("suspended: runningState %v", state())
	}
	if a := s.want(409, "POST", jobPath+"/start"+version, ""); !strings.Contains(a.text(), "resume it") {
		t.Errorf("start: %s", a.text())
	}
	s.await(s.want(202, "POST", jobPath+"/resume"+version, ""), "Azure-AsyncOperation")
	s.ended(s.begin(""))
}

func TestSecretsOfAJob(t *testing.T) {
	s := platform(t)
	s.job(job(t, fake.Done, func(p map[string]any) {
		p["configuration"].(map[string]any)["secrets"] = []any{map[string]any{"name": "key", "value": "hunter2"}}
	}))
	if a := s.want(200, "GET", jobPath+version, ""); strings.Contains(a.text(), "hunter2") {
		t.Error("a GET answers the value")
	}
	stored, err := s.store.Jobs().Get(t.Context(), resource.JobID(subscription, "ml", "batch"))
	if text, _ := json.Marshal(stored); err != nil || strings.Contains(string(text), "hunter2") {
		t.Errorf("the store has the value: %v %s", err, text)
	}
	if a := s.want(200, "POST", jobPath+"/listSecrets"+version, ""); !strings.Contains(a.text(), `"value":"hunter2"`) {
		t.Errorf("listSecrets: %s", a.text())
	}
	a := s.want(400, "POST", jobPath+"/start"+version, `{"containers":[{"name":"work","image":"`+fake.Done+`","env":[{"name":"A","secretRef":"other"}]}]}`)
	if !strings.Contains(a.text(), "SecretRef 'other' defined for container 'work' not found.") {
		t.Errorf("got %s", a.text())
	}
}

func TestJobRefused(t *testing.T) {
	s := platform(t)
	configure := func(change func(c map[string]any)) string {
		return job(t, fake.Done, func(p map[string]any) { change(p["configuration"].(map[string]any)) })
	}
	events := func(scale map[string]any) string {
		return configure(func(c map[string]any) {
			c["triggerType"], c["eventTriggerConfig"] = "Event", map[string]any{"scale": scale}
			delete(c, "manualTriggerConfig")
		})
	}
	rule := func(kind string, metadata map[string]any) map[string]any {
		return map[string]any{"name": "of-" + kind, "type": kind, "metadata": metadata}
	}
	tests := map[string]struct{ body, want string }{
		"events of nothing": {configure(func(c map[string]any) { c["triggerType"] = "Event" }), "configuration.eventTriggerConfig.scale: want rules"},
		"no rules":          {events(map[string]any{}), "configuration.eventTriggerConfig.scale.rules: want at least one rule, got none: nothing would start the job"},
		"rules that are not evaluated": {events(map[string]any{"rules": []any{rule("azure-queue", map[string]any{"queueName": "q"}), rule("kafka", nil)}}),
			"configuration.eventTriggerConfig.scale.rules: want a rule of type external, external-push or cron, got only azure-queue, kafka, which are not evaluated here: nothing would start the job"},
		"a rule of apps": {events(map[string]any{"rules": []any{rule("cpu", map[string]any{"value": "70"})}}),
			"configuration.eventTriggerConfig.scale.rules[0].type: want the type of a KEDA scaler for jobs, got cpu, which measures running replicas and cannot start a job"},
		"an external scaler without an address": {events(map[string]any{"rules": []any{rule("external", nil)}}),
			"configuration.eventTriggerConfig.scale.rules[0].metadata.scalerAddress: want the host and port of a gRPC server"},
		"a secret that is missing": {events(map[string]any{"rules": []any{map[string]any{"name": "a", "type": "external", "metadata": map[string]any{"scalerAddress": "s:80"},
			"auth": []any{map[string]any{"secretRef": "ca", "triggerParameter": "caCert"}}}}}),
			"SecretRef 'ca' defined for scale rule 'a' not found"},
		"a time zone that does not exist": {events(map[string]any{"rules": []any{rule("cron", map[string]any{"start": "0 8 * * *", "end": "0 9 * * *", "timezone": "Asia/Soul", "desiredReplicas": "2"})}}),
			"configuration.eventTriggerConfig.scale.rules[0].metadata.timezone: want the name of a time zone"},
		"more at least than at most": {events(map[string]any{"minExecutions": 5, "maxExecutions": 4, "rules": []any{rule("external", map[string]any{"scalerAddress": "s:80"})}}),
			"configuration.eventTriggerConfig.scale.maxExecutions: want at least minExecutions, which is 5, got 4"},
		"polling backwards": {events(map[string]any{"pollingInterval": -1, "rules": []any{rule("external", map[string]any{"scalerAddress": "s:80"})}}),
			"configuration.eventTriggerConfig.scale.pollingInterval: want 0 to 86400 seconds, got -1"},
		"events of a manual job": {configure(func(c map[string]any) { c["eventTriggerConfig"] = map[string]any{"parallelism": 2} }), "configuration.eventTriggerConfig: want nothing, because triggerType is Manual"},
		"no trigger":             {configure(func(c map[string]any) { delete(c, "triggerType") }), "configuration.triggerType: want Manual, Schedule or Event"},
		"no time limit":          {configure(func(c map[string]any) { delete(c, "replicaTimeout") }), "configuration.replicaTimeout: want the number of seconds"},
		"no schedule":            {configure(func(c map[string]any) { c["triggerType"] = "Schedule" }), "configuration.scheduleTriggerConfig: want a cronExpression"},
		"a schedule of a manual job": {configure(func(c map[string]any) {
			c["scheduleTriggerConfig"] = map[string]any{"cronExpression": "* * * * *"}
		}), "configuration.scheduleTriggerConfig: want nothing"},
		"a bad schedule": {configure(func(c map[string]any) {
			c["triggerType"], c["scheduleTriggerConfig"] = "Schedule", map[string]any{"cronExpression": "* * 31 2 *"}
		}), "configuration.scheduleTriggerConfig.cronExpression: \\\"* * 31 2 *\\\" never comes"},
		"no replicas at a time": {configure(func(c map[string]any) { c["manualTriggerConfig"] = map[string]any{"parallelism": 0} }), "configuration.manualTriggerConfig.parallelism: want 1 to 1000, got 0"},
		"a scale": {job(t, fake.Done, func(p map[string]any) {
			p["template"].(map[string]any)["scale"] = map[string]any{"minReplicas": 1}
		}), "template.scale: unknown field"},
		"an image that is not there": {job(t, "fake/none", nil), "MANIFEST_UNKNOWN"},
		"another environment":        {job(t, fake.Done, func(p map[string]any) { p["environmentId"] = base + "/managedEnvironments/other" }), "there is no environment"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if a := s.want(400, "PUT", jobPath+version, test.body); !strings.Contains(a.text(), test.want) {
				t.Errorf("got %s\nwant %s", a.text(), test.want)
			}
		})
	}
	s.want(404, "POST", jobPath+"/start"+version, "")
	s.job(job(t, fake.Done, nil))
	if a := s.want(400, "POST", jobPath+"/start"+version, `{"containers":[{"name":"work","image":"i","volumeMounts":[]}]}`); !strings.Contains(a.text(), "containers[0].volumeMounts: unknown field") {
		t.Errorf("got %s", a.text())
	}
	if a := s.want(409, "DELETE", base+"/managedEnvironments/e"+version, ""); !strings.Contains(a.text(), "job 'batch' is in it") {
		t.Errorf("got %s", a.text())
	}
}

// sdk returns clients of the Azure SDK for Go.
func (s *server) sdk() *armappcontainers.ClientFactory {
	s.t.Helper()
	options := &azarm.ClientOptions{DisableRPRegistration: true, ClientOptions: policy.ClientOptions{
		Cloud: cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: s.URL, Audience: s.URL},
		}},
		Transport: s.Client(),
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}}
	clients, err := armappcontainers.NewClientFactory(subscription, credential(token), options)
	if err != nil {
		s.t.Fatal(err)
	}
	return clients
}

// What the SDK writes as the trigger of an event-driven job is what it reads back.
func TestAzureSDKWithEventJobs(t *testing.T) {
	t.Parallel()
	jobs := platform(t).sdk().NewJobsClient()
	trigger := &armappcontainers.JobConfigurationEventTriggerConfig{
		Parallelism: to.Ptr[int32](2), ReplicaCompletionCount: to.Ptr[int32](3),
		Scale: &armappcontainers.JobScale{
			MinExecutions: to.Ptr[int32](1), MaxExecutions: to.Ptr[int32](7), PollingInterval: to.Ptr[int32](15),
			Rules: []*armappcontainers.JobScaleRule{
				{
					Name: new("mail"), Type: new("external-push"), Metadata: map[string]any{"scalerAddress": "127.0.0.1:1", "queue": "inbox"},
					Auth: []*armappcontainers.ScaleRuleAuth{{SecretRef: new("ca"), TriggerParameter: new("caCert")}},
				},
				{Name: new("bus"), Type: new("azure-servicebus"), Metadata: map[string]any{"queueName": "q"}},
			},
		},
	}
	making, err := jobs.BeginCreateOrUpdate(t.Context(), "ml", "batch", armappcontainers.Job{
		Location: new("koreacentral"),
		Properties: &armappcontainers.JobProperties{
			EnvironmentID: new(base + "/managedEnvironments/e"),
			Configuration: &armappcontainers.JobConfiguration{
				TriggerType: to.Ptr(armappcontainers.TriggerTypeEvent), ReplicaTimeout: to.Ptr[int32](300), EventTriggerConfig: trigger,
				Secrets: []*armappcontainers.Secret{{Name: new("ca"), Value: new("v")}},
			},
			Template: &armappcontainers.JobTemplate{Containers: []*armappcontainers.Container{{
				Name: new("work"), Image: new(fake.Done), Resources: &armappcontainers.ContainerResources{CPU: new(0.25), Memory: new("0.5Gi")},
			}}},
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := making.PollUntilDone(t.Context(), &runtime.PollUntilDoneOptions{Frequency: time.Second}); err != nil {
		t.Fatal(err)
	}
	got, err := jobs.Get(t.Context(), "ml", "batch", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := got.Properties.Configuration
	if diff := cmp.Diff(trigger, c.EventTriggerConfig); diff != "" || *c.TriggerType != armappcontainers.TriggerTypeEvent || c.ManualTriggerConfig != nil {
		t.Errorf("read back (-sent +got):\n%s", diff)
	}
	patching, err := jobs.BeginUpdate(t.Context(), "ml", "batch", armappcontainers.JobPatchProperties{
		Properties: &armappcontainers.JobPatchPropertiesProperties{Configuration: &armappcontainers.JobConfiguration{
			EventTriggerConfig: &armappcontainers.JobConfigurationEventTriggerConfig{Scale: &armappcontainers.JobScale{MaxExecutions: to.Ptr[int32](9)}},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := patching.PollUntilDone(t.Context(), &runtime.PollUntilDoneOptions{Frequency: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if e := patched.Properties.Configuration.EventTriggerConfig; *e.Scale.MaxExecutions != 9 || *e.Scale.MinExecutions != 1 || len(e.Scale.Rules) != 2 {
		t.Errorf("patched: %+v", e.Scale)
	}
}

// The Azure SDK for Go drives a job from its making to its end.
func TestAzureSDKWithJobs(t *testing.T) {
	t.Parallel() // it waits for whole seconds between polls
	s := platform(t)
	clients := s.sdk()
	jobs, executions := clients.NewJobsClient(), clients.NewJobsExecutionsClient()
	often := &runtime.PollUntilDoneOptions{Frequency: time.Second}
	ctx := t.Context()

	making, err := jobs.BeginCreateOrUpdate(ctx, "ml", "batch", armappcontainers.Job{
		Location: new("koreacentral"),
		Properties: &armappcontainers.JobProperties{
			EnvironmentID: new(base + "/managedEnvironments/e"),
			Configuration: &armappcontainers.JobConfiguration{
				TriggerType: to.Ptr(armappcontainers.TriggerTypeSchedule), ReplicaTimeout: to.Ptr[int32](300), ReplicaRetryLimit: to.Ptr[int32](1),
				ScheduleTriggerConfig: &armappcontainers.JobConfigurationScheduleTriggerConfig{CronExpression: new("0 0 1 1 *"), Parallelism: to.Ptr[int32](2), ReplicaCompletionCount: to.Ptr[int32](3)},
				Secrets:               []*armappcontainers.Secret{{Name: new("key"), Value: new("v")}},
			},
			Template: &armappcontainers.JobTemplate{Containers: []*armappcontainers.Container{{
				Name: new("work"), Image: new(fake.Done), Resources: &armappcontainers.ContainerResources{CPU: new(0.25), Memory: new("0.5Gi")},
			}}},
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := making.PollUntilDone(ctx, often)
	if err != nil || *made.Properties.ProvisioningState != armappcontainers.JobProvisioningStateSucceeded || *made.Properties.Configuration.ScheduleTriggerConfig.Parallelism != 2 {
		t.Fatalf("job: %v, %+v", err, made.Properties)
	}
	patching, err := jobs.BeginUpdate(ctx, "ml", "batch", armappcontainers.JobPatchProperties{
		Properties: &armappcontainers.JobPatchPropertiesProperties{Configuration: &armappcontainers.JobConfiguration{ReplicaRetryLimit: to.Ptr[int32](0)}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if patched, err := patching.PollUntilDone(ctx, often); err != nil || *patched.Properties.Configuration.ReplicaRetryLimit != 0 || *patched.Properties.Configuration.ReplicaTimeout != 300 {
		t.Fatalf("patch: %v, %+v", err, patched.Properties)
	}
	if secrets, err := jobs.ListSecrets(ctx, "ml", "batch", nil); err != nil || len(secrets.Value) != 1 || *secrets.Value[0].Value != "v" {
		t.Errorf("secrets: %v, %+v", err, secrets)
	}

	start := func(options *armappcontainers.JobsClientBeginStartOptions) string {
		t.Helper()
		starting, err := jobs.BeginStart(ctx, "ml", "batch", options)
		if err != nil {
			t.Fatal(err)
		}
		begun, err := starting.PollUntilDone(ctx, often)
		if err != nil || begun.ID == nil || begun.Name == nil {
			t.Fatalf("start: %v, %+v", err, begun)
		}
		return *begun.Name
	}
	first := start(nil)
	s.ended(first)
	// az and the SDKs list executions to find one.
	pages := executions.NewListPager("ml", "batch", &armappcontainers.JobsExecutionsClientListOptions{Filter: new("status eq 'Succeeded'")})
	page, err := pages.NextPage(ctx)
	if err != nil || len(page.Value) != 1 || *page.Value[0].Name != first || *page.Value[0].Properties.Status != armappcontainers.JobExecutionRunningStateSucceeded {
		t.Fatalf("executions: %v, %+v", err, page)
	}
	second := start(&armappcontainers.JobsClientBeginStartOptions{Template: &armappcontainers.JobExecutionTemplate{
		Containers: []*armappcontainers.JobExecutionContainer{{Name: new("serve"), Image: new(fake.Echo)}},
	}})
	s.status(second, "Running")
	one, err := clients.NewContainerAppsAPIClient().JobExecution(ctx, "ml", "batch", second, nil)
	if err != nil || *one.Properties.Template.Containers[0].Image != fake.Echo {
		t.Errorf("execution: %v, %+v", err, one.Properties)
	}
	stopping, err := jobs.BeginStopExecution(ctx, "ml", "batch", second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stopping.PollUntilDone(ctx, often); err != nil {
		t.Fatal(err)
	}
	all, err := jobs.BeginStopMultipleExecutions(ctx, "ml", "batch", nil)
	if err != nil {
		t.Fatal(err)
	}
	if stopped, err := all.PollUntilDone(ctx, often); err != nil || len(stopped.Value) != 0 {
		t.Errorf("nothing runs, and stopped are %v, %+v", err, stopped.Value)
	}
	listed := 0
	for pager := jobs.NewListBySubscriptionPager(nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		listed += len(page.Value)
	}
	if listed != 1 {
		t.Errorf("%d jobs in the subscription, want 1", listed)
	}
	deleting, err := jobs.BeginDelete(ctx, "ml", "batch", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deleting.PollUntilDone(ctx, often); err != nil {
		t.Fatal(err)
	}
}

func TestAJobMadeAgainHasNoOldEvents(t *testing.T) {
	s := platform(t)
	id := resource.JobID(subscription, "ml", "batch")
	messages := func() (all []string) {
		for e, err := range s.system.Read(t.Context(), logs.EventQuery{App: id}) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e.Message)
		}
		return all
	}
	late := func(message string) {
		s.system.Append(resource.Event{At: time.Now().UTC(), App: id, Message: message, Source: "Engine"})
	}
	s.job(job(t, "fake/done", nil))
	late("of the first job")
	s.await(s.want(202, "DELETE", jobPath+version, ""), "Location")
	late("of a job that has gone")
	if got := messages(); len(got) > 0 {
		t.Errorf("after the job has gone: %q, want no events", got)
	}
	s.job(job(t, "fake/done", nil))
	late("of the second job")
	got := messages()
	if !slices.Contains(got, "of the second job") || slices.ContainsFunc(got, func(m string) bool { return strings.Contains(m, "first") || strings.Contains(m, "gone") }) {
		t.Errorf("made again: %q, want only events of the second job", got)
	}
}
