package arm_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// The list of resources of all types, as az resource list asks for it, and what narrows it.
func TestListResources(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.want(201, "PUT", base+"/managedEnvironments/tagged"+version, `{"location":"koreacentral","tags":{"team":"ml"},"properties":{}}`)
	other := strings.Replace(base, "/ml/", "/other/", 1)
	s.want(201, "PUT", other+"/managedEnvironments/far"+version, `{"location":"westeurope","properties":{}}`)
	s.app("chat", chat(nil))
	names := func(path, filter string) string {
		t.Helper()
		a := s.want(200, "GET", path+"/resources"+version+"&$filter="+url.QueryEscape(filter), "")
		var all []string
		for i := 0; a.get(t, "value", i) != nil; i++ {
			all = append(all, fmt.Sprint(a.get(t, "value", i, "name")))
		}
		return strings.Join(all, " ")
	}
	root := "/subscriptions/" + subscription
	for filter, want := range map[string]string{
		"":                          "chat e tagged far",
		"resourceGroup eq 'ML'":     "chat e tagged",
		"name eq 'far'":             "far",
		"location eq 'West Europe'": "far",
		"resourceType eq 'microsoft.app/containerapps'":  "chat",
		"resourceType ne 'Microsoft.App/containerApps'":  "e tagged far",
		"tagName eq 'Team' and tagValue eq 'ml'":         "tagged",
		"tagName eq 'team' and tagValue eq 'other'":      "",
		"tagName eq 'team' and resourceGroup eq 'other'": "",
	} {
		if got := names(root, filter); got != want {
			t.Errorf("%s: got %q, want %q", filter, got, want)
		}
	}
	if got := names(mlGroup, ""); got != "chat e tagged" {
		t.Errorf("of the group: %q", got)
	}
	a := s.want(200, "GET", mlGroup+"/resources"+version+"&$top=1&$expand=createdTime,changedTime,provisioningState", "")
	if a.get(t, "value", 0, "provisioningState") != "Succeeded" || a.get(t, "value", 0, "createdTime") == nil || a.get(t, "value", 0, "changedTime") == nil {
		t.Errorf("expanded: %s", a.body)
	}
	if next := s.want(200, "GET", a.get(t, "nextLink").(string), ""); next.get(t, "value", 0, "name") != "e" {
		t.Errorf("the next part: %s", next.body)
	}
	for query, want := range map[string]string{
		"&$filter=" + url.QueryEscape("size eq 'x'"):     "want name, resourceType",
		"&$filter=" + url.QueryEscape("name eq 3"):       "want a text in quotes",
		"&$filter=" + url.QueryEscape("tagValue eq 'x'"): "want tagName beside it",
		"&$expand=everything":                            "want createdTime, changedTime and provisioningState",
	} {
		if a := s.want(400, "GET", root+"/resources"+version+query, ""); !strings.Contains(a.text(), want) {
			t.Errorf("%s: got %s, want %s", query, a.body, want)
		}
	}
	s.want(404, "GET", root+"/resourceGroups/none/resources"+version, "")
}

// Tags of a resource and of a group, as az tag reads and writes them.
func TestTags(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	for _, of := range []string{base + "/containerApps/chat", base + "/managedEnvironments/e", mlGroup} {
		path := of + "/providers/Microsoft.Resources/tags/default" + version
		step := func(method, body, want string) {
			t.Helper()
			a := s.want(200, method, path, body)
			if got := fmt.Sprint(a.get(t, "properties", "tags")); got != want {
				t.Errorf("%s %s of %s: got %s, want %s", method, body, of, got, want)
			}
		}
		step("GET", "", "map[]")
		step("PUT", `{"properties":{"tags":{"a":"1","b":"2"}}}`, "map[a:1 b:2]")
		step("PATCH", `{"operation":"Merge","properties":{"tags":{"B":"3","c":"4"}}}`, "map[a:1 b:3 c:4]")
		step("PATCH", `{"operation":"delete","properties":{"tags":{"c":"5","A":""}}}`, "map[b:3 c:4]")
		step("PATCH", `{"operation":"Replace","properties":{"tags":{"d":"6"}}}`, "map[d:6]")
		step("GET", "", "map[d:6]")
		if got := fmt.Sprint(s.want(200, "GET", of+version, "").get(t, "tags")); got != "map[d:6]" {
			t.Errorf("%s has the tags %s", of, got)
		}
		if a := s.want(400, "PATCH", path, `{"operation":"add","properties":{"tags":{}}}`); !strings.Contains(a.text(), "want Merge, Replace or Delete, got 'add'") {
			t.Errorf("got %s", a.body)
		}
		step("DELETE", "", "map[]")
	}
	s.want(404, "PUT", base+"/containerApps/none/providers/Microsoft.Resources/tags/default"+version, `{"properties":{"tags":{}}}`)
	s.want(400, "PUT", base+"/containerApps/chat/providers/Microsoft.Resources/tags/default"+version, `{"properties":{"tags":{"penstock.nothing":"1"}}}`)
}
