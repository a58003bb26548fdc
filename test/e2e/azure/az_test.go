package azure_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// az is Debian's Azure CLI with a configuration of its own.
type az struct {
	t   *testing.T
	env []string
}

func newAz(t *testing.T, ca string) az {
	t.Helper()
	if _, err := exec.LookPath("az"); err != nil {
		t.Skip("az is not installed; on Debian: apt-get install azure-cli")
	}
	return az{t, append(os.Environ(),
		"AZURE_CONFIG_DIR="+t.TempDir(), "REQUESTS_CA_BUNDLE="+ca, "AZURE_CORE_COLLECT_TELEMETRY=no", "AZURE_CORE_NO_COLOR=yes",
		"AZURE_CORE_DISABLE_CONFIRM_PROMPT=yes", "HTTPS_PROXY=", "https_proxy=", "PYTHONWARNINGS=ignore",
	)}
}

// try runs az and returns what it printed.
func (a az) try(args ...string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "az", args...)
	var out, problems bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = a.env, &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("az %s: %w: %s", strings.Join(args, " "), err, problems.String())
	}
	return out.String(), nil
}

func (a az) run(args ...string) string {
	a.t.Helper()
	out, err := a.try(args...)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// rest sends a request with az rest, as users of az without an extension do, and returns the answer's JSON.
func (a az) rest(method, path, body string) map[string]any {
	a.t.Helper()
	args := []string{"rest", "--method", method, "--url", path + "?api-version=2022-06-01-preview"}
	if body != "" {
		file := filepath.Join(a.t.TempDir(), "body.json")
		if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
			a.t.Fatal(err)
		}
		args = append(args, "--body", "@"+file)
	}
	out := a.run(args...)
	if strings.TrimSpace(out) == "" {
		return nil
	}
	var answer any
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		a.t.Fatalf("az %s printed no JSON: %s", strings.Join(args, " "), out)
	}
	object, _ := answer.(map[string]any)
	return object
}

// await asks for a resource until it is provisioned, as the containerapp extension does.
func (a az) await(path string) map[string]any {
	a.t.Helper()
	var doc map[string]any
	penstocktest.Until(a.t, 3*time.Minute, path+" is provisioned", func() bool {
		doc = a.rest("get", path, "")
		state := at(doc, "properties", "provisioningState")
		if state == "Failed" || state == "Canceled" {
			a.t.Fatalf("%s ended as %v: %v", path, state, doc)
		}
		return state == "Succeeded"
	})
	return doc
}

func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			object, _ := v.(map[string]any)
			v = object[p]
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		}
	}
	return v
}

