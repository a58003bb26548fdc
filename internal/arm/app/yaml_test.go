package app_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

const manifest = `# what az containerapp create --yaml reads
name: chat
type: Microsoft.App/containerApps
location: Korea Central
tags:
  penstock.retry: all
  build: 7
properties:
  environmentId: /subscriptions/s/resourceGroups/g/providers/Microsoft.App/managedEnvironments/e
  configuration:
    ingress:
      external: true
      targetPort: 8080
      allowInsecure: true
  template:
    terminationGracePeriodSeconds: 60
    containers:
      - name: chat
        image: chat:1
        args: [--threads, 4]
        env:
          - name: MAX_TOKENS
            value: 256
          - {name: VERBOSE, value: true}
          - {name: SINCE, value: 2024-01-01}
        resources: {cpu: 0.5, memory: 1Gi}
        probes:
          - type: readiness
            httpGet: {path: /health, port: 8080}
            periodSeconds: 2
    scale:
      minReplicas: 1
      maxReplicas: 3
`

func TestParseYAML(t *testing.T) {
	name, body, err := app.ParseYAML([]byte(manifest))
	if err != nil || name != "chat" {
		t.Fatalf("got %q, %v", name, err)
	}
	a, notes, err := app.ReadApp(resource.AppID("s", "g", name), body)
	if err != nil || len(notes) > 0 {
		t.Fatalf("got %v, notes %q\n%s", err, notes, body)
	}
	c := a.Template.Containers[0]
	if got := []string{c.Args[1], c.Env[0].Value, c.Env[1].Value, c.Env[2].Value, a.Tags["build"], a.Tags["penstock.retry"]}; strings.Join(got, " ") != "4 256 true 2024-01-01 7 all" {
		t.Errorf("text of plain values: %q", got)
	}
	if c.Resources.MilliCPU != 500 || c.Probes[0].Type != resource.Readiness || a.Template.Scale.Max != 3 {
		t.Errorf("got %+v", a.Template)
	}
}

// The shapes that Container Apps' YAML comes in: by hand, from the documentation's examples, and as az show prints it.
func TestParseYAMLShapes(t *testing.T) {
	const environment = "/subscriptions/s/resourceGroups/g/providers/Microsoft.App/managedEnvironments/e"
	tests := map[string]string{
		"the old name of the environment, no envelope": `
properties:
  managedEnvironmentId: ENV
  template:
    containers: [{name: chat, image: "chat:1"}]`,
		"an init container of the documentation's, half a GiB without a nought": `
location: East US
identity: {type: None}
tags: {}
properties:
  environmentId: ENV
  workloadProfileName: Consumption
  configuration: {activeRevisionsMode: single, ingress: null, secrets: [], registries: [], dapr: {enabled: false}, maxInactiveRevisions: 10}
  template:
    revisionSuffix: ''
    initContainers: [{name: init, image: "chat:1", command: [/bin/sh], args: [-c, "sleep 20"], resources: {cpu: 0.2, memory: 100Mi}}]
    containers: [{name: chat, image: "chat:1", resources: {cpu: .25, memory: .5Gi}}]
    scale: {minReplicas: null, maxReplicas: 2, rules: []}
    volumes: null`,
		"anchors": `
properties:
  environmentId: ENV
  template:
    containers:
    - &one {name: chat, image: "chat:1", resources: &size {cpu: 0.25, memory: 0.5Gi}}
    - {name: side, image: "chat:1", resources: *size}`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			_, body, err := app.ParseYAML([]byte(strings.ReplaceAll(text, "ENV", environment)))
			if err != nil {
				t.Fatal(err)
			}
			a, notes, err := app.ReadApp(resource.AppID("s", "g", "chat"), body)
			if err != nil || len(notes) > 0 {
				t.Fatalf("got %v, notes %q", err, notes)
			}
			if a.Environment.String() != environment || a.Template.Containers[0].Resources.Memory != 1<<29 {
				t.Errorf("got %+v", a)
			}
			// What is answered, as az show -o yaml prints it, is the same app again.
			answer, err := json.Marshal(app.NewContainerApp(a, "penstock.localhost", site))
			if err != nil {
				t.Fatal(err)
			}
			_, again, err := app.ParseYAML(answer) // JSON is YAML
			if err != nil {
				t.Fatal(err)
			}
			if b, notes, err := app.ReadApp(a.ID, again); err != nil || len(notes) > 0 || !b.Template.Equal(a.Template) {
				t.Errorf("read back: %v, notes %q", err, notes)
			}
		})
	}
}

