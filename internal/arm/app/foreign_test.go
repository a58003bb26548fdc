package app_test

import (
	"encoding/json"
	"strings"
	"testing"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

// A file for another tool is answered with what it is and with three lines of a manifest that correspond and are valid.
func TestForeignManifests(t *testing.T) {
	tests := map[string]struct {
		file, says string
		name       string // of the app in the three lines
		image      string
		port       int
	}{
		"a Deployment": {`# kubectl apply -f
apiVersion: apps/v1
kind: Deployment
metadata: {name: llm}
spec:
  template:
    spec:
      containers: [{name: c, image: "ghcr.io/team/llm:2", ports: [{containerPort: 8000}]}]`, "line 2: this is a Kubernetes Deployment", "llm", "ghcr.io/team/llm:2", 8000},
		"a CronJob": {`{apiVersion: batch/v1, kind: CronJob, metadata: {name: night}, spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: "n:1"}]}}}}}}`,
			"a Kubernetes CronJob", "night", "n:1", 8080},
		"a Service before a Deployment": {"apiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\napiVersion: apps/v1\nkind: Deployment\n",
			"a Kubernetes Service, which has no container", "web", "web:1", 8080},
		"Knative": {`{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: kn}, spec: {template: {spec: {containers: [{image: "kn:1", ports: [{containerPort: 9000}]}]}}}}`,
			"a Knative Service", "kn", "kn:1", 9000},
		"Compose": {"services:\n  web:\n    image: nginx:1.27\n    ports: ['127.0.0.1:8080:80/tcp']\n  db: {image: postgres}\n",
			"a Compose file with 2 services", "web", "nginx:1.27", 80},
		"Compose that builds": {"version: '3'\nservices: {api: {build: ., ports: [{target: 5000, published: 80}]}}\n",
			"a Compose file. Want a container app; these three lines are one; penstock build -t api:1 FOLDER builds the image", "api", "api:1", 5000},
		"an ARM template": {`{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "parameters": {},
			"resources": [{"type": "Microsoft.Storage/storageAccounts"}, {"type": "Microsoft.App/containerApps", "name": "[parameters('name')]",
			"properties": {"configuration": {"ingress": {"targetPort": 3000}}, "template": {"containers": [{"image": "mcr.microsoft.com/x:1"}]}}}]}`,
			"an ARM template; its resource of type Microsoft.App/containerApps", "chat", "mcr.microsoft.com/x:1", 3000},
		"Bicep": {"// main\nparam location string\nresource app 'Microsoft.App/containerApps@2024-03-01' = {\n  name: 'score'\n  properties: {\n    configuration: { ingress: {\n        targetPort: 8081\n } }\n    template: { containers: [ {\n          image: 'score:3'\n        } ] }\n  }\n}\n",
			"a Bicep file", "score", "score:3", 8081},
		"Terraform":                     {"resource \"azurerm_container_app\" \"a\" {\n  name = \"tf-app\"\n  template { container {\n   image = \"tf:1\"\n } }\n ingress {\n target_port = 8082\n }\n}\n", "a Terraform file", "tf-app", "tf:1", 8082},
		"a Dockerfile":                  {"# syntax=docker/dockerfile:1\nARG V=3.12\nFROM --platform=linux/amd64 python:${V}-slim AS base\nRUN pip install flask\nEXPOSE 5000\nCMD [\"python\"]\n", "a Dockerfile", "chat", "chat:1", 5000},
		"TOML":                          {"app = \"fly\"\n[http_service]\n  internal_port = 8083\n", "a TOML file", "fly", "fly:1", 8083},
		"TOML that begins with a table": {"[build]\nimage = \"b:1\"\n", "a TOML file", "chat", "b:1", 8080},
		"an image.yaml":                 {"layers: [{from: a, to: /a}]\nports: [8084]\n", "an image.yaml", "chat", "chat:1", 8084},
		"nothing":                       {"", "this is an empty file", "chat", "chat:1", 8080},
		"comments":                      {"# nothing\n\n---\n# here\n", "this is an empty file", "chat", "chat:1", 8080},
		"a name that is no text":        {"services: {'null': {image: x}}", "a Compose file", "chat", "x", 8080},
		"a name that is none":           {"services: {Web_Front: {image: 'x\"y'}}", "a Compose file", "chat", "chat:1", 8080},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := app.ParseManifests([]byte(test.file))
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v, want %q", err, test.says)
			}
			_, lines, _ := strings.Cut(err.Error(), "\n")
			lines = strings.ReplaceAll("\n"+lines, "\n  ", "\n")
			if n := strings.Count(lines, "\n"); n != 3 {
				t.Errorf("got %d lines, want 3:\n%s", n, lines)
			}
			found, err := app.ParseManifests([]byte(lines))
			if err != nil || len(found) != 1 || found[0].Name != test.name {
				t.Fatalf("the lines are no manifest: %v, %+v\n%s", err, found, lines)
			}
			doc := document(t, string(found[0].Body))
			set(doc, "properties.environmentId", environmentPath)
			body, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			a, notes, err := app.ReadApp(resource.AppID("s", "g", test.name), body)
			if err != nil || len(notes) > 0 {
				t.Fatalf("the lines are refused: %v, %q\n%s", err, notes, lines)
			}
			if got := a.Template.Containers[0].Image; got != test.image || a.Configuration.Ingress.TargetPort != test.port {
				t.Errorf("got image %s and port %d, want %s and %d", got, a.Configuration.Ingress.TargetPort, test.image, test.port)
			}
		})
	}
	// A job is told what the file is.
	if _, _, err := app.ParseJobYAML([]byte("FROM scratch\n")); err == nil || err.Error() != "this is a Dockerfile; want the fields of a job" {
		t.Errorf("a job: got %v", err)
	}
}

