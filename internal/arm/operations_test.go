package arm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"

	"penstock/internal/runtimes/fake"
)

// notHere are the operations of the SDK that are not built, alone or all of a client, with what they are answered. All
// others are called by TestEachOperation and have to succeed; one that is built only has to leave this list.
var notHere = map[string]string{
	"ConnectedEnvironments.BeginCreateOrUpdate":       "400 FeatureNotSupported",
	"ConnectedEnvironments.CheckNameAvailability":     "404 ResourceNotFound",
	"ConnectedEnvironments.Get":                       "404 ResourceNotFound",
	"ConnectedEnvironments.Update":                    "404 ResourceNotFound",
	"ConnectedEnvironmentsCertificates.*":             "404 ParentResourceNotFound",
	"ConnectedEnvironmentsDaprComponents.*":           "404 ParentResourceNotFound",
	"ConnectedEnvironmentsStorages.*":                 "404 ParentResourceNotFound",
	"ContainerAppsAuthConfigs.CreateOrUpdate":         "400 FeatureNotSupported",
	"ContainerAppsAuthConfigs.Get":                    "404 ResourceNotFound",
	"ContainerAppsDiagnostics.GetDetector":            "404 ResourceNotFound",
	"ContainerAppsDiagnostics.GetRevision":            "404 InvalidResourceType",
	"ContainerAppsDiagnostics.GetRoot":                "404 InvalidResourceType",
	"ContainerAppsDiagnostics.NewListRevisionsPager":  "404 InvalidResourceType",
	"ContainerAppsSessionPools.BeginCreateOrUpdate":   "400 FeatureNotSupported",
	"ContainerAppsSessionPools.BeginUpdate":           "404 ResourceNotFound",
	"ContainerAppsSessionPools.Get":                   "404 ResourceNotFound",
	"ContainerAppsSourceControls.BeginCreateOrUpdate": "400 FeatureNotSupported",
	"ContainerAppsSourceControls.Get":                 "404 ResourceNotFound",
	"DaprComponents.CreateOrUpdate":                   "400 FeatureNotSupported",
	"DaprComponents.Get":                              "404 ResourceNotFound",
	"DaprComponents.ListSecrets":                      "404 ResourceNotFound",
	"JavaComponents.BeginCreateOrUpdate":              "400 FeatureNotSupported",
	"JavaComponents.BeginUpdate":                      "404 ResourceNotFound",
	"JavaComponents.Get":                              "404 ResourceNotFound",
	"Jobs.GetDetector":                                "404 ResourceNotFound",
	"Jobs.ProxyGet":                                   "404 InvalidResourceType",
	"ManagedCertificates.BeginCreateOrUpdate":         "400 FeatureNotSupported",
	"ManagedCertificates.Get":                         "404 ResourceNotFound",
	"ManagedCertificates.Update":                      "404 ResourceNotFound",
	"ManagedEnvironmentDiagnostics.GetDetector":       "404 ResourceNotFound",
	"ManagedEnvironmentsDiagnostics.GetRoot":          "404 InvalidResourceType",
}