func TestParseYAMLLeavesToAzWhatAzFillsIn(t *testing.T) {
	name, body, err := app.ParseYAML([]byte("properties:\n  template:\n    containers:\n    - {name: chat, image: 'chat:1'}\n"))
	if err != nil || name != "" || bytes.Contains(body, []byte("nvironment")) {
		t.Errorf("got %q, %s, %v", name, body, err)
	}
}

func TestParseYAMLNamesTheLine(t *testing.T) {
	tests := map[string]struct{ old, with, want string }{
		"an unknown field":         {"minReplicas: 1", "minReplica: 1", "line 32: template.scale.minReplica: unknown field"},
		"a field twice":            {"minReplicas: 1", "maxReplicas: 1", "line 33: properties.template.scale.maxReplicas is given twice"},
		"text for a number":        {"targetPort: 8080", "targetPort: web", `line 13: configuration.ingress.targetPort: want a whole number, got "web"`},
		"a number with a fraction": {"periodSeconds: 2", "periodSeconds: 2.5", "line 30: template.containers[0].probes[0].periodSeconds: want a whole number, got 2.5"},
		"a list for an object":     {"resources: {cpu: 0.5, memory: 1Gi}", "resources: [1]", "line 26: template.containers[0].resources: want an object, got a list"},
		"what is not built":        {"maxReplicas: 3", "maxReplicas: 3\n    serviceBinds: [{name: redis}]", "line 34: template.serviceBinds: not built: there are no dev services"},
		"no YAML":                  {"tags:", "tags: [", "line "},
		"a tab":                    {"  template:", "\ttemplate:", "line "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := app.ParseYAML([]byte(strings.Replace(manifest, test.old, test.with, 1)))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	for _, text := range []string{"", "chat", "- a", "a: &a [*a]", "? [a]\n: b", strings.Repeat("a: {", 100)} {
		if _, _, err := app.ParseYAML([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// Aliases in a small document must not blow it up.
func TestParseYAMLBounds(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		n := string(rune('0' + i - 1))
		b.WriteString("a" + string(rune('0'+i)) + ": &a" + string(rune('0'+i)) + " [" + strings.TrimSuffix(strings.Repeat("*a"+n+",", 10), ",") + "]\n")
	}
	if _, body, err := app.ParseYAML([]byte(b.String())); err == nil {
		t.Errorf("%d bytes became %d", b.Len(), len(body))
	}
}

func FuzzParseYAML(f *testing.F) {
	f.Add([]byte(manifest))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("<<: {a: 1}"))
	f.Add([]byte("tags: {a: .inf, b: 0x1F, c: !!binary aGk=}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, body, err := app.ParseYAML(data)
		if err == nil && !json.Valid(body) {
			t.Errorf("%q became %q", data, body)
		}
	})
}

// The manifests of the examples are read as they are, but for the environment that the command line fills in.
func TestExamples(t *testing.T) {
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
			t.Errorf("%s: %v", file, err)
			continue
		}
		doc := document(t, string(body))
		set(doc, "properties.environmentId", environmentPath)
		if body, err = json.Marshal(doc); err != nil {
			t.Fatal(err)
		}
		if _, notes, err := app.ReadApp(resource.AppID("s", "g", name), body); err != nil || len(notes) > 0 {
			t.Errorf("%s: %v, notes %q", file, err, notes)
		}
	}
}
