package app_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

const environmentPath = "/subscriptions/s/resourceGroups/g/providers/Microsoft.App/managedEnvironments/e"

// samples holds, for every field that is not built, a value that asks for something.
var samples = map[string]string{
	resource.TypeApp + " kind":                                                                       `"functionapp"`,
	resource.TypeApp + " plan":                                                                       `{"name":"x","publisher":"y"}`,
	resource.TypeApp + " sku":                                                                        `{"name":"Premium"}`,
	resource.TypeApp + " zones":                                                                      `["1"]`,
	resource.TypeEnvironment + " plan":                                                               `{"name":"x","publisher":"y"}`,
	resource.TypeEnvironment + " zones":                                                              `["1"]`,
	resource.TypeEnvironment + " properties.workloadProfiles[].enableFips":                           `true`,
	resource.TypeApp + " properties.delegatedIdentities":                                             `[{"identity":"x"}]`,
	resource.TypeApp + " managedBy":                                                                  `"/subscriptions/s"`,
	resource.TypeApp + " extendedLocation":                                                           `{"name":"x","type":"CustomLocation"}`,
	resource.TypeApp + " identity":                                                                   `{"type":"SystemAssigned"}`,
	resource.TypeApp + " properties.workloadProfileType":                                             `"D4"`,
	resource.TypeApp + " properties.networking":                                                      `{"outboundVnetSubnetId":"x"}`,
	resource.TypeApp + " properties.patchingConfiguration":                                           `{"patchingMode":"Automatic"}`,
	resource.TypeApp + " configuration.activeRevisionsMode":                                          `"Labels"`,
	resource.TypeApp + " configuration.secrets[].keyVaultUrl":                                        `"https://vault.example/secrets/key"`,
	resource.TypeApp + " configuration.secrets[].identity":                                           `"system"`,
	resource.TypeApp + " configuration.registries[].identity":                                        `"system"`,
	resource.TypeApp + " configuration.dapr":                                                         `{"enabled":true,"appId":"chat"}`,
	resource.TypeApp + " configuration.runtime":                                                      `{"java":{"enableMetrics":true}}`,
	resource.TypeApp + " configuration.service":                                                      `{"type":"redis"}`,
	resource.TypeApp + " configuration.identitySettings":                                             `[{"identity":"system"}]`,
	resource.TypeApp + " configuration.revisionTransitionThreshold":                                  `50`,
	resource.TypeApp + " configuration.targetLabel":                                                  `"blue"`,
	resource.TypeApp + " template.volumes[].storageType":                                             `"Smb"`,
	resource.TypeApp + " template.volumes[].mountOptions":                                            `"dir_mode=0777,uid=1000"`,
	resource.TypeStorage + " properties.azureFile.accountKeyVaultProperties":                         `{"keyVaultUrl":"https://v","identity":"system"}`,
	resource.TypeStorage + " properties.azureFile.identity":                                          `"system"`,
	resource.TypeApp + " template.serviceBinds":                                                      `[{"name":"redis"}]`,
	resource.TypeApp + " template.containers[].imageType":                                            `"CloudBuild"`,
	resource.TypeApp + " template.initContainers[].imageType":                                        `"CloudBuild"`,
	resource.TypeApp + " template.containers[].probes[].tcpSocket.host":                              `"db.example"`,
	resource.TypeApp + " template.containers[].resources.gpu":                                        `1`,
	resource.TypeApp + " template.initContainers[].resources.gpu":                                    `1`,
	resource.TypeApp + " template.scale.rules[].azureQueue":                                          `{"queueName":"q","queueLength":5}`,
	resource.TypeJob + " configuration.eventTriggerConfig.scale.rules[].type":                        `"kafka"`,
	resource.TypeApp + " template.scale.rules[].custom.type":                                         `"kafka"`,
	resource.TypeJob + " configuration.triggerType":                                                  `"Event"`,
	resource.TypeJob + " configuration.eventTriggerConfig":                                           `{"parallelism":1}`,
	resource.TypeCertificate + " properties.certificateKeyVaultProperties":                           `{"keyVaultUrl":"https://v"}`,
	resource.TypeCertificate + " properties.certificateType":                                         `"ImagePullTrustedCA"`,
	resource.TypeEnvironment + " kind":                                                               `"other"`,
	resource.TypeEnvironment + " identity":                                                           `{"type":"SystemAssigned"}`,
	resource.TypeEnvironment + " sku":                                                                `{"name":"Premium"}`,
	resource.TypeEnvironment + " properties.environmentMode":                                         `"Express"`,
	resource.TypeEnvironment + " properties.appLogsConfiguration":                                    `{"destination":"log-analytics","logAnalyticsConfiguration":{"customerId":"c","sharedKey":"hidden"}}`,
	resource.TypeEnvironment + " properties.zoneRedundant":                                           `true`,
	resource.TypeEnvironment + " properties.vnetConfiguration":                                       `{"infrastructureSubnetId":"/subscriptions/s"}`,
	resource.TypeEnvironment + " properties.vnetConfiguration.internal":                              `true`,
	resource.TypeEnvironment + " properties.vnetConfiguration.outboundSettings":                      `{"outBoundType":"LoadBalancer"}`,
	resource.TypeEnvironment + " properties.internalLoadBalancerEnabled":                             `true`,
	resource.TypeEnvironment + " properties.infrastructureResourceGroup":                             `"infra"`,
	resource.TypeEnvironment + " properties.workloadProfiles[].workloadProfileType":                  `"NC24-A100"`,
	resource.TypeEnvironment + " properties.workloadProfiles[].maximumCount":                         `3`,
	resource.TypeEnvironment + " properties.customDomainConfiguration.dnsSuffix":                     `"apps.example"`,
	resource.TypeEnvironment + " properties.customDomainConfiguration.certificateValue":              `"AA=="`,
	resource.TypeEnvironment + " properties.customDomainConfiguration.certificatePassword":           `"p"`,
	resource.TypeEnvironment + " properties.customDomainConfiguration.certificateKeyVaultProperties": `{"keyVaultUrl":"https://v"}`,
	resource.TypeEnvironment + " properties.daprAIInstrumentationKey":                                `"k"`,
	resource.TypeEnvironment + " properties.daprAIConnectionString":                                  `"k"`,
	resource.TypeEnvironment + " properties.appInsightsConfiguration":                                `{"connectionString":"k"}`,
	resource.TypeEnvironment + " properties.openTelemetryConfiguration":                              `{"tracesConfiguration":{"destinations":["appInsights"]}}`,
	resource.TypeEnvironment + " properties.ingressConfiguration.workloadProfileName":                `"Ingress-D4"`,
	resource.TypeEnvironment + " properties.ingressConfiguration.terminationGracePeriodSeconds":      `500`,
	resource.TypeEnvironment + " properties.ingressConfiguration.scale":                              `{"minReplicas":2}`,
	resource.TypeEnvironment + " properties.peerAuthentication.mtls":                                 `{"enabled":true}`,
	resource.TypeEnvironment + " properties.peerTrafficConfiguration.encryption":                     `{"enabled":true}`,
	resource.TypeEnvironment + " properties.publicNetworkAccess":                                     `"Disabled"`,
	resource.TypeEnvironment + " properties.availabilityZones":                                       `["1"]`,
	resource.TypeEnvironment + " properties.diskEncryptionConfiguration":                             `{"keyVaultConfiguration":{"keyUrl":"k"}}`,
}

