package app_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

// The manifests that people write for Azure: the app of each of Microsoft's quickstarts, what az has sent, and the shapes of
// public YAML files, with names of our own. Each is taken, or refused for the reason that is given here.
func TestPublicManifests(t *testing.T) {
	file := func(name string) string {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const container = "{name: web, image: registry.example/web:1, resources: {cpu: 0.5, memory: 1Gi}}"
	shape := func(configuration, template, top string) string {
		return top + "\nname: web\ntype: Microsoft.App/containerApps\nlocation: westeurope\nproperties:\n  configuration: {" + configuration + "}\n  template: {" + template + "}\n"
	}
	const ingress, containers = "ingress: {external: true, targetPort: 80, transport: auto}", "containers: [" + container + "]"
	tests := map[string]struct{ text, refused string }{
		"quickstart container-app-create":        {file("quickstart-create.json"), ""},
		"quickstart container-app-scale-http":    {file("quickstart-scale-http.json"), ""},
		"quickstart container-app-azurevote":     {file("azurevote.json"), ""},
		"az containerapp create":                 {find(t, "PUT", "test_containerapp_update.yaml", "containerApps/").Request, ""},
		"az containerapp identity assign":        {find(t, "PUT", "test_containerapp_identity_user.yaml", "containerApps/").Request, "identity: not built"},
		"kind and resourceGroup":                 {shape(ingress, containers, "kind: containerapp\nresourceGroup: rg"), ""},
		"blocks of null":                         {shape(ingress+", dapr: null, registries: null, secrets: null, service: null", containers+", revisionSuffix: '', serviceBinds: null, volumes: null", ""), ""},
		"a registry with a password":             {shape(ingress+", registries: [{server: registry.example, username: u, passwordSecretRef: pwd}], secrets: [{name: pwd, value: p}]", containers, ""), ""},
		"a registry with an identity":            {shape(ingress+", registries: [{server: registry.example, identity: system}]", containers, ""), "configuration.registries[0].identity: not built"},
		"an identity":                            {shape(ingress, containers, "identity: {type: SystemAssigned}"), "identity: not built"},
		"a secret of Key Vault":                  {shape(ingress+", secrets: [{name: key, keyVaultUrl: 'https://v.example', identity: system}]", containers, ""), "configuration.secrets[0].keyVaultUrl: not built"},
		"Dapr":                                   {shape(ingress+", dapr: {enabled: true, appId: web}", containers, ""), "configuration.dapr: not built"},
		"a probe without a slash, in lower case": {shape(ingress, "containers: [{name: web, image: web:1, probes: [{type: readiness, httpGet: {path: health, port: 80}}]}]", ""), ""},
		"an init container with capitals":        {shape(ingress, containers+", initContainers: [{name: InitDB, image: web:1}]", ""), ""},
		"CORS below a domain":                    {shape("ingress: {targetPort: 80, corsPolicy: {allowedOrigins: ['https://*.shop.example']}}", containers, ""), ""},
		"a share":                                {shape(ingress, "containers: [{name: web, image: web:1, volumeMounts: [{volumeName: data, mountPath: /data}]}], volumes: [{name: data, storageName: share, storageType: AzureFile}]", ""), ""},
		"numbers and booleans as text":           {shape("ingress: {external: 'true', targetPort: '80'}", "containers: [{name: web, image: web:1, resources: {cpu: '0.5', memory: 1Gi}}], scale: {minReplicas: '0', maxReplicas: '3'}", ""), ""},
		"a sidecar and an http rule":             {shape(ingress, "containers: ["+container+", {name: side, image: side:1}], scale: {rules: [{name: users, http: {metadata: {concurrentRequests: '10'}}}]}", ""), ""},
		"an http rule without metadata":          {shape(ingress, containers+", scale: {rules: [{name: users, http: {concurrentRequests: 50}}]}", ""), "template.scale.rules[0].http.concurrentRequests: unknown field"},
		"secrets at the top":                     {shape(ingress, containers, "secrets: [{name: key, value: v}]"), "secrets: unknown field"},
		"cooldown of a rule":                     {shape(ingress, containers+", scale: {rules: [{name: users, http: {metadata: {concurrentRequests: '10'}}, cooldown: {scaleIn: 600}}]}", ""), "template.scale.rules[0].cooldown: unknown field"},
		"a tcpSocket with a path":                {shape(ingress, "containers: [{name: web, image: web:1, probes: [{type: liveness, tcpSocket: {path: /, port: 80}}]}]", ""), "template.containers[0].probes[0].tcpSocket.path: unknown field"},
		"the kubeEnvironmentId of the preview":   {strings.Replace(shape(ingress, containers, ""), "properties:", "properties:\n  kubeEnvironmentId: /subscriptions/s", 1), "properties.kubeEnvironmentId: unknown field"},
		"the apiVersion of a template":           {shape(ingress, containers, "apiVersion: 2023-05-01"), ""},
		"a Kubernetes style ContainerApp":        {"apiVersion: apps/v1\nkind: ContainerApp\nmetadata: {name: web}\nspec: {template: {containers: [{name: web, image: web:1}]}}\n", "this is a Kubernetes ContainerApp"},
	}
	taken := 0
	for name, test := range tests {
		err := deploys([]byte(test.text))
		switch {
		case test.refused == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)):
			t.Errorf("%s: got %v, want %s", name, err, test.refused)
		case err == nil:
			taken++
		}
	}
	t.Logf("%d of %d are taken", taken, len(tests))
}

// deploys says why penstock up -f FILE --environment e would refuse a file.
func deploys(text []byte) error {
	found, err := app.ParseManifests(text)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := json.Unmarshal(found[0].Body, &doc); err != nil {
		return err
	}
	properties := doc["properties"].(map[string]any)
	delete(properties, "managedEnvironmentId")
	properties["environmentId"] = environmentPath
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	name := found[0].Name
	if name == "" {
		name = "web"
	}
	_, _, err = app.ReadApp(resource.AppID("s", "g", name), body)
	return err
}
