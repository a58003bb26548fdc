package app_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

// exchange is one recorded request with Azure's answer.
type exchange struct {
	Source   string            `json:"source"`
	Method   string            `json:"method"`
	URI      string            `json:"uri"`
	Request  string            `json:"request"`
	Status   int               `json:"status"`
	Headers  map[string]string `json:"headers"`
	Response string            `json:"response"`
}

func recorded(t testing.TB) []exchange {
	t.Helper()
	f, err := os.Open("testdata/recorded.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []exchange
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e exchange
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// find returns the exchange whose address has all of these parts in it.
func find(t testing.TB, method, source, part string) exchange {
	t.Helper()
	all := recorded(t)
	i := slices.IndexFunc(all, func(e exchange) bool {
		return e.Method == method && strings.Contains(e.Source, source) && strings.Contains(e.URI, part)
	})
	if i < 0 {
		t.Fatalf("no recorded %s of %s in %s", method, part, source)
	}
	return all[i]
}

// missing are the fields of Azure's answer of 2022 that ours need not have, with the reason.
var missing = map[string]string{
	"properties.workloadProfileType":                         "was never filled in and is gone from later api-versions",
	"systemData.createdBy":                                   "there is one administrator, who has no name",
	"systemData.lastModifiedBy":                              "there is one administrator, who has no name",
	"properties.useKubenet":                                  "was Azure's own and is gone from later api-versions",
	"properties.useLegionServerlessCompute":                  "was Azure's own and is gone from later api-versions",
	"properties.customDomainConfiguration.expirationDateUtc": "there is no certificate of one's own that could expire",
	"properties.vnetConfiguration.outboundSettings":          "is refused",
	"properties.containers[0].execEndpoint":                  "running commands in a container is not built",
}

// shape compares two JSON documents: all that Azure has, with the same kinds of values, ours must have too.
func shape(t *testing.T, path string, azure, ours any) {
	t.Helper()
	if azure == nil {
		return // a block that is not set; ours may know a default
	}
	if fmt.Sprintf("%T", azure) != fmt.Sprintf("%T", ours) {
		t.Errorf("%s: Azure has %T %v, we have %T %v", path, azure, azure, ours, ours)
		return
	}
	switch azure := azure.(type) {
	case map[string]any:
		for name, v := range azure {
			at := strings.TrimPrefix(path+"."+name, ".")
			if _, excused := missing[at]; excused {
				continue
			}
			have, ok := ours.(map[string]any)[name]
			if !ok {
				t.Errorf("%s: Azure has it, we do not", at)
				continue
			}
			shape(t, at, v, have)
		}
	case []any:
		for i := range azure {
			if i < len(ours.([]any)) {
				shape(t, fmt.Sprintf("%s[%d]", path, i), azure[i], ours.([]any)[i])
			}
		}
	}
}

func document(t testing.TB, v any) (doc map[string]any) {
	t.Helper()
	text, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func idOf(t testing.TB, e exchange) resource.ID {
	t.Helper()
	path, _, _ := strings.Cut(e.URI, "?")
	id, err := resource.ParseID(path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var site = app.Site{Endpoint: "https://localhost:8444", Address: "127.0.0.1"}

// A new app as the Azure CLI writes it is read, and answered in the shape of Azure's answer.
func TestRecordedApp(t *testing.T) {
	e := find(t, "PUT", "test_containerapp_update.yaml", "containerApps/")
	a, notes, err := app.ReadApp(idOf(t, e), []byte(e.Request))
	if err != nil || len(notes) > 0 {
		t.Fatalf("got %v, notes %v", err, notes)
	}
	a.Generation, a.LatestRevision, a.Created, a.Modified = 1, "containerapp-update000004--qsybeig", time.Now(), time.Now()
	azure, ours := document(t, e.Response), document(t, app.NewContainerApp(a, "icybush-36fe4a11.eastus.azurecontainerapps.io", site))
	shape(t, "", azure, ours)
	for _, path := range [][]any{
		{"id"}, {"name"}, {"type"}, {"location"},
		{"properties", "environmentId"}, {"properties", "managedEnvironmentId"}, {"properties", "provisioningState"},
		{"properties", "latestRevisionFqdn"},
		{"properties", "configuration", "activeRevisionsMode"}, {"properties", "configuration", "ingress"},
		{"properties", "template", "revisionSuffix"},
		{"properties", "template", "scale", "minReplicas"}, {"properties", "template", "scale", "maxReplicas"}, {"properties", "template", "scale", "rules"},
		{"properties", "template", "containers", 0, "resources", "cpu"}, {"properties", "template", "containers", 0, "resources", "memory"},
		{"identity"},
	} {
		if got, want := fmt.Sprint(dig(ours, path...)), fmt.Sprint(dig(azure, path...)); got != want {
			t.Errorf("%v: got %s, want %s", path, got, want)
		}
	}
}

func dig(v any, path ...any) any {
	for _, p := range path {
		switch at := p.(type) {
		case string:
			v = v.(map[string]any)[at]
		case int:
			v = v.([]any)[at]
		}
	}
	return v
}

// Clients that change one thing send all that they read back. What is only to be read must not stand in their way.
func TestRecordedAppThatWasRead(t *testing.T) {
	e := find(t, "PUT", "test_containerapp_identity_user.yaml", "containerApps/")
	doc := document(t, e.Request)
	doc["identity"] = map[string]any{"type": "None"}
	body, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	a, notes, err := app.ReadApp(idOf(t, e), body)
	if err != nil || len(notes) > 0 {
		t.Fatalf("got %v, notes %v", err, notes)
	}
	if a.Template.Containers[0].Resources != (resource.Resources{MilliCPU: 500, Memory: 1 << 30}) {
		t.Errorf("got %+v", a.Template.Containers[0].Resources)
	}
}

func TestRecordedEnvironment(t *testing.T) {
	e := find(t, "PUT", "test_containerapp_env_logs_e2e.yaml", "managedEnvironments/")
	env, notes, err := app.ReadEnvironment(idOf(t, e), []byte(e.Request))
	if err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "properties.appLogsConfiguration") {
		t.Errorf("notes %q", notes)
	}
	// The recorded write was not the environment's first.
	env.DefaultDomain, env.Generation, env.Observed = "penstock.localhost", 2, 1
	azure, ours := document(t, e.Response), document(t, app.NewEnvironment(env, site))
	shape(t, "", azure, ours)
	for _, name := range []string{"provisioningState", "zoneRedundant"} {
		if got, want := dig(ours, "properties", name), dig(azure, "properties", name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	for want, change := range map[string]func(*resource.Environment){
		"Succeeded":          func(*resource.Environment) {},
		"Failed":             func(e *resource.Environment) { e.Failure = "no addresses are left" },
		"ScheduledForDelete": func(e *resource.Environment) { e.Deleted = time.Now() },
	} {
		env := env
		env.Observed = env.Generation
		change(&env)
		if got := app.NewEnvironment(env, site).Properties.ProvisioningState; got != want {
			t.Errorf("%s is answered as %s, want %s", env.Provisioning(), got, want)
		}
	}
}

func TestRecordedRevisionAndReplica(t *testing.T) {
	a, _, err := app.ReadApp(resource.AppID("s", "g", "capp000002"), []byte(`{"location":"northeurope","properties":{
		"environmentId":"/subscriptions/s/resourceGroups/g/providers/Microsoft.App/managedEnvironments/e",
		"configuration":{"ingress":{"external":true,"targetPort":80}},
		"template":{"containers":[{"name":"capp000002","image":"i","command":["/code/entrypoint.sh"],"args":["echo"],"resources":{"cpu":1.25,"memory":"2.5Gi"}}],"scale":{"minReplicas":1}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	a.LatestRevision = "capp000002--hep3vs6"
	rev := resource.Revision{ID: a.ID.Child("revisions", a.LatestRevision), Template: a.Template, RevisionStatus: resource.RevisionStatus{State: resource.RevisionActivationFailed, Reason: "three starts failed"}}
	e := find(t, "GET", "test_containerapp_logstream.yaml", "/revisions/")
	azure, ours := document(t, e.Response), document(t, app.NewRevision(rev, a, "penstock.localhost", 0))
	shape(t, "", azure, ours)
	for _, name := range []string{"healthState", "provisioningState", "trafficWeight", "active", "replicas"} {
		if got, want := dig(ours, "properties", name), dig(azure, "properties", name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}

	r := resource.Replica{
		Name: "capp000002--hep3vs6-6d68cfc8cb-kngzq", Revision: rev.ID, State: resource.ReplicaWaiting,
		Containers: []resource.ContainerStatus{{Name: "capp000002", ID: "containerd://1c55", Restarts: 2, LastExit: &resource.Exit{Code: 137, Reason: "OOMKilled"}}},
	}
	e = find(t, "GET", "test_containerapp_logstream.yaml", "/replicas/")
	azure, ours = document(t, e.Response), document(t, app.NewReplica(r, site))
	shape(t, "", azure, ours)
	if got := dig(ours, "properties", "containers", 0, "runningStateDetails"); got != "OOMKilled" {
		t.Errorf("a container that was killed for its memory is shown with %v", got)
	}
	want := "https://localhost:8444/subscriptions/s/resourceGroups/g/containerApps/capp000002/revisions/capp000002--hep3vs6/replicas/capp000002--hep3vs6-6d68cfc8cb-kngzq/containers/capp000002/logstream"
	if got := dig(ours, "properties", "containers", 0, "logStreamEndpoint"); got != want {
		t.Errorf("logs are at %v, want %s", got, want)
	}
}

// Two containers that share a replica, in the words of Azure's own template.
func TestQuickstart(t *testing.T) {
	body, err := os.ReadFile("testdata/azurevote.json")
	if err != nil {
		t.Fatal(err)
	}
	a, notes, err := app.ReadApp(resource.AppID("s", "g", "app-vote"), body)
	if err != nil || len(notes) > 0 {
		t.Fatalf("got %v, notes %q; want all of it to be done here", err, notes)
	}
	if c := a.Template.Containers; len(c) != 2 || c[0].Resources != (resource.Resources{MilliCPU: 250, Memory: 1 << 29}) || c[1].Name != "redis" {
		t.Errorf("got %+v", c)
	}
	doc := document(t, app.NewContainerApp(a, "penstock.localhost", site))
	if got := dig(doc, "properties", "template", "containers", 1, "resources", "ephemeralStorage"); got != "2Gi" {
		t.Errorf("half a vCPU comes with %v of disk", got)
	}
}