// set puts a value at a path of a document; [] is the first element of a list.
func set(doc map[string]any, path string, v any) {
	if strings.HasPrefix(path, "template") || strings.HasPrefix(path, "configuration") {
		path = "properties." + path
	}
	parts := strings.Split(path, ".")
	at := doc
	for _, part := range parts[:len(parts)-1] {
		name, isList := strings.CutSuffix(part, "[]")
		if isList {
			if at[name] == nil {
				at[name] = []any{map[string]any{"name": "a"}}
				if name == "rules" && strings.HasPrefix(path, "properties.configuration") {
					doc["properties"].(map[string]any)["configuration"].(map[string]any)["triggerType"] = "Event"
					at[name] = []any{map[string]any{"name": "a"}, map[string]any{"name": "b", "type": "external", "metadata": map[string]any{"scalerAddress": "b:80"}}}
				}
				if name == "probes" {
					at[name] = []any{map[string]any{"type": "Liveness", "tcpSocket": map[string]any{"port": 80}}}
				}
				if name == "workloadProfiles" {
					at[name] = []any{map[string]any{"name": "a", "workloadProfileType": "D4", "maximumCount": 1}}
				}
				if name == "volumes" {
					at[name] = []any{map[string]any{"name": "v", "storageType": "AzureFile", "storageName": "share"}}
					if strings.HasSuffix(path, ".storageType") {
						at[name] = []any{map[string]any{"name": "v"}}
					}
				}
				if name == "registries" {
					at[name] = []any{map[string]any{"server": "registry.example"}}
				}
				if name == "initContainers" {
					at[name] = []any{map[string]any{"name": "init", "image": "chat:1"}}
				}
			}
			at = at[name].([]any)[0].(map[string]any)
			continue
		}
		if at[name] == nil {
			at[name] = map[string]any{}
		}
		at = at[name].(map[string]any)
	}
	at[parts[len(parts)-1]] = v
}

