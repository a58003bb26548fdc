package arm_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"penstock/internal/logs"
	"penstock/internal/resource"
)

const chatPath = base + "/containerApps/chat" + version

func TestOperations(t *testing.T) {
	s := start(t)
	s.environment("e")
	release := s.hold()
	put := s.want(201, "PUT", chatPath, chat(nil))
	if got := put.get(t, "properties", "provisioningState"); got != "InProgress" {
		t.Errorf("a write that is under way is %v", got)
	}
	status, result := put.header.Get("Azure-AsyncOperation"), put.header.Get("Location")
	for header, want := range map[string]string{
		"Azure-AsyncOperation": `/providers/Microsoft\.App/locations/koreacentral/containerappOperationStatuses/[-0-9a-f]{36}\?api-version=2025-01-01&azureAsyncOperation=true$`,
		"Location":             `/providers/Microsoft\.App/locations/koreacentral/containerappOperationResults/[-0-9a-f]{36}\?api-version=2025-01-01$`,
		"Retry-After":          `^1$`,
	} {
		if got := put.header.Get(header); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s is %q, want %s", header, got, want)
		}
	}
	if !strings.HasPrefix(status, s.URL+"/subscriptions/") {
		t.Errorf("%s is not on %s", status, s.URL)
	}
	a := s.want(200, "GET", status, "")
	if a.get(t, "status") != "InProgress" || a.header.Get("Retry-After") != "1" {
		t.Errorf("an operation that is under way: %v %s", a.header, a.body)
	}
	if a := s.want(202, "GET", result, ""); a.header.Get("Location") != result || a.header.Get("Retry-After") != "1" {
		t.Errorf("the result of an operation that is under way: %v", a.header)
	}
	release()
	if a := s.await(put, "Azure-AsyncOperation"); a.get(t, "status") != "Succeeded" || a.get(t, "error") != nil {
		t.Errorf("an operation that was done: %s", a.body)
	}
	if a := s.want(200, "GET", result, ""); a.get(t, "name") != "chat" || a.get(t, "properties", "provisioningState") != "Succeeded" {
		t.Errorf("the result: %s", a.body)
	}

	s.fails("no replica became ready")
	put = s.want(201, "PUT", chatPath, chat(func(_, _, c map[string]any) { c["image"] = "chat:2" }))
	if a := s.await(put, "Azure-AsyncOperation"); a.get(t, "status") != "Failed" || a.get(t, "error", "message") != "no replica became ready" {
		t.Errorf("an operation that failed: %s", a.body)
	}
	if a := s.await(put, "Location"); a.status != 409 || a.get(t, "error", "code") != "ContainerAppOperationError" {
		t.Errorf("the result of an operation that failed: %d %s", a.status, a.body)
	}
	if a := s.want(200, "GET", chatPath, ""); a.get(t, "properties", "provisioningState") != "Failed" || a.get(t, "properties", "deploymentErrors") != "no replica became ready" {
		t.Errorf("an app whose write failed: %s", a.body)
	}

	s.fails("")
	release = s.hold()
	first := s.want(201, "PUT", chatPath, chat(nil))
	second := s.want(201, "PUT", chatPath, chat(nil))
	if a := s.await(first, "Azure-AsyncOperation"); a.get(t, "status") != "Canceled" || a.get(t, "error", "code") != "OperationPreempted" {
		t.Errorf("an operation that a later one replaced: %s", a.body)
	}
	release()
	if a := s.await(second, "Azure-AsyncOperation"); a.get(t, "status") != "Succeeded" {
		t.Errorf("the later one: %s", a.body)
	}
	if a := s.do("GET", base[:strings.Index(base, "/resourceGroups")]+"/providers/Microsoft.App/locations/x/containerappOperationStatuses/none"+version, ""); a.status != 404 {
		t.Errorf("an operation that never was: %d %s", a.status, a.body)
	}
}

