package arm_test

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/arm"
)

const chatRevisions = base + "/containerApps/chat/revisions"

// A list that is asked for in parts tells each entry once, also when entries come and go between the parts.
func TestListsInParts(t *testing.T) {
	s := start(t)
	s.environment("e")
	for _, name := range []string{"bb", "dd", "ff", "hh", "jj"} {
		s.app(name, chat(nil))
	}
	var names []string
	next := base + "/containerApps" + version + "&$top=2"
	for parts := 0; next != ""; parts++ {
		a := s.want(200, "GET", next, "")
		for i := 0; a.get(t, "value", i) != nil; i++ {
			names = append(names, a.get(t, "value", i, "name").(string))
		}
		next, _ = a.get(t, "nextLink").(string)
		if next != "" && !strings.HasPrefix(next, s.URL) {
			t.Errorf("want a whole address, got %s", next)
		}
		if parts == 0 {
			s.await(s.want(202, "DELETE", base+"/containerApps/dd"+version, ""), "Location")
			s.app("aa", chat(nil))
			s.app("gg", chat(nil))
		}
	}
	if want := []string{"bb", "dd", "ff", "gg", "hh", "jj"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	for _, bad := range []string{"$top=0", "$top=x", "$skipToken=***", "$skipToken=abcd", "$skipToken=", "$expand=all"} {
		s.want(400, "GET", base+"/containerApps"+version+"&"+bad, "")
	}
}

func TestRevisionsByFilter(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(func(_, template, _ map[string]any) { template["revisionSuffix"] = "one" }))
	s.app("chat", chat(func(_, template, container map[string]any) {
		template["revisionSuffix"], container["image"] = "two", "chat:2"
	}))
	s.want(200, "POST", chatRevisions+"/chat--two/deactivate"+version, "")
	tests := map[string][]string{
		"":                          {"chat--one", "chat--two"},
		"properties/active eq true": {"chat--one"},
		"Properties/Active NE true": {"chat--two"},
		"name eq 'CHAT--two'":       {"chat--two"},
		"name ne 'chat--two' and properties/active eq false": nil,
		"properties/replicas eq 0":                           {"chat--one", "chat--two"},
		"replicas lt 1 and active eq true":                   {"chat--one"},
		"properties/createdTime gt 2020-01-01T00:00:00+09:00 and createdTime lt 2021-01-01T00:00:00Z": nil,
		"properties/nothing eq 'x'": nil,
		"name eq 'it''s'":           nil,
	}
	for text, want := range tests {
		a := s.want(200, "GET", chatRevisions+version+"&$filter="+url.QueryEscape(text), "")
		var got []string
		for i := 0; a.get(t, "value", i) != nil; i++ {
			got = append(got, a.get(t, "value", i, "name").(string))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
	for _, bad := range []string{"name", "name eq", "name gt 'a'", "name eq 'a", "name eq a", "name eq 'a'or", "name eq 'a' or name eq 'b'"} {
		if a := s.want(400, "GET", chatRevisions+version+"&$filter="+url.QueryEscape(bad), ""); a.get(t, "error", "code") != "InvalidFilter" {
			t.Errorf("%s: %s", bad, a.body)
		}
	}
}

func FuzzRevisionFilter(f *testing.F) {
	for _, text := range []string{"properties/active eq true", "name ne 'it''s' and properties/replicas eq 1e3", "'", "a eq ''", "//  eq -0"} {
		f.Add(text)
	}
	s := start(f)
	s.environment("e")
	s.app("chat", chat(nil))
	f.Fuzz(func(t *testing.T, text string) {
		client := &server{Server: s.Server, t: t}
		if a := client.do("GET", chatRevisions+version+"&$filter="+url.QueryEscape(text), ""); a.status != 200 && a.status != 400 {
			t.Errorf("%q: %d %s", text, a.status, a.body)
		}
	})
}

// A group that was put is there after a restart of the server, with its tags and where it was put.
func TestGroupsStay(t *testing.T) {
	s := start(t)
	path := "/subscriptions/" + subscription + "/resourceGroups/Team"
	s.want(201, "PUT", path+version, `{"location":"Korea Central","tags":{"team":"ml"}}`)
	s.want(409, "PUT", path+version, `{"location":"westeurope"}`)
	another := httptest.NewRecorder() // of another process over the same store
	r := httptest.NewRequestWithContext(t.Context(), "GET", strings.ToLower(path)+version, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	arm.New(s.config).ServeHTTP(another, r)
	a := answer{status: another.Code, body: another.Body.Bytes()}
	if a.get(t, "id") != path || a.get(t, "tags", "team") != "ml" || a.get(t, "location") != "koreacentral" {
		t.Errorf("after a restart: %s", a.body)
	}
	s.want(200, "PUT", path+version, `{"location":"koreacentral"}`)
}

func TestProviderOperations(t *testing.T) {
	s := start(t)
	a := s.want(200, "GET", "/providers/Microsoft.App/operations"+version, "")
	var names []string
	for i := 0; a.get(t, "value", i) != nil; i++ {
		names = append(names, a.get(t, "value", i, "name").(string))
	}
	for _, want := range []string{
		"Microsoft.App/containerApps/read", "Microsoft.App/containerApps/write", "Microsoft.App/containerApps/delete",
		"Microsoft.App/containerApps/listSecrets/action", "Microsoft.App/containerApps/revisions/restart/action", "Microsoft.App/managedEnvironments/write",
		"Microsoft.App/getCustomDomainVerificationId/action", "Microsoft.App/locations/containerappOperationStatuses/read",
	} {
		if n := len(slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s != want })); n != 1 {
			t.Errorf("%s is there %d times in %q", want, n, names)
		}
	}
}

func TestCustomHostNames(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	ask := func(host string) answer {
		t.Helper()
		return s.want(200, "POST", base+"/containerApps/chat/listCustomHostNameAnalysis"+version+"&customHostname="+host, "")
	}
	id := s.want(200, "POST", "/subscriptions/"+subscription+"/providers/Microsoft.App/getCustomDomainVerificationId"+version, "")
	if len(id.body) != 66 || id.body[0] != '"' {
		t.Errorf("want a string of 64 digits, got %s", id.body)
	}
	if a := ask("Mine.example.com."); a.get(t, "hostName") != "mine.example.com" || a.get(t, "customDomainVerificationTest") != "Passed" || a.get(t, "aRecords", 0) != "192.0.2.1" || a.get(t, "isHostnameAlreadyVerified") != true {
		t.Errorf("its owner: %s", a.body)
	}
	// A write takes names without records too, so they pass.
	for _, name := range []string{"other.example.com", "slow.example.com"} {
		if a := ask(name); a.get(t, "customDomainVerificationTest") != "Passed" || a.get(t, "isHostnameAlreadyVerified") != false {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	if a := ask("mine.e.penstock.localhost"); a.get(t, "customDomainVerificationTest") != "Failed" || !strings.Contains(a.text(), "want a domain of your own") {
		t.Errorf("a name below the environment's: %s", a.body)
	}
	if a := ask("chat.e.penstock.localhost"); a.get(t, "hasConflictOnManagedEnvironment") != true || !strings.HasSuffix(fmt.Sprint(a.get(t, "conflictingContainerAppResourceId")), "/chat") {
		t.Errorf("the name of an app: %s", a.body)
	}
	s.app("other", withDomains(`[{"name":"Taken.example.com","bindingType":"Disabled"}]`))
	if a := ask("taken.example.com"); a.get(t, "hasConflictOnManagedEnvironment") != true || !strings.HasSuffix(fmt.Sprint(a.get(t, "conflictingContainerAppResourceId")), "/other") {
		t.Errorf("a domain of another app: %s", a.body)
	}
	s.want(400, "POST", base+"/containerApps/chat/listCustomHostNameAnalysis"+version+"&customHostname=no_name", "")
}

func TestNamesThatAreFree(t *testing.T) {
	s := start(t)
	s.environment("e")
	body, _ := upload(t, time.Hour, "chat.example.com")
	s.want(200, "PUT", certificates+"/site"+version, body)
	ask := func(status int, name, typ string) answer {
		t.Helper()
		return s.want(status, "POST", environmentE+"/checkNameAvailability"+version, fmt.Sprintf(`{"name":%q,"type":%q}`, name, typ))
	}
	const typ = "Microsoft.App/managedEnvironments/certificates"
	for name, want := range map[string]any{"free": nil, "SITE": "AlreadyExists", "": "Invalid"} {
		if a := ask(200, name, typ); a.get(t, "reason") != want || a.get(t, "nameAvailable") != (want == nil) {
			t.Errorf("%q: want %v, got %s", name, want, a.body)
		}
	}
	if a := ask(400, "free", "Microsoft.App/managedEnvironments/dreams"); !strings.Contains(string(a.body), "want one of ") || !strings.Contains(string(a.body), typ) {
		t.Errorf("got %s", a.body)
	}
}

// The token of an environment opens its event stream and no other.
func TestEnvironmentStream(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.environment("other")
	s.await(s.want(201, "PUT", environmentE+version, `{"location":"koreacentral","properties":{"zoneRedundant":true}}`), "Azure-AsyncOperation")
	stream, _ := s.want(200, "GET", environmentE+version, "").get(t, "properties", "eventStreamEndpoint").(string)
	granted, _ := s.want(200, "POST", environmentE+"/getAuthtoken"+version, "").get(t, "properties", "token").(string)
	if a := s.with(granted, stream); a.status != 200 || !strings.Contains(string(a.body), "zoneRedundant is stored and has no effect") {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := s.with(granted, strings.Replace(stream, "/e/", "/other/", 1)); a.status != 401 {
		t.Errorf("another environment's stream: %d", a.status)
	}
	if a := s.with(granted, s.URL+environmentE+version); a.status != 401 {
		t.Errorf("the API: %d", a.status)
	}
}