func minimal(t testing.TB, typ string) map[string]any {
	t.Helper()
	if typ == resource.TypeStorage {
		return document(t, `{"properties":{"azureFile":{"accountName":"models","accountKey":"hidden","shareName":"chat","accessMode":"ReadOnly"}}}`)
	}
	if typ == resource.TypeEnvironment || typ == resource.TypeCertificate {
		return document(t, `{"location":"koreacentral","properties":{}}`)
	}
	if typ == resource.TypeJob {
		return document(t, `{"location":"koreacentral","properties":{"environmentId":"`+environmentPath+`",
			"configuration":{"triggerType":"Manual","replicaTimeout":60},
			"template":{"containers":[{"name":"chat","image":"chat:1"}]}}}`)
	}
	return document(t, `{"location":"koreacentral","properties":{"environmentId":"`+environmentPath+`",
		"configuration":{"ingress":{"targetPort":8080}},
		"template":{"containers":[{"name":"chat","image":"chat:1"}]}}}`)
}

// read reads a document of a type and writes it again.
func read(t testing.TB, typ string, doc map[string]any) (again map[string]any, notes []string, err error) {
	t.Helper()
	body, fail := json.Marshal(doc)
	if fail != nil {
		t.Fatal(fail)
	}
	if typ == resource.TypeCertificate {
		c, notes, err := app.ReadCertificate(resource.EnvironmentID("s", "g", "e").Child("certificates", "site"), body)
		return document(t, app.NewCertificate(c, time.Now())), notes, err
	}
	if typ == resource.TypeStorage {
		s, notes, err := app.ReadStorage(resource.EnvironmentID("s", "g", "e").Child("storages", "models"), body)
		return document(t, app.NewStorage(s)), notes, err
	}
	if typ == resource.TypeEnvironment {
		e, notes, err := app.ReadEnvironment(resource.EnvironmentID("s", "g", "e"), body)
		return document(t, app.NewEnvironment(e, site)), notes, err
	}
	if typ == resource.TypeJob {
		j, notes, err := app.ReadJob(resource.JobID("s", "g", "chat"), body)
		return document(t, app.NewJob(j, site)), notes, err
	}
	a, notes, err := app.ReadApp(resource.AppID("s", "g", "chat"), body)
	return document(t, app.NewContainerApp(a, "penstock.localhost", site)), notes, err
}