func TestDelete(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	environment := base + "/managedEnvironments/e" + version
	if a := s.want(409, "DELETE", environment, ""); a.get(t, "error", "code") != "ManagedEnvironmentHasContainerApps" || !strings.Contains(string(a.body), "'chat'") {
		t.Errorf("an environment with an app in it: %s", a.body)
	}
	if a := s.want(200, "GET", environment, ""); a.get(t, "properties", "provisioningState") != "Succeeded" {
		t.Errorf("after a refused delete: %s", a.body)
	}

	release := s.hold()
	gone := s.want(202, "DELETE", chatPath, "")
	if len(gone.body) > 0 {
		t.Errorf("a delete is answered with %q", gone.body)
	}
	if a := s.want(200, "GET", chatPath, ""); a.get(t, "properties", "provisioningState") != "Deleting" {
		t.Errorf("an app that goes: %s", a.body)
	}
	if a := s.want(409, "PUT", chatPath, chat(nil)); a.get(t, "error", "code") != "ContainerAppOperationInProgress" {
		t.Errorf("a write of an app that goes: %s", a.body)
	}
	s.want(409, "DELETE", environment, "")
	s.want(202, "DELETE", chatPath, "")
	release()
	if a := s.await(gone, "Location"); a.status != 204 {
		t.Errorf("the result of a delete: %d %s", a.status, a.body)
	}
	if a := s.await(gone, "Azure-AsyncOperation"); a.get(t, "status") != "Succeeded" {
		t.Errorf("a delete that is done: %s", a.body)
	}
	s.want(404, "GET", chatPath, "")
	s.want(204, "DELETE", chatPath, "")
	// An app of the same name later does not undo the delete.
	s.app("chat", chat(nil))
	if a := s.await(gone, "Azure-AsyncOperation"); a.get(t, "status") != "Succeeded" {
		t.Errorf("a delete before a new app: %s", a.body)
	}
	s.await(s.want(202, "DELETE", chatPath, ""), "Location")
	if a := s.await(s.want(202, "DELETE", environment, ""), "Location"); a.status != 204 {
		t.Errorf("the delete of an environment: %d %s", a.status, a.body)
	}
	s.want(404, "GET", environment, "")
	s.want(204, "DELETE", environment, "")
}

func TestWhereAppsCanBe(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.environment("f")
	s.app("chat", chat(nil))
	other := strings.Replace(base, "/ml/", "/other/", 1)
	if a := s.want(409, "PUT", other+"/containerApps/chat"+version, chat(nil)); a.get(t, "error", "code") != "ContainerAppNameInUse" {
		t.Errorf("two apps of one host name: %s", a.body)
	}
	s.want(404, "GET", other+"/containerApps/chat"+version, "")
	elsewhere := strings.Replace(chat(nil), "managedEnvironments/e", "managedEnvironments/f", 1)
	s.want(201, "PUT", other+"/containerApps/chat"+version, elsewhere)
	if a := s.want(400, "PUT", chatPath, elsewhere); !strings.Contains(string(a.body), "cannot move") {
		t.Errorf("a move: %s", a.body)
	}
	if a := s.want(409, "PUT", chatPath, strings.Replace(chat(nil), "koreacentral", "West US", 1)); a.get(t, "error", "code") != "InvalidResourceLocation" {
		t.Errorf("another location: %s", a.body)
	}
	if a := s.app("web", strings.Replace(chat(nil), `"location":"koreacentral",`, "", 1)); a.get(t, "location") != "Korea Central" {
		t.Errorf("the location of the environment: %s", a.body)
	}
	if a := s.want(400, "PUT", strings.Replace(chatPath, "/ml/", "/m.l./", 1), chat(nil)); a.get(t, "error", "code") != "InvalidResourceGroup" {
		t.Errorf("a group's name: %s", a.body)
	}
}

func TestNamesMatchInAnyCase(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	shouted := strings.ToUpper(strings.TrimSuffix(chatPath, version))
	a := s.want(200, "GET", shouted+"/?API-Version=2015-08-01", "")
	if got, want := a.get(t, "id"), strings.Replace(strings.TrimSuffix(chatPath, version), "containerApps", "containerapps", 1); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if a := s.want(201, "PUT", shouted+version, strings.Replace(chat(nil), "managedEnvironments/e", "MANAGEDENVIRONMENTS/E", 1)); a.get(t, "properties", "environmentId") != base+"/managedEnvironments/e" {
		t.Errorf("the environment's ID changed its spelling: %s", a.body)
	}
	if a := s.want(200, "GET", base+"/containerapps"+version, ""); len(a.get(t, "value").([]any)) != 1 {
		t.Errorf("got %s, want one app", a.body)
	}
}

func TestRevisionSuffix(t *testing.T) {
	s := start(t)
	s.environment("e")
	with := func(suffix, image string) string {
		return chat(func(_, template, c map[string]any) { template["revisionSuffix"], c["image"] = suffix, image })
	}
	if a := s.app("chat", with("blue", "chat:1")); a.get(t, "properties", "latestRevisionName") != "chat--blue" {
		t.Errorf("got %s", a.body)
	}
	if a := s.app("chat", with("blue", "chat:1")); a.get(t, "properties", "latestRevisionName") != "chat--blue" {
		t.Errorf("the same again: %s", a.body)
	}
	if a := s.want(400, "PUT", chatPath, with("blue", "chat:2")); a.get(t, "error", "code") != "ContainerAppInvalidRevisionName" {
		t.Errorf("another template of the same name: %s", a.body)
	}
	s.app("chat", with("green", "chat:2"))
	s.want(400, "PUT", chatPath, with("blue", "chat:1"))
}

