package arm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"penstock/internal/logs"
	"penstock/internal/resource"
)

// shared is the app in Multiple mode: a version, and its shares in JSON.
func shared(version, traffic string) string {
	return chat(func(properties, template, _ map[string]any) {
		template["revisionSuffix"] = version
		configuration := properties["configuration"].(map[string]any)
		configuration["activeRevisionsMode"] = "multiple"
		configuration["ingress"].(map[string]any)["traffic"] = json.RawMessage(traffic)
	})
}

func TestTraffic(t *testing.T) {
	s := start(t)
	s.environment("e")
	a := s.app("chat", shared("v1", `[{"revisionName":"chat--v1","weight":100}]`))
	if got := fmt.Sprint(a.get(t, "properties", "configuration", "ingress", "traffic")); got != "[map[revisionName:chat--v1 weight:100]]" {
		t.Errorf("traffic is answered as %s", got)
	}
	a = s.app("chat", shared("v2", `[{"revisionName":"chat--v1","weight":80},{"latestRevision":true,"weight":20,"label":"next"}]`))
	if !strings.Contains(string(a.body), `"traffic":[{"revisionName":"chat--v1","weight":80},{"weight":20,"label":"next","latestRevision":true}]`) ||
		a.get(t, "properties", "configuration", "activeRevisionsMode") != "Multiple" {
		t.Errorf("answered: %s", a.body)
	}
	for name, weight := range map[string]float64{"chat--v1": 80, "chat--v2": 20} {
		if a := s.want(200, "GET", chatBase+"/revisions/"+name+version, ""); a.get(t, "properties", "trafficWeight") != weight {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	told := false
	for e, err := range s.system.Read(t.Context(), logs.EventQuery{App: resource.AppID(subscription, "ml", "chat")}) {
		told = told || err == nil && e.Reason == "TrafficWeightUpdate" && e.Message == "Setting traffic weight of '80%' for revision 'chat--v1'"
	}
	if !told {
		t.Error("the new weights are not told")
	}
	for name, test := range map[string]struct{ traffic, field string }{
		"a revision that is not there": {`[{"revisionName":"chat--v9","weight":100}]`, "configuration.ingress.traffic[0].revisionName"},
		"a revision of another app":    {`[{"revisionName":"other--v1","weight":100}]`, "configuration.ingress.traffic[0].revisionName"},
		"90 percent":                   {`[{"latestRevision":true,"weight":90}]`, "configuration.ingress.traffic"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.want(400, "PUT", chatPath, shared("v2", test.traffic))
			if a.get(t, "error", "code") != "ContainerAppInvalidValue" || a.get(t, "error", "target") != test.field {
				t.Errorf("got %s, want a fault of %s", a.body, test.field)
			}
		})
	}
	// az sets the mode by a PATCH that leaves the shares as they are; in Single mode they mean nothing, and that is told.
	s.await(s.want(202, "PATCH", chatPath, `{"properties":{"configuration":{"activeRevisionsMode":"Single"}}}`), "Azure-AsyncOperation")
	if a := s.want(200, "GET", chatPath, ""); !strings.Contains(string(a.body), `"traffic":[{"weight":100,"latestRevision":true}]`) {
		t.Errorf("in Single mode: %s", a.body)
	}
	told = false
	for e, err := range s.system.Read(t.Context(), logs.EventQuery{App: resource.AppID(subscription, "ml", "chat")}) {
		told = told || err == nil && e.Reason == "SettingHasNoEffect" && strings.HasPrefix(e.Message, "configuration.ingress.traffic ")
	}
	if !told {
		t.Error("it is not told that shares mean nothing")
	}
}

func TestActivateAndDeactivate(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", shared("v1", `[]`))
	s.app("chat", shared("v2", `[]`))
	act := func(status int, revision, verb string) answer {
		t.Helper()
		return s.want(status, "POST", chatBase+"/revisions/"+revision+"/"+verb+version, "")
	}
	active := func(revision string) any {
		t.Helper()
		return s.want(200, "GET", chatBase+"/revisions/"+revision+version, "").get(t, "properties", "active")
	}
	for range 2 { // what is so already is no error
		if a := act(200, "chat--v1", "deactivate"); string(a.body) != `"Deactivate succeeded"` || active("chat--v1") != false {
			t.Errorf("deactivate: %s, active %v", a.body, active("chat--v1"))
		}
	}
	if a := act(400, "chat--v1", "restart"); a.get(t, "error", "code") != "RevisionNotActive" {
		t.Errorf("restart of an inactive revision: %s", a.body)
	}
	if a := act(200, "chat--v1", "activate"); string(a.body) != `"Activate succeeded"` || active("chat--v1") != true {
		t.Errorf("activate: %s, active %v", a.body, active("chat--v1"))
	}
	act(404, "chat--v9", "activate")

	// Who takes away the last revision with traffic is told so.
	warnings := func() (n int) {
		for e, err := range s.system.Read(t.Context(), logs.EventQuery{App: resource.AppID(subscription, "ml", "chat")}) {
			if err == nil && e.Reason == "TrafficToInactiveRevisions" && e.Warning && strings.Contains(e.Message, "(chat--v2)") {
				n++
			}
		}
		return n
	}
	if n := warnings(); n != 0 {
		t.Errorf("while one is active: %d warnings", n)
	}
	act(200, "chat--v2", "deactivate")
	if n := warnings(); n != 1 {
		t.Errorf("after the last with traffic: %d warnings, want 1", n)
	}
	act(200, "chat--v2", "activate")

	s.app("chat", chat(func(_, template, _ map[string]any) { template["revisionSuffix"] = "v2" }))
	if a := act(400, "chat--v1", "activate"); a.get(t, "error", "code") != "RevisionModeSingle" {
		t.Errorf("activate in Single mode: %s", a.body)
	}
	act(200, "chat--v2", "deactivate")
	act(200, "chat--v2", "activate")
}