// Each operation of each client of the Azure SDK for Go is either here and does what it says, down to the end of what it
// begins, or is refused by name. docs/compatibility.md has the table of both.
func TestEachOperation(t *testing.T) {
	s := platform(t)
	clients, err := armappcontainers.NewClientFactory(subscription, credential(token), &azarm.ClientOptions{
		DisableRPRegistration: true,
		ClientOptions: policy.ClientOptions{
			Cloud: cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
				cloud.ResourceManager: {Endpoint: s.URL, Audience: s.URL},
			}},
			Transport: s.Client(),
			Retry:     policy.RetryOptions{MaxRetries: -1},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := caller{server: s, factory: reflect.ValueOf(clients), ctx: t.Context()}
	w.prepare()
	driven, refused := map[string][]string{}, map[string][]string{}
	left := maps.Clone(notHere)
	for _, op := range w.operations() {
		client, method, _ := strings.Cut(op, ".")
		want, listed := notHere[client+".*"]
		delete(left, client+".*")
		if own, alone := notHere[op]; alone {
			want, listed = own, true
			delete(left, op)
		}
		if listed {
			refused[client] = append(refused[client], method+" ("+want+")")
		} else {
			driven[client] = append(driven[client], method)
		}
		t.Run(op, func(t *testing.T) {
			err := w.call(t, client, method)
			got := ""
			if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
				got = fmt.Sprint(answer.StatusCode, " ", answer.ErrorCode)
				if kind := answer.RawResponse.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
					t.Errorf("the error is %s, want JSON", kind)
				}
			} else if err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	for op := range left {
		t.Errorf("notHere lists %s, which the SDK has not", op)
	}
	checkPage(t, driven, refused)
}

// checkPage compares the table of the page with what was found; with -update it writes it.
func checkPage(t *testing.T, driven, refused map[string][]string) {
	t.Helper()
	const path, begin, end = "../../docs/compatibility.md", "| client of the SDK | called by a test | not here |\n| --- | --- | --- |\n", "\n\n"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), begin)
	table, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no table that begins with\n%s", path, begin)
	}
	names := slices.Collect(maps.Keys(driven))
	for name := range refused {
		if driven[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var rows []string
	for _, name := range names {
		no := strings.Join(refused[name], ", ")
		if answer, all := notHere[name+".*"]; all {
			no = "all (" + answer + ")"
		}
		slices.Sort(driven[name])
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |", name, strings.Join(driven[name], ", "), no))
	}
	want := strings.Join(rows, "\n")
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != want {
		t.Errorf("%s is not what was found; run with -update. It should say\n%s", path, want)
	}
}

// caller calls operations of the SDK by name, with arguments that make sense here.
type caller struct {
	*server
	factory reflect.Value
	ctx     context.Context

	revision, replica, execution string
}

// prepare makes an app with a replica, and a job with an execution.
func (w *caller) prepare() {
	w.t.Helper()
	w.want(201, "PUT", base+"/containerApps/chat"+version, chat(func(properties, _, container map[string]any) {
		container["image"] = fake.Echo
		properties["configuration"].(map[string]any)["secrets"] = []any{map[string]any{"name": "key", "value": "v"}}
	}))
	w.want(201, "PUT", jobPath+version, job(w.t.(*testing.T), fake.Echo, nil))
	for deadline := time.Now().Add(20 * time.Second); w.replica == ""; {
		if time.Now().After(deadline) {
			w.t.Fatal("no replica came")
		}
		w.revision, _ = w.want(200, "GET", base+"/containerApps/chat"+version, "").get(w.t, "properties", "latestReadyRevisionName").(string)
		if w.revision != "" {
			w.replica, _ = w.want(200, "GET", chatRevisions+"/"+w.revision+"/replicas"+version, "").get(w.t, "value", 0, "name").(string)
		}
	}
	w.execution = w.begin("")
}

// operations are those of all clients, in an order in which each finds what it needs: what begins something first, what
// deletes last and an app or an environment after what is in it.
func (w *caller) operations() []string {
	var all []string
	for i := range w.factory.NumMethod() {
		client := strings.TrimSuffix(strings.TrimPrefix(w.factory.Type().Method(i).Name, "New"), "Client")
		of := w.factory.Method(i).Type().Out(0)
		for method := range of.Methods() {
			all = append(all, client+"."+method.Name)
		}
	}
	rank := func(op string) int {
		switch client, method, _ := strings.Cut(op, "."); {
		case strings.HasSuffix(method, "Delete") && client == "ManagedEnvironments":
			return 5
		case strings.HasSuffix(method, "Delete") && (client == "ContainerApps" || client == "Jobs"):
			return 4
		case strings.HasSuffix(method, "Delete"):
			return 3
		case strings.Contains(method, "Stop") || strings.HasPrefix(method, "Deactivate"):
			return 2
		case strings.Contains(method, "Create"):
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b string) int { return rank(a) - rank(b) })
	return all
}

// names are the arguments of a client's operations that are text.
func (w *caller) names(client string) []string {
	switch {
	case client == "Usages" || client == "AvailableWorkloadProfiles" || client == "BillingMeters":
		return []string{"koreacentral"}
	case strings.HasPrefix(client, "Jobs"):
		return []string{"ml", "batch", w.execution}
	case client == "ContainerAppsAPI":
		return []string{"ml", "batch", w.execution}
	case strings.HasPrefix(client, "ContainerApps"):
		return []string{"ml", "chat", w.revision, w.replica}
	}
	return []string{"ml", "e", "x", "y"}
}

// call calls an operation and follows what it begins to its end.
func (w *caller) call(t *testing.T, client, method string) error {
	t.Helper()
	f := w.factory.MethodByName("New" + client + "Client").Call(nil)[0].MethodByName(method)
	names := w.names(client)
	var in []reflect.Value
	for in0 := range f.Type().Ins() {
		switch want := in0; {
		case want == reflect.TypeFor[context.Context]():
			in = append(in, reflect.ValueOf(w.ctx))
		case want.Kind() == reflect.String:
			in = append(in, reflect.ValueOf(names[0]))
			names = names[1:]
		case want.Kind() == reflect.Struct:
			in = append(in, w.body(want))
		case want == reflect.TypeFor[*armappcontainers.ContainerAppsClientListCustomHostNameAnalysisOptions]():
			in = append(in, reflect.ValueOf(&armappcontainers.ContainerAppsClientListCustomHostNameAnalysisOptions{CustomHostname: new("mine.example.com")}))
		case want == reflect.TypeFor[*armappcontainers.CertificatesClientCreateOrUpdateOptions]():
			var sent struct{ Properties struct{ Value []byte } }
			body, _ := upload(t, time.Hour, "mine.example.com")
			if err := json.Unmarshal([]byte(body), &sent); err != nil {
				t.Fatal(err)
			}
			in = append(in, reflect.ValueOf(&armappcontainers.CertificatesClientCreateOrUpdateOptions{CertificateEnvelope: &armappcontainers.Certificate{
				Location: new("koreacentral"), Properties: &armappcontainers.CertificateProperties{Value: sent.Properties.Value},
			}}))
		default:
			in = append(in, reflect.Zero(want))
		}
	}
	out := f.Call(in)
	failed := func(out []reflect.Value) error {
		err, _ := out[len(out)-1].Interface().(error)
		return err
	}
	ctx := []reflect.Value{reflect.ValueOf(w.ctx)}
	switch {
	case strings.HasSuffix(method, "Pager"):
		pages := 0
		for out[0].MethodByName("More").Call(nil)[0].Bool() {
			if err := failed(out[0].MethodByName("NextPage").Call(ctx)); err != nil {
				return err
			}
			pages++
		}
		if pages == 0 {
			t.Error("the pager had no page")
		}
	case failed(out) != nil:
		return failed(out)
	case strings.HasPrefix(method, "Begin"):
		for deadline := time.Now().Add(20 * time.Second); !out[0].MethodByName("Done").Call(nil)[0].Bool(); {
			if err := failed(out[0].MethodByName("Poll").Call(ctx)); err != nil {
				return err
			}
			if time.Now().After(deadline) {
				t.Fatal("the operation did not end")
			}
		}
		return failed(out[0].MethodByName("Result").Call(ctx))
	}
	return nil
}

// body is a value of a type that an operation sends.
func (w *caller) body(typ reflect.Type) reflect.Value {
	environment := new(base + "/managedEnvironments/e")
	// As prepare has it, so that the revision stays.
	containers := []*armappcontainers.Container{{
		Name: new("chat"), Image: to.Ptr(fake.Echo), Resources: &armappcontainers.ContainerResources{CPU: new(0.5), Memory: new("1Gi")},
	}}
	for _, v := range []any{
		armappcontainers.ManagedEnvironment{Location: new("koreacentral"), Properties: &armappcontainers.ManagedEnvironmentProperties{}},
		armappcontainers.ContainerApp{Location: new("koreacentral"), Properties: &armappcontainers.ContainerAppProperties{
			EnvironmentID: environment, Template: &armappcontainers.Template{Containers: containers},
		}},
		armappcontainers.Job{Location: new("koreacentral"), Properties: &armappcontainers.JobProperties{
			EnvironmentID: environment,
			Configuration: &armappcontainers.JobConfiguration{TriggerType: to.Ptr(armappcontainers.TriggerTypeManual), ReplicaTimeout: to.Ptr[int32](60)},
			Template:      &armappcontainers.JobTemplate{Containers: containers},
		}},
		armappcontainers.ManagedEnvironmentStorage{Properties: &armappcontainers.ManagedEnvironmentStorageProperties{
			AzureFile: &armappcontainers.AzureFileProperties{
				AccountName: new("models"), AccountKey: new("a2V5"), ShareName: new("chat"), AccessMode: to.Ptr(armappcontainers.AccessModeReadWrite),
			},
		}},
		armappcontainers.CheckNameAvailabilityRequest{Name: new("x"), Type: new("Microsoft.App/managedEnvironments/certificates")},
	} {
		if reflect.TypeOf(v) == typ {
			return reflect.ValueOf(v)
		}
	}
	return reflect.Zero(typ)
}