// Nothing that Azure knows is taken and forgotten: every field of the list is refused by name, or echoed with a note.
func TestUnbuiltFields(t *testing.T) {
	for _, f := range app.Fields() {
		t.Run(strings.ReplaceAll(f.Type+" "+f.Path, "/", " "), func(t *testing.T) {
			sample, ok := samples[f.Type+" "+f.Path]
			if !ok && f.Type == resource.TypeJob { // as in an app
				sample, ok = samples[resource.TypeApp+" "+f.Path]
			}
			if !ok {
				t.Fatal("the test has no sample of this field")
			}
			var v any
			if err := json.Unmarshal([]byte(sample), &v); err != nil {
				t.Fatal(err)
			}
			doc := minimal(t, f.Type)
			set(doc, f.Path, v)
			again, notes, err := read(t, f.Type, doc)
			field := strings.ReplaceAll(f.Path, "[]", "[0]")
			if f.Effect == app.Refused {
				invalid, ok := errors.AsType[*resource.InvalidError](err)
				if !ok || len(invalid.Faults) != 1 || invalid.Faults[0].Code != "FeatureNotSupported" || invalid.Faults[0].Field != field {
					t.Fatalf("got %v, want one refusal of %s", err, field)
				}
			} else {
				if err != nil || len(notes) != 1 || !strings.HasPrefix(notes[0], field+" ") {
					t.Fatalf("got %v, notes %q; want it stored with a note", err, notes)
				}
				text, _ := json.Marshal(again)
				want, _ := json.Marshal(v)
				if kept := strings.Replace(string(want), `,"sharedKey":"hidden"`, "", 1); !strings.Contains(string(text), kept) {
					t.Errorf("stored %s, but the answer is\n%s", kept, text)
				}
				if strings.Contains(string(text), "hidden") {
					t.Error("a key is answered")
				}
			}
			for _, nothing := range []any{nil, []any{}, map[string]any{}} {
				doc := minimal(t, f.Type)
				set(doc, f.Path, nothing)
				_, notes, err := read(t, f.Type, doc)
				if invalid, ok := errors.AsType[*resource.InvalidError](err); ok && invalid.Faults[0].Code == "FeatureNotSupported" || len(notes) > 0 {
					t.Errorf("%v asks for nothing, got %v, notes %q", nothing, err, notes)
				}
			}
		})
	}
}