func TestPatch(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(func(_, template, c map[string]any) {
		c["env"] = []any{map[string]any{"name": "A", "value": "1"}}
		template["scale"] = map[string]any{"minReplicas": 1}
	}))
	s.want(404, "PATCH", base+"/containerApps/web"+version, `{}`)
	for _, body := range []string{``, `[]`, `{"properties":{"template":{"scale":{"maxReplicas":0}}}}`, `{"properties":{"foo":1}}`} {
		s.want(400, "PATCH", chatPath, body)
	}
	patch := s.want(202, "PATCH", chatPath, `{"tags":{"team":"ml"},"properties":{"TEMPLATE":{"scale":{"maxReplicas":3}}}}`)
	if a := s.await(patch, "Location"); a.status != 200 || a.get(t, "tags", "team") != "ml" || a.get(t, "properties", "template", "scale", "maxReplicas") != 3.0 ||
		a.get(t, "properties", "template", "scale", "minReplicas") != 1.0 || a.get(t, "properties", "template", "containers", 0, "env", 0, "value") != "1" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	s.await(s.want(202, "PATCH", chatPath, `{"tags":{"team":null},"properties":{"configuration":{"ingress":null}}}`), "Location")
	if a := s.want(200, "GET", chatPath, ""); a.get(t, "tags") != nil || a.get(t, "properties", "configuration", "ingress") != nil {
		t.Errorf("got %s", a.body)
	}
	environment := base + "/managedEnvironments/e" + version
	if a := s.await(s.want(202, "PATCH", environment, `{"tags":{"penstock.behaviour":"azure"}}`), "Location"); a.get(t, "tags", "penstock.behaviour") != "azure" {
		t.Errorf("got %s", a.body)
	}
	s.want(400, "PATCH", environment, `{"tags":{"penstock.behaviour":"slow"}}`)
}

func TestImagesAreCheckedWhenTheTemplateChanges(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	missing := chat(func(_, _, c map[string]any) { c["image"] = "chat-missing:1" })
	s.want(400, "PUT", chatPath, missing)
	if a := s.want(200, "GET", chatPath, ""); a.get(t, "properties", "template", "containers", 0, "image") != "chat:1" || a.get(t, "properties", "provisioningState") != "Succeeded" {
		t.Errorf("after a refused write: %s", a.body)
	}
	// An image that has gone from the registry does not stand in the way of other changes.
	_, err := s.store.Apps().Put(t.Context(), resource.AppID(subscription, "ml", "chat"), func(a *resource.App, _ bool) error {
		a.Template.Containers[0].Image = "chat-missing:1"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.want(202, "PATCH", chatPath, `{"tags":{"team":"ml"}}`)
}

func TestStoredFieldsAreToldOf(t *testing.T) {
	s := start(t)
	s.environment("e")
	rules := []any{
		map[string]any{"name": "http", "http": map[string]any{"metadata": map[string]any{"concurrentRequests": "10"}}},
		map[string]any{"name": "bus", "custom": map[string]any{"type": "azure-servicebus", "metadata": map[string]any{"queueName": "q"}}},
	}
	a := s.app("chat", chat(func(_, template, _ map[string]any) { template["scale"] = map[string]any{"rules": rules} }))
	if a.get(t, "properties", "template", "scale", "rules", 0, "http", "metadata", "concurrentRequests") != "10" {
		t.Errorf("the rule is not answered: %s", a.body)
	}
	var told []string
	for e, err := range s.system.Read(t.Context(), logs.EventQuery{App: resource.AppID(subscription, "ml", "chat")}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Warning {
			told = append(told, e.Reason+" "+e.Message)
		}
	}
	if len(told) != 1 || !strings.HasPrefix(told[0], "SettingHasNoEffect template.scale.rules[1].custom.type is stored and has no effect") {
		t.Errorf("told %q", told)
	}
}

func TestAuthentication(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	for name, header := range map[string]string{
		"none": "", "a wrong one": "Bearer 0123456789abcdeg", "an empty one": "Bearer ", "another scheme": "Basic " + token, "a longer one": "Bearer " + token + "0",
	} {
		for _, path := range []string{chatPath, "/", base + "/containerApps/chat/logstream"} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if header != "" {
				r.Header.Set("Authorization", header)
			}
			if a := s.send(r); a.status != 401 || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%s at %s: got %d %v %s", name, path, a.status, a.header, a.body)
			}
		}
	}
}

