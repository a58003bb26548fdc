package app_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

// asAzPrints returns the YAML in which az shows a resource that Azure has answered: with the fields that az adds, those of
// newer api-versions, and null in place of all that is not set.
func asAzPrints(t *testing.T, doc map[string]any) []byte {
	t.Helper()
	at := func(path ...any) map[string]any {
		m, _ := dig(doc, path...).(map[string]any)
		return m
	}
	maps.Copy(doc, map[string]any{"resourceGroup": "g", "extendedLocation": nil, "managedBy": "", "plan": nil, "sku": nil, "zones": nil, "kind": "containerapps"})
	maps.Copy(at("properties"), map[string]any{"delegatedIdentities": []any{}, "patchingMode": "Automatic", "aNewField": nil})
	maps.Copy(at("properties", "configuration"), map[string]any{"runtime": nil, "service": nil, "revisionTransitionThreshold": nil, "targetLabel": "", "identitySettings": []any{}})
	maps.Copy(at("properties", "template"), map[string]any{"serviceBinds": nil})
	for _, c := range at("properties", "template")["containers"].([]any) {
		c := c.(map[string]any)
		c["imageType"] = "ContainerImage"
		for _, name := range []string{"command", "args", "env", "volumeMounts"} {
			if c[name] == nil {
				c[name] = nil
			}
		}
		if c["probes"] == nil {
			c["probes"] = []any{}
		}
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What az containerapp show -o yaml prints of each example is the same app again.
func TestExamplesAsAzPrintsThem(t *testing.T) {
	files, err := filepath.Glob("../../../examples/*/app*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, body, err := app.ParseYAML(data)
		if err != nil {
			t.Fatal(err)
		}
		doc := document(t, string(body))
		set(doc, "properties.environmentId", environmentPath)
		if body, err = json.Marshal(doc); err != nil {
			t.Fatal(err)
		}
		a, _, err := app.ReadApp(resource.AppID("s", "g", name), body)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		text := asAzPrints(t, document(t, app.NewContainerApp(a, "penstock.localhost", site)))
		found, err := app.ParseManifests(text)
		if err != nil || len(found) != 1 || found[0].Name != name {
			t.Errorf("%s: got %+v, %v of\n%s", file, found, err, text)
			continue
		}
		b, notes, err := app.ReadApp(a.ID, found[0].Body)
		if err != nil || len(notes) > 0 || !b.Template.Equal(a.Template) {
			t.Errorf("%s: got %v, notes %q, %s", file, err, notes, cmp.Diff(a.Template, b.Template))
		}
	}
}

// complete holds a document of each type in which every optional block is filled.
var complete = map[string]string{
	resource.TypeApp + " with ingress": `{"location":"koreacentral","tags":{"penstock.retry":"all","team":"ml"},"properties":{
		"environmentId":"ENV","workloadProfileName":"Consumption",
		"configuration":{
			"activeRevisionsMode":"Multiple","maxInactiveRevisions":7,
			"secrets":[{"name":"key","value":"hidden"}],
			"registries":[{"server":"registry.example","username":"u","passwordSecretRef":"key"}],
			"dapr":{"enabled":false,"appId":"chat","appPort":80,"appProtocol":"http","enableApiLogging":true,"httpMaxRequestSize":4,"httpReadBufferSize":4,"logLevel":"info"},
			"ingress":{
				"external":true,"targetPort":8080,"transport":"http2","targetPortHttpScheme":"https","allowInsecure":true,
				"traffic":[{"latestRevision":true,"weight":80,"label":"new"},{"revisionName":"chat--one","weight":20,"label":"old"}],
				"ipSecurityRestrictions":[{"name":"office","description":"of Seoul","ipAddressRange":"192.0.2.0/24","action":"Allow"}],
				"clientCertificateMode":"accept",
				"corsPolicy":{"allowedOrigins":["https://shop.example","https://*.shop.example:8443"],"allowedMethods":["GET"],"allowedHeaders":["x-a"],"exposeHeaders":["x-b"],"maxAge":60,"allowCredentials":true},
				"additionalPortMappings":[{"external":false,"targetPort":9090,"exposedPort":9090}]}},
		"template":{
			"revisionSuffix":"two","terminationGracePeriodSeconds":60,
			"volumes":[{"name":"cache","storageType":"EmptyDir"},{"name":"keys","storageType":"Secret","secrets":[{"secretRef":"key","path":"api.key"}]},{"name":"models","storageType":"AzureFile","storageName":"share","mountOptions":"ro"}],
			"initContainers":[{"name":"Seed-DB","image":"seed:1","imageType":"ContainerImage","command":["/seed"],"args":["-v"],"env":[{"name":"A","value":"1"}],"resources":{"cpu":0.25,"memory":"0.5Gi"},"volumeMounts":[{"volumeName":"cache","mountPath":"/cache"}]}],
			"containers":[{"name":"chat","image":"chat:1","imageType":"ContainerImage","command":["/chat"],"args":["--threads","4"],
				"env":[{"name":"A","value":""},{"name":"B","secretRef":"key"}],"resources":{"cpu":0.5,"memory":"1Gi"},
				"volumeMounts":[{"volumeName":"cache","mountPath":"/cache","subPath":"chat"},{"volumeName":"keys","mountPath":"/keys"},{"volumeName":"models","mountPath":"/models"}],
				"probes":[{"type":"Startup","tcpSocket":{"port":8080},"periodSeconds":1,"failureThreshold":9,"timeoutSeconds":2},
					{"type":"Liveness","terminationGracePeriodSeconds":5,"initialDelaySeconds":3,"httpGet":{"path":"live","port":8080,"scheme":"HTTPS","host":"chat.example","httpHeaders":[{"name":"x-a","value":"b"}]}}]}],
			"scale":{"minReplicas":1,"maxReplicas":5,"cooldownPeriod":60,"pollingInterval":5,"rules":[
				{"name":"requests","http":{"metadata":{"concurrentRequests":"10"},"auth":[{"secretRef":"key","triggerParameter":"p"}]}},
				{"name":"connections","tcp":{"metadata":{"concurrentConnections":"10"}}},
				{"name":"load","custom":{"type":"cpu","metadata":{"type":"Utilization","value":"70"}}},
				{"name":"queue","azureQueue":{"accountName":"a","queueName":"q","queueLength":5,"auth":[{"secretRef":"key","triggerParameter":"connection"}]}}]}}}}`,
	resource.TypeApp + " in single mode": `{"location":"koreacentral","properties":{"managedEnvironmentId":"ENV",
		"configuration":{"activeRevisionsMode":"Single","ingress":{"targetPort":0,"exposedPort":0,"transport":"auto","corsPolicy":{},"customDomains":{},"stickySessions":{"affinity":"sticky"}},"dapr":{},"registries":{}},
		"template":{"containers":[{"name":"chat","image":"chat:1"}],"scale":{"minReplicas":0}}}}`,
	resource.TypeApp + " over TCP": `{"location":"koreacentral","properties":{"environmentId":"ENV",
		"configuration":{"ingress":{"external":true,"targetPort":6379,"exposedPort":6379,"transport":"tcp"}},
		"template":{"containers":[{"name":"redis","image":"redis:7"}]}}}`,
	resource.TypeJob + " with a schedule": `{"location":"koreacentral","tags":{"team":"ml"},"properties":{"environmentId":"ENV","workloadProfileName":"Consumption",
		"configuration":{"triggerType":"Schedule","replicaTimeout":600,"replicaRetryLimit":2,"scheduleTriggerConfig":{"cronExpression":"0 3 * * *","parallelism":2,"replicaCompletionCount":2},
			"secrets":[{"name":"key","value":"hidden"}],"registries":[{"server":"registry.example","username":"u","passwordSecretRef":"key"}]},
		"template":{"volumes":[{"name":"cache","storageType":"EmptyDir"}],"initContainers":[{"name":"seed","image":"seed:1"}],
			"containers":[{"name":"work","image":"work:1","env":[{"name":"B","secretRef":"key"}],"volumeMounts":[{"volumeName":"cache","mountPath":"/cache"}]}]}}}`,
	resource.TypeJob + " by hand": `{"location":"koreacentral","properties":{"environmentId":"ENV",
		"configuration":{"triggerType":"Manual","replicaTimeout":600,"manualTriggerConfig":{"parallelism":2,"replicaCompletionCount":3}},
		"template":{"containers":[{"name":"work","image":"work:1"}]}}}`,
	resource.TypeJob + " by events": `{"location":"koreacentral","properties":{"environmentId":"ENV",
		"configuration":{"triggerType":"Event","replicaTimeout":600,"secrets":[{"name":"key","value":"hidden"}],"eventTriggerConfig":{"parallelism":1,"replicaCompletionCount":1,
			"scale":{"minExecutions":0,"maxExecutions":5,"pollingInterval":10,"rules":[{"name":"queue","type":"external","metadata":{"scalerAddress":"queue:80"},"auth":[{"secretRef":"key","triggerParameter":"caCert"}]}]}}},
		"template":{"containers":[{"name":"work","image":"work:1"}]}}}`,
	resource.TypeEnvironment + " ": `{"location":"koreacentral","tags":{"penstock.behaviour":"azure"},"sku":{"name":"Consumption"},"properties":{
		"appLogsConfiguration":{"destination":"log-analytics","logAnalyticsConfiguration":{"customerId":"c","sharedKey":"hidden","dynamicJsonColumns":true}},
		"zoneRedundant":true,"infrastructureResourceGroup":"infra","publicNetworkAccess":"Enabled",
		"vnetConfiguration":{"internal":false,"infrastructureSubnetId":"/subscriptions/s","dockerBridgeCidr":"10.2.0.1/16","platformReservedCidr":"10.0.0.0/16","platformReservedDnsIP":"10.0.0.2"},
		"workloadProfiles":[{"name":"Consumption","workloadProfileType":"Consumption","enableFips":false},{"name":"big","workloadProfileType":"D4","minimumCount":0,"maximumCount":1}],
		"ingressConfiguration":{"workloadProfileName":"big","requestIdleTimeout":10,"headerCountLimit":50},
		"peerAuthentication":{"mtls":{"enabled":false}},"peerTrafficConfiguration":{"encryption":{"enabled":false}}}}`,
}

// GET, PUT, GET changes nothing: what is answered can be written, and is answered again. Nor is anything lost on the way
// in: a field that is written can be read.
func TestWhatIsReadCanBeWritten(t *testing.T) {
	for name, text := range complete {
		t.Run(name, func(t *testing.T) {
			typ, _, _ := strings.Cut(name, " ")
			sent := document(t, strings.ReplaceAll(text, "ENV", environmentPath))
			one, notes, err := read(t, typ, sent)
			if err != nil {
				t.Fatal(err)
			}
			two, again, err := read(t, typ, one)
			if err != nil || !slices.Equal(again, notes) {
				t.Fatalf("got %v, notes %q, want those of the first time: %q", err, again, notes)
			}
			if diff := cmp.Diff(one, two); diff != "" {
				t.Errorf("the second answer differs (-first +second):\n%s", diff)
			}
			contains(t, "", sent, one)
			// The same with null, [] and {} for everything that was not set.
			for _, nothing := range []any{nil, []any{}, map[string]any{}} {
				filled := fill(one, nothing)
				three, _, err := read(t, typ, filled.(map[string]any))
				if err != nil {
					t.Errorf("with %v for what is null: %v", nothing, err)
				} else if diff := cmp.Diff(one, three); diff != "" {
					t.Errorf("with %v for what is null (-without +with):\n%s", nothing, diff)
				}
			}
		})
	}
}

// contains checks that all that was sent is in the answer. Enumerations are answered in Azure's spelling, and keys not at all.
func contains(t *testing.T, path string, sent, got any) {
	t.Helper()
	switch sent := sent.(type) {
	case map[string]any:
		for name, v := range sent {
			at := path + "." + name
			if v == "hidden" || strings.HasSuffix(at, ".enableFips") {
				continue
			}
			fields, _ := got.(map[string]any)
			contains(t, at, v, fields[name])
		}
	case []any:
		list, _ := got.([]any)
		if len(list) != len(sent) {
			t.Errorf("%s: sent %v, got %v", path, sent, got)
			return
		}
		for i := range sent {
			contains(t, path+"[]", sent[i], list[i])
		}
	case string:
		if text, ok := got.(string); !ok || !strings.EqualFold(strings.ReplaceAll(text, " ", ""), strings.ReplaceAll(sent, " ", "")) {
			t.Errorf("%s: sent %q, got %v", path, sent, got)
		}
	default:
		if sent != got {
			t.Errorf("%s: sent %v, got %v", path, sent, got)
		}
	}
}

// fill replaces every null of a document.
func fill(v, nothing any) any {
	switch v := v.(type) {
	case nil:
		return nothing
	case map[string]any:
		m := map[string]any{}
		for name, f := range v {
			m[name] = fill(f, nothing)
		}
		return m
	case []any:
		var l []any
		for _, f := range v {
			l = append(l, fill(f, nothing))
		}
		return l
	}
	return v
}