// What is not built may still be said when it says no more than what happens anyway.
func TestHarmlessValues(t *testing.T) {
	tests := []struct{ typ, path, value, echo string }{
		{resource.TypeApp, "configuration.activeRevisionsMode", `"single"`, `"activeRevisionsMode":"Single"`},
		{resource.TypeApp, "configuration.maxInactiveRevisions", `5`, `"maxInactiveRevisions":5`},
		{resource.TypeApp, "configuration.dapr", `{"enabled":false,"appId":"chat"}`, `"dapr":{"enabled":false,"appId":"chat"}`},
		{resource.TypeApp, "configuration.ingress.transport", `"HTTP"`, `"transport":"Http"`},
		{resource.TypeApp, "configuration.ingress.targetPort", `0`, `"targetPort":0`},
		{resource.TypeApp, "configuration.ingress.targetPort", `null`, `"targetPort":0`},
		{resource.TypeApp, "configuration.ingress.targetPortHttpScheme", `"HTTPS"`, `"targetPortHttpScheme":"https"`},
		{resource.TypeApp, "configuration.ingress.targetPortHttpScheme", `"http"`, `"targetPortHttpScheme":"http"`},
		{resource.TypeApp, "configuration.ingress.exposedPort", `0`, `"exposedPort":0`},
		{resource.TypeApp, "configuration.ingress.traffic", `[{"latestRevision":true,"weight":100}]`, `"traffic":[{"weight":100,"latestRevision":true}]`},
		{resource.TypeApp, "configuration.ingress.stickySessions", `{"affinity":"none"}`, `"stickySessions":{"affinity":"none"}`},
		{resource.TypeApp, "configuration.ingress.clientCertificateMode", `"Ignore"`, `"clientCertificateMode":"Ignore"`},
		{resource.TypeApp, "properties.workloadProfileName", `"Consumption"`, `"workloadProfileName":"Consumption"`},
		{resource.TypeApp, "template.containers[].imageType", `"ContainerImage"`, `"imageType":"ContainerImage"`},
		{resource.TypeEnvironment, "properties.publicNetworkAccess", `"Enabled"`, `"publicNetworkAccess":"Enabled"`},
		{resource.TypeApp, "template.scale.cooldownPeriod", `60`, `"cooldownPeriod":60`},
		{resource.TypeEnvironment, "properties.workloadProfiles", `[{"name":"Consumption","workloadProfileType":"Consumption"}]`, `"workloadProfiles":[{"name":"Consumption","workloadProfileType":"Consumption"}]`},
		{resource.TypeEnvironment, "properties.ingressConfiguration", `{"requestIdleTimeout":30,"headerCountLimit":200}`, `"ingressConfiguration":{"requestIdleTimeout":30,"headerCountLimit":200}`},
		{resource.TypeEnvironment, "properties.vnetConfiguration", `{"internal":false}`, `"internal":false`},
		{resource.TypeEnvironment, "properties.peerAuthentication.mtls", `{"enabled":false}`, `"peerAuthentication":{"mtls":{"enabled":false}}`},
	}
	for _, test := range tests {
		t.Run(test.path, func(t *testing.T) {
			var v any
			if err := json.Unmarshal([]byte(test.value), &v); err != nil {
				t.Fatal(err)
			}
			doc := minimal(t, test.typ)
			set(doc, test.path, v)
			body, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			var answer any
			var notes []string
			if test.typ == resource.TypeEnvironment {
				var e resource.Environment
				e, notes, err = app.ReadEnvironment(resource.EnvironmentID("s", "g", "e"), body)
				answer = app.NewEnvironment(e, site)
			} else {
				var a resource.App
				a, notes, err = app.ReadApp(resource.AppID("s", "g", "chat"), body)
				answer = app.NewContainerApp(a, "penstock.localhost", site)
			}
			if err != nil || len(notes) > 0 {
				t.Fatalf("got %v, notes %q", err, notes)
			}
			if text, err := json.Marshal(answer); err != nil || !strings.Contains(string(text), test.echo) {
				t.Errorf("want %s in the answer, got %v\n%s", test.echo, err, text)
			}
		})
	}
}

var update = flag.Bool("update", false, "rewrite testdata/fields.json")

// The list is kept as a file too, for the compatibility page and for programs.
func TestFieldsFile(t *testing.T) {
	got, err := json.MarshalIndent(app.Fields(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile("testdata/fields.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/fields.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("testdata/fields.json (-file +list); run with -update:\n%s", diff)
	}
}

// The compatibility page has a row for each field, in the section of its type, and no other.
func TestFieldsPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), "## Fields that are stored or refused\n")
	list, _, _ = strings.Cut(list, "\n## ")
	want := map[string]bool{}
	for _, f := range app.Fields() {
		want[fmt.Sprintf("%s: | `%s` | %s | %s | %s |", sectionOf(f.Type), f.Path, f.Effect, f.Except, f.Why)] = true
	}
	section := ""
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "### "); ok {
			section = name
		}
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		if row := section + ": " + line; !want[row] {
			t.Errorf("docs/compatibility.md has a row of no field: %s", row)
		} else {
			delete(want, row)
		}
	}
	for row := range want {
		t.Errorf("docs/compatibility.md lacks %s", row)
	}
}

func sectionOf(typ string) string {
	return map[string]string{resource.TypeApp: "Container apps", resource.TypeEnvironment: "Environments", resource.TypeJob: "Jobs", resource.TypeCertificate: "Certificates", resource.TypeStorage: "Storages"}[typ]
}
