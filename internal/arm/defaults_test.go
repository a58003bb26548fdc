package arm_test

import (
	"fmt"
	"strings"
	"testing"
)

// A container without resources gets Azure's in an app or a job that behaves as in Azure, and half of them otherwise. The
// tag can be the environment's.
func TestDefaultResources(t *testing.T) {
	s := start(t)
	s.environment("e")
	body := func(environment, tags string) string {
		return fmt.Sprintf(`{"location":"koreacentral","tags":{%s},"properties":{"environmentId":"%s/managedEnvironments/%s",
			"template":{"containers":[{"name":"chat","image":"chat:1"},{"name":"side","image":"chat:1","resources":{"cpu":0.25,"memory":"0.5Gi"}}]}}}`, tags, base, environment)
	}
	const azure = `"penstock.behaviour":"azure"`
	s.await(s.want(201, "PUT", base+"/managedEnvironments/azure"+version, `{"location":"koreacentral","tags":{`+azure+`},"properties":{}}`), "Azure-AsyncOperation")
	for name, test := range map[string]struct{ environment, tags, want string }{
		"by-default": {"e", "", "0.25 0.5Gi"},
		"by-tag":     {"e", azure, "0.5 1Gi"},
		"inherited":  {"azure", "", "0.5 1Gi"},
		"overridden": {"azure", `"penstock.behaviour":"fast"`, "0.25 0.5Gi"},
	} {
		for path, body := range map[string]string{
			"/containerApps/" + name: body(test.environment, test.tags),
			"/jobs/" + name:          strings.Replace(body(test.environment, test.tags), `"template"`, `"configuration":{"triggerType":"Manual","replicaTimeout":60},"template"`, 1),
		} {
			s.want(201, "PUT", base+path+version, body)
			for range 2 { // as it was written, and as it is written back
				a := s.want(200, "GET", base+path+version, "")
				containers := a.get(t, "properties", "template", "containers").([]any)
				size := func(i int) string {
					r := containers[i].(map[string]any)["resources"].(map[string]any)
					return fmt.Sprint(r["cpu"], " ", r["memory"])
				}
				if size(0) != test.want || size(1) != "0.25 0.5Gi" {
					t.Errorf("%s: got %s, want %s; the other container has %s", path, size(0), test.want, size(1))
				}
				s.want(201, "PUT", base+path+version, string(a.body))
			}
		}
	}
}

// What is not set reads back as in Azure.
func TestWhatIsNotSetReadsBackAsInAzure(t *testing.T) {
	s := start(t)
	s.environment("e")
	a := s.app("chat", chat(func(properties, template, container map[string]any) {
		properties["configuration"].(map[string]any)["secrets"] = []any{map[string]any{"name": "key", "value": "v"}}
		template["scale"] = map[string]any{"minReplicas": 0}
		container["env"] = []any{map[string]any{"name": "KEY", "secretRef": "key"}}
	}))
	revision := s.want(200, "GET", base+"/containerApps/chat/revisions/"+a.get(t, "properties", "latestRevisionName").(string)+version, "")
	for what, body := range map[string]string{"app": string(a.body), "revision": string(revision.body)} {
		for _, want := range []string{`"probes":[]`, `"env":[{"name":"KEY","value":"","secretRef":"key"}]`, `"minReplicas":0`} {
			if !strings.Contains(body, want) {
				t.Errorf("the %s lacks %s: %s", what, want, body)
			}
		}
	}
	if !strings.Contains(string(revision.body), `"revisionSuffix":null`) || !strings.Contains(string(a.body), `"revisionSuffix":""`) {
		t.Errorf("suffixes: want null in a revision and \"\" in an app, got %s and %s", revision.body, a.body)
	}
}