// Debian's az works with a new server for a day: az alone for what it knows, az rest with the bodies of its containerapp
// extension for the rest.
func TestAz(t *testing.T) {
	penstocktest.Nightly(t, "az takes a second or two for each of 40 commands")
	target := start(t)
	a := newAz(t, filepath.Join(target.folders[0], "pki", "ca.pem"))
	at0 := strings.TrimSuffix(target.Endpoint, "/")

	a.run("cloud", "register", "-n", "penstock", "--endpoint-resource-manager", at0, "--endpoint-active-directory", at0+"/adfs",
		"--endpoint-active-directory-resource-id", at0, "--endpoint-active-directory-graph-resource-id", at0, "--endpoint-management", at0)
	a.run("cloud", "set", "-n", "penstock")
	if _, err := a.try("login", "--service-principal", "-u", subscription, "-p", "not-the-token", "--tenant", "adfs"); err == nil || !strings.Contains(err.Error(), "want the server's token") {
		t.Errorf("login with a wrong token: %v", err)
	}
	if out := a.run("login", "--service-principal", "-u", subscription, "-p", strings.TrimSpace(target.Token), "--tenant", "adfs"); !strings.Contains(out, subscription) {
		t.Fatalf("login: %s", out)
	}
	if out := a.run("account", "show", "--query", "id", "-o", "tsv"); strings.TrimSpace(out) != subscription {
		t.Errorf("account show: %s", out)
	}

	// Groups, tags and lists of resources.
	a.run("group", "create", "-n", "day", "-l", "koreacentral", "--tags", "team=ml")
	if out := a.run("group", "show", "-n", "day", "--query", "tags.team", "-o", "tsv"); strings.TrimSpace(out) != "ml" {
		t.Errorf("the group's tag is %q", out)
	}
	a.run("group", "update", "-n", "day", "--set", "tags.owner=kim")
	if out := a.run("group", "show", "-n", "day", "--query", "tags.owner", "-o", "tsv"); strings.TrimSpace(out) != "kim" {
		t.Errorf("the group's new tag is %q", out)
	}
	if out := a.run("group", "exists", "-n", "day"); strings.TrimSpace(out) != "true" {
		t.Errorf("group exists: %s", out)
	}
	if out := a.run("provider", "show", "-n", "Microsoft.App", "--query", "registrationState", "-o", "tsv"); strings.TrimSpace(out) != "Registered" {
		t.Errorf("provider show: %s", out)
	}

	// The bodies are those of the containerapp extension, with all their nulls.
	base := "/subscriptions/" + subscription + "/resourceGroups/day/providers/Microsoft.App"
	environment := base + "/managedEnvironments/env"
	a.rest("put", environment, `{"location":"koreacentral","tags":null,"sku":{"name":"Consumption"},"properties":{"daprAIInstrumentationKey":null,
		"vnetConfiguration":null,"internalLoadBalancerEnabled":null,"appLogsConfiguration":{"destination":null,"logAnalyticsConfiguration":null},
		"customDomainConfiguration":null,"zoneRedundant":false}}`)
	a.await(environment)
	app := base + "/containerApps/chat"
	body := `{"location":"koreacentral","identity":{"type":"None","userAssignedIdentities":null},"properties":{"managedEnvironmentId":"` + environment + `",
		"configuration":{"secrets":[{"name":"key","value":"first"}],"activeRevisionsMode":"multiple","ingress":{"fqdn":null,"external":"true","targetPort":"8080",
		"transport":"auto","exposedPort":null,"allowInsecure":false,"traffic":null,"customDomains":null,"ipSecurityRestrictions":null,"stickySessions":null},
		"dapr":null,"registries":null},"template":{"revisionSuffix":"` + "%s" + `","containers":[{"image":"` + target.image + `","name":"chat","command":null,"args":null,
		"env":[{"name":"KEY","secretRef":"key"}],"resources":{"cpu":"0.5","memory":"1Gi"},"volumeMounts":null}],"initContainers":null,
		"scale":{"minReplicas":"1","maxReplicas":"2","rules":[]},"volumes":null},"workloadProfileName":null},"tags":null}`
	a.rest("put", app, fmt.Sprintf(body, "v1"))
	doc := a.await(app)
	if got := at(doc, "properties", "template", "containers", 0, "resources", "cpu"); got != 0.5 {
		t.Errorf("cpu reads back as %v", got)
	}
	a.rest("put", app, fmt.Sprintf(body, "v2"))
	a.await(app)
	revisions, _ := at(a.rest("get", app+"/revisions", ""), "value").([]any)
	if len(revisions) != 2 {
		t.Fatalf("%d revisions, want 2", len(revisions))
	}
	// Traffic, as `az containerapp ingress traffic set` patches it.
	a.rest("patch", app, `{"properties":{"configuration":{"ingress":{"traffic":[{"revisionName":"chat--v1","weight":"80"},{"latestRevision":true,"weight":"20"}]}}}}`)
	a.await(app)
	if got := at(a.rest("get", app+"/revisions/chat--v1", ""), "properties", "trafficWeight"); got != 80.0 {
		t.Errorf("the first revision gets %v %%", got)
	}
	a.rest("patch", app, `{"properties":{"configuration":{"secrets":[{"name":"key"},{"name":"second","value":"other"}]}}}`)
	a.await(app)
	secrets, _ := at(a.rest("post", app+"/listSecrets", ""), "value").([]any)
	if len(secrets) != 2 || at(secrets[0], "value") != "first" {
		t.Errorf("secrets: %v", secrets)
	}
	a.rest("post", app+"/revisions/chat--v1/restart", "")

	// Logs, with the token that the extension asks for.
	token := a.rest("post", app+"/getAuthtoken", "")
	if at(token, "properties", "token") == nil || at(token, "properties", "logStreamEndpoint") == nil {
		t.Errorf("getAuthtoken: %v", token)
	}
	replicas, _ := at(a.rest("get", app+"/revisions/chat--v2/replicas", ""), "value").([]any)
	if len(replicas) != 1 {
		t.Fatalf("%d replicas, want 1", len(replicas))
	}
	stream, _ := at(replicas[0], "properties", "containers", 0, "logStreamEndpoint").(string)
	a.run("rest", "--method", "get", "--url", stream+"?follow=false&tailLines=20", "--skip-authorization-header", "--headers", fmt.Sprintf("Authorization=Bearer %v", at(token, "properties", "token")))

	job := base + "/jobs/score"
	a.rest("put", job, `{"location":"koreacentral","properties":{"environmentId":"`+environment+`","configuration":{"triggerType":"Manual","replicaTimeout":"300","replicaRetryLimit":"0",
		"manualTriggerConfig":{"parallelism":"1","replicaCompletionCount":"1"},"secrets":null,"registries":null},
		"template":{"containers":[{"image":"`+target.image+`","name":"score","resources":{"cpu":"0.25","memory":"0.5Gi"}}]}}}`)
	a.await(job)
	a.rest("post", job+"/start", "")
	if executions, _ := at(a.rest("get", job+"/executions", ""), "value").([]any); len(executions) != 1 {
		t.Errorf("%d executions, want 1", len(executions))
	}

	// What az lists, and tags of resources.
	if out := a.run("resource", "list", "-g", "day", "--query", "[].name", "-o", "tsv"); strings.Join(strings.Fields(out), " ") != "chat score env" {
		t.Errorf("resource list: %q", out)
	}
	if out := a.run("resource", "list", "--resource-type", "Microsoft.App/jobs", "--query", "[].name", "-o", "tsv"); strings.TrimSpace(out) != "score" {
		t.Errorf("resource list of jobs: %q", out)
	}
	a.run("tag", "update", "--resource-id", app, "--operation", "merge", "--tags", "stage=test")
	if out := a.run("tag", "list", "--resource-id", app, "--query", "properties.tags.stage", "-o", "tsv"); strings.TrimSpace(out) != "test" {
		t.Errorf("tag list: %q", out)
	}
	a.await(app)
	if out := a.run("resource", "show", "--ids", app, "--query", "tags.stage", "-o", "tsv"); strings.TrimSpace(out) != "test" {
		t.Errorf("the app's tag: %q", out)
	}

	a.rest("delete", job, "")
	a.run("group", "delete", "-n", "day", "--yes")
	if out := a.run("group", "exists", "-n", "day"); strings.TrimSpace(out) != "false" {
		t.Errorf("the group is there after it was deleted: %s", out)
	}
	if log := target.stop(); strings.Contains(log, strings.TrimSpace(target.Token)) {
		t.Error("the server's token is in its log")
	}
}