func TestParseManifests(t *testing.T) {
	one := strings.TrimPrefix(manifest, "# what az containerapp create --yaml reads\n")
	two := strings.Replace(one, "name: chat", "name: back", 1)
	found, err := app.ParseManifests([]byte("---\n" + one + "---\n# nothing here\n---\n" + two + "...\n"))
	if err != nil || len(found) != 2 || found[0].Name != "chat" || found[1].Name != "back" || found[0].Line != 2 || found[1].Line != 4+strings.Count(one, "\n")+1 {
		t.Fatalf("got %+v, %v", found, err)
	}
	tests := map[string]struct{ file, want string }{
		"a fault in the second":      {one + "---\nname: b\nbogus: 1\n", "line 35: bogus: unknown field"},
		"a missing field's line":     {one + "---\nname: b\nproperties: [1]\n", "line 35: properties"},
		"a tab":                      {"name: a\nproperties:\n\ttemplate: {}\n", "line 3: want spaces for the indentation, got a tab"},
		"a tab after spaces":         {"name: a\nproperties:\n \ttemplate: {}\n", "line 3: want spaces for the indentation, got a tab"},
		"a list":                     {"- a\n", "line 1: want the fields of a container app"},
		"a second one of another":    {one + "---\nkind: Pod\napiVersion: v1\n", "line 34: this is a Kubernetes Pod"},
		"a job":                      {"name: j\nproperties: {configuration: {triggerType: Manual}}\n", "line 1: this is a job"},
		"more documents than anyone": {strings.Repeat("---\nname: a\n", 101), "want at most 100 documents"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := app.ParseManifests([]byte(test.file)); err == nil || !strings.HasPrefix(err.Error(), test.want) && !strings.Contains(err.Error(), "want at most") {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	// What reads one app refuses a second one.
	if _, _, err := app.ParseYAML([]byte(one + "---\n" + two)); err == nil || !strings.Contains(err.Error(), "line 34: want one document, got a second one") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseManifests(f *testing.F) {
	f.Add([]byte(manifest + "---\n" + manifest))
	f.Add([]byte("FROM scratch"))
	f.Add([]byte("apiVersion: v1\nkind: Pod\nspec: {containers: [{image: a, ports: [{containerPort: 1}]}]}"))
	f.Add([]byte("services: {a: {image: b, ports: [1:2]}}"))
	f.Add([]byte("contentVersion: 1\nresources: [{type: Microsoft.App/containerApps, name: \"a\\nb\"}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := app.ParseManifests(data)
		if err == nil || !strings.Contains(err.Error(), "these three lines") {
			return
		}
		_, lines, _ := strings.Cut(err.Error()[strings.Index(err.Error(), "these three lines"):], "\n")
		if _, err := app.ParseManifests([]byte(strings.ReplaceAll("\n"+lines, "\n  ", "\n"))); err != nil {
			t.Errorf("%q is answered with lines that are refused: %v\n%s", data, err, lines)
		}
	})
}