func TestHeaders(t *testing.T) {
	s := start(t)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+base+"/containerApps"+version, nil)
	if err != nil {
		t.Fatal(err)
	}
	const id = "11111111-2222-3333-4444-555555555555"
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("x-ms-correlation-request-id", id)
	r.Header.Set("x-ms-client-request-id", id)
	r.Header.Set("x-ms-return-client-request-id", "true")
	a := s.send(r)
	if string(a.body) != `{"value":[]}` {
		t.Errorf("an empty list is %s", a.body)
	}
	if a.header.Get("x-ms-correlation-request-id") != id || a.header.Get("x-ms-client-request-id") != id || a.header.Get("x-ms-request-id") == "" {
		t.Errorf("headers %v", a.header)
	}
	if !strings.Contains(a.header.Get("api-supported-versions"), "2025-01-01") || a.header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("headers %v", a.header)
	}
	if a := s.do("PUT", chatPath, `{"a":"`+strings.Repeat("x", 4<<20)+`"}`); a.status != 413 {
		t.Errorf("a large body: %d %s", a.status, a.body)
	}
}

func TestSubscriptionsGroupsAndProviders(t *testing.T) {
	s := start(t)
	root := "/subscriptions/" + subscription
	group := root + "/resourceGroups/ml" + version
	s.want(404, "GET", group, "")
	s.want(404, "HEAD", group, "")
	s.environment("e")
	s.want(204, "HEAD", group, "")
	if a := s.want(200, "PUT", group, `{"location":"koreacentral","tags":{"team":"ml"}}`); a.get(t, "tags", "team") != "ml" {
		t.Errorf("got %s", a.body)
	}
	s.want(201, "PUT", root+"/resourcegroups/empty"+version, `{"location":"koreacentral"}`)
	s.want(400, "PUT", root+"/resourcegroups/empty"+version, `{}`)
	if a := s.want(200, "GET", root+"/resourcegroups"+version, ""); a.get(t, "value", 0, "name") != "empty" || a.get(t, "value", 1, "name") != "ml" {
		t.Errorf("got %s", a.body)
	}

	if a := s.want(200, "GET", "/subscriptions"+version, ""); a.get(t, "value", 0, "state") != "Enabled" {
		t.Errorf("got %s", a.body)
	}
	s.want(200, "GET", root+version, "")
	if a := s.want(200, "GET", root+"/locations"+version, ""); !strings.Contains(string(a.body), `"name":"koreacentral","displayName":"Korea Central"`) {
		t.Errorf("got %s", a.body)
	}
	a := s.want(200, "GET", root+"/providers/microsoft.app"+version, "")
	if a.get(t, "registrationState") != "Registered" || a.get(t, "resourceTypes", 0, "resourceType") != "containerApps" {
		t.Errorf("got %.300s", a.body)
	}
	if places, _ := a.get(t, "resourceTypes", 0, "locations").([]any); !slices.Contains(places, any("West Europe")) {
		t.Errorf("no West Europe in %v", places)
	}
	s.want(200, "GET", root+"/providers"+version, "")
	s.want(200, "POST", root+"/providers/Microsoft.App/register"+version, "")
	s.want(404, "GET", root+"/providers/Microsoft.Web"+version, "")
	s.want(404, "GET", "/nothing/here"+version, "")
	if a := s.want(200, "GET", root+"/providers/Microsoft.App/managedEnvironments"+version, ""); a.get(t, "value", 0, "name") != "e" {
		t.Errorf("got %s", a.body)
	}
	for _, bad := range []string{"2014-12-31", "latest", "2025-13-01", url.QueryEscape("2025-01-01\r\nX: y")} {
		s.want(400, "GET", "/subscriptions?api-version="+bad, "")
	}
	s.want(200, "GET", "/subscriptions?api-version=2022-11-01-preview", "")
	s.want(400, "GET", root+"/resourceGroups"+version+"&$filter=tagName", "")
	if a := s.want(400, "GET", "/subscriptions/a%20b"+version, ""); a.get(t, "error", "code") != "InvalidSubscriptionId" {
		t.Errorf("got %s", a.body)
	}
}

// A server that stops says so to those who still wait; it must not look like a yes.
func TestStoppingServer(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, "GET", chatPath, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	s.Config.Handler.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
