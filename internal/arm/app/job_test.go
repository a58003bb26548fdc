package app_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
)

var batch = resource.JobID("s", "g", "batch")

func TestReadJobYAML(t *testing.T) {
	name, body, err := app.ParseJobYAML([]byte(`
name: batch
location: Korea Central
properties:
  environmentId: ` + environmentPath + `
  configuration:
    triggerType: Schedule
    replicaTimeout: 60
    scheduleTriggerConfig: {cronExpression: "0  3 * * Sun", parallelism: 2}
  template:
    containers:
    - {name: work, image: chat:1, env: [{name: N, value: 1}]}
`))
	if err != nil || name != "batch" {
		t.Fatalf("got %q, %v", name, err)
	}
	j, _, err := app.ReadJob(batch, body)
	if err != nil {
		t.Fatal(err)
	}
	want := resource.JobConfiguration{
		Trigger: resource.TriggerSchedule, Cron: "0 3 * * Sun", ExecutionPolicy: resource.ExecutionPolicy{Timeout: time.Minute, Parallelism: 2, Completions: 1},
	}
	if !reflect.DeepEqual(j.Configuration, want) || j.Template.Containers[0].Env[0].Value != "1" {
		t.Errorf("got %+v", j)
	}
	_, _, err = app.ParseJobYAML([]byte("properties:\n  configuration:\n    ingress: {}\n"))
	if err == nil || !strings.Contains(err.Error(), "line 3: configuration.ingress: unknown field") {
		t.Errorf("got %v, want the field refused with its line", err)
	}
	if body, err := app.ParseExecutionYAML([]byte("containers:\n- {name: work, image: chat:2, args: [1]}\n")); err != nil || string(body) != `{"containers":[{"args":["1"],"image":"chat:2","name":"work"}]}` {
		t.Errorf("got %s, %v", body, err)
	}
}

// A start replaces the whole template; without one it is the job's.
func TestReadExecutionTemplate(t *testing.T) {
	j := resource.Job{Template: resource.Template{Containers: []resource.Container{{Name: "work", Image: "chat:1"}}}}
	for _, body := range []string{"", " ", "{}", `{"containers":null}`} {
		if got, err := app.ReadExecutionTemplate(j, []byte(body)); err != nil || !got.Equal(j.Template) {
			t.Errorf("%q: got %+v, %v; want the job's", body, got, err)
		}
	}
	got, err := app.ReadExecutionTemplate(j, []byte(`{"containers":[{"name":"a","image":"i"}],"initContainers":[{"name":"b","image":"i"}]}`))
	if err != nil || got.Containers[0].Name != "a" || got.InitContainers[0].Name != "b" || got.Grace != 30*time.Second {
		t.Errorf("got %+v, %v", got, err)
	}
	for body, want := range map[string]string{
		`{"initContainers":[{"name":"b","image":"i"}]}`: "template.containers: want at least one container",
		`{"containers":[{"name":"a","image":""}]}`:      "template.containers[0].image",
		`{"template":{}}`: "template: unknown field",
		`[]`:              "want a resource as a JSON object",
	} {
		if _, err := app.ReadExecutionTemplate(j, []byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}

// Whatever is accepted is answered so that it reads back as the same job.
func FuzzReadJob(f *testing.F) {
	f.Add([]byte(`{"properties":{"environmentId":"` + environmentPath + `","configuration":{"triggerType":"Event","replicaTimeout":60,"eventTriggerConfig":{"parallelism":2,"scale":{"minExecutions":1,"maxExecutions":9,"pollingInterval":5,
		"rules":[{"name":"a","type":"external","metadata":{"scalerAddress":"s:80","kFromEnv":"K"},"auth":[{"secretRef":"key","triggerParameter":"caCert"}]}]}},"secrets":[{"name":"key","value":"v"}]},
		"template":{"containers":[{"name":"a","image":"i","env":[{"name":"K","secretRef":"key"}]}]}}}`))
	f.Add([]byte(`{"location":"x","properties":{"environmentId":"` + environmentPath + `","configuration":{"triggerType":"manual","replicaTimeout":1e1,"replicaRetryLimit":3,"manualTriggerConfig":{"parallelism":2},"secrets":[{"name":"key","value":"v"}]},
		"template":{"initContainers":[{"name":"b","image":"i"}],"volumes":[{"name":"v"}],"containers":[{"name":"a","image":"i","volumeMounts":[{"volumeName":"v","mountPath":"/v"}],"env":[{"name":"K","secretRef":"key"}]}]}}}`))
	f.Add([]byte(`{"properties":{"environmentId":"` + environmentPath + `","configuration":{"triggerType":"Schedule","replicaTimeout":60,"scheduleTriggerConfig":{"cronExpression":"*/5 * * * mon-fri"}},"template":{"containers":[{"name":"a","image":"i"}]}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		j, _, err := app.ReadJob(batch, body)
		if err != nil {
			if invalid, ok := errors.AsType[*resource.InvalidError](err); !ok || len(invalid.Faults) == 0 {
				t.Errorf("%q: an error without a fault: %v", body, err)
			}
			return
		}
		answer, err := json.Marshal(app.NewJob(j, site))
		if err != nil {
			t.Fatalf("%q cannot be answered: %v", body, err)
		}
		again, _, err := app.ReadJob(batch, answer)
		if err != nil {
			t.Fatalf("%q is answered as\n%s\nwhich does not read back: %v", body, answer, err)
		}
		for _, v := range []*resource.Job{&j, &again} {
			v.Location = ""
			v.Template.SetDefaultResources(resource.Fast)
			if len(v.Tags) == 0 {
				v.Tags = nil
			}
			for i := range v.Configuration.Secrets {
				v.Configuration.Secrets[i].Value = "" // never answered
			}
		}
		if !reflect.DeepEqual(j, again) {
			t.Errorf("%q\nbecame %+v\nthen   %+v", body, j, again)
		}
	})
}
