package arm_test

import (
	"net/url"
	"strings"
	"testing"

	"penstock/internal/runtimes/fake"
)

const mlGroup = "/subscriptions/" + subscription + "/resourceGroups/ml"

// DELETE of a group takes everything in it along, as az group delete expects: 202, and a Location that is polled until 200.
func TestDeleteGroup(t *testing.T) {
	s := platform(t)
	s.app("chat", chat(func(_, _, container map[string]any) { container["image"] = fake.Echo }))
	s.job(job(t, fake.Echo, nil))
	other := strings.Replace(base, "/ml/", "/other/", 1)
	s.await(s.want(201, "PUT", other+"/managedEnvironments/far"+version, `{"location":"koreacentral","properties":{}}`), "Azure-AsyncOperation")

	// An app of another group would lose its environment.
	foreign := s.want(201, "PUT", other+"/containerApps/guest"+version, chat(func(_, _, container map[string]any) { container["image"] = fake.Echo }))
	s.await(foreign, "Azure-AsyncOperation")
	a := s.want(409, "DELETE", mlGroup+version, "")
	if a.get(t, "error", "code") != "ResourceGroupDeletionBlocked" || !strings.Contains(a.text(), "containerApps/guest") {
		t.Errorf("a group with an app of another in it: %s", a.body)
	}
	if a := s.want(200, "GET", base+"/containerApps/chat"+version, ""); a.get(t, "properties", "provisioningState") != "Succeeded" {
		t.Errorf("a refused deletion has changed the app: %s", a.body)
	}
	s.await(s.want(202, "DELETE", other+"/containerApps/guest"+version, ""), "Location")

	a = s.want(202, "DELETE", strings.Replace(mlGroup, "/ml", "/ML", 1)+version, "")
	if where := a.header.Get("Location"); !strings.Contains(where, "/operationresults/") || a.header.Get("Retry-After") == "" {
		t.Errorf("headers %v", a.header)
	}
	if end := s.await(a, "Location"); end.status != 200 {
		t.Errorf("the deletion ended with %d %s", end.status, end.body)
	}
	for _, path := range []string{mlGroup, base + "/managedEnvironments/e", base + "/containerApps/chat", jobPath} {
		s.want(404, "GET", path+version, "")
	}
	s.want(200, "GET", other+"/managedEnvironments/far"+version, "")
	s.environment("e") // the name of the group is free again

	// A group without anything in it goes the same way.
	s.want(201, "PUT", "/subscriptions/"+subscription+"/resourcegroups/empty"+version, `{"location":"koreacentral"}`)
	if end := s.await(s.want(202, "DELETE", "/subscriptions/"+subscription+"/resourceGroups/EMPTY"+version, ""), "Location"); end.status != 200 {
		t.Errorf("the deletion of an empty group ended with %d %s", end.status, end.body)
	}
	s.want(404, "GET", "/subscriptions/"+subscription+"/resourceGroups/empty"+version, "")
	s.want(404, "DELETE", "/subscriptions/"+subscription+"/resourceGroups/empty"+version, "")
}

// The list of groups can be filtered, as az group list --tag does.
func TestGroupsByTag(t *testing.T) {
	s := start(t)
	s.environment("e") // the group ml, without tags
	list := "/subscriptions/" + subscription + "/resourceGroups"
	s.want(201, "PUT", list+"/a"+version, `{"location":"koreacentral","tags":{"Team":"ml","stage":"test"}}`)
	s.want(201, "PUT", list+"/b"+version, `{"location":"westeurope","tags":{"team":"web"}}`)
	for filter, want := range map[string]string{
		"":                                       "a b ml",
		"tagName eq 'team'":                      "a b",
		"tagname eq 'team' and tagvalue eq 'ml'": "a",
		"tagName eq 'team' and tagValue eq 'ML'": "",
		"location eq 'West Europe'":              "b",
		"name ne 'a' and tagName eq 'team'":      "b",
	} {
		a := s.want(200, "GET", list+version+"&$filter="+url.QueryEscape(filter), "")
		var got []string
		groups, _ := a.get(t, "value").([]any)
		for i := range groups {
			got = append(got, a.get(t, "value", i, "name").(string))
		}
		if have := strings.Join(got, " "); have != want {
			t.Errorf("%s: got %q, want %q", filter, have, want)
		}
	}
	a := s.want(400, "GET", list+version+"&$filter="+url.QueryEscape("resourceType eq 'x'"), "")
	if a.get(t, "error", "code") != "InvalidFilter" || !strings.Contains(a.text(), "want name, location, or tagName") {
		t.Errorf("got %s", a.body)
	}
}

// While a group is being deleted nothing is written in it.
func TestAGroupThatIsBeingDeletedTakesNoWrites(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.hold()
	a := s.want(202, "DELETE", mlGroup+version, "")
	if got := s.want(200, "GET", mlGroup+version, "").get(t, "properties", "provisioningState"); got != "Deleting" {
		t.Errorf("the group is %v", got)
	}
	if got := s.want(200, "GET", base+"/managedEnvironments/e"+version, "").get(t, "properties", "provisioningState"); got != "ScheduledForDelete" {
		t.Errorf("the environment is %v", got)
	}
	for path, body := range map[string]string{
		base + "/containerApps/chat": chat(nil), base + "/managedEnvironments/new": `{"location":"koreacentral","properties":{}}`, mlGroup: `{"location":"koreacentral"}`,
	} {
		if got := s.want(409, "PUT", path+version, body).get(t, "error", "code"); got != "ResourceGroupBeingDeleted" {
			t.Errorf("PUT %s: %v", path, got)
		}
	}
	s.want(202, "DELETE", mlGroup+version, "") // again
	if got := s.want(202, "GET", a.header.Get("Location"), ""); got.header.Get("Location") == "" || got.header.Get("Retry-After") == "" {
		t.Errorf("headers while it goes: %v", got.header)
	}
}
