package arm_test

import (
	"testing"
	"time"

	"penstock/internal/resource"
)

const chatBase = base + "/containerApps/chat"

func TestStopAndStart(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.want(404, "POST", chatBase+"/stop"+version, "")
	s.app("chat", chat(nil))
	for verb, status := range map[string]string{"stop": "Stopped", "start": "Running"} {
		begun := s.want(202, "POST", chatBase+"/"+verb+version, "")
		if len(begun.body) > 0 || begun.header.Get("Retry-After") != "1" {
			t.Errorf("%s is answered with %v %q", verb, begun.header, begun.body)
		}
		if a := s.await(begun, "Azure-AsyncOperation"); a.get(t, "status") != "Succeeded" {
			t.Errorf("%s: %s", verb, a.body)
		}
		// The order of a map is random: each is asked of whatever state there is, and once more.
		a := s.await(s.want(202, "POST", chatBase+"/"+verb+version, ""), "Location")
		if a.status != 200 || a.get(t, "properties", "runningStatus") != status {
			t.Errorf("%s: %d %s", verb, a.status, a.body)
		}
	}
	s.want(405, "GET", chatBase+"/stop"+version, "")
	release := s.hold()
	defer release()
	s.want(202, "DELETE", chatPath, "")
	for _, verb := range []string{"stop", "start"} {
		if a := s.want(409, "POST", chatBase+"/"+verb+version, ""); a.get(t, "error", "code") != "ContainerAppOperationInProgress" {
			t.Errorf("%s of an app that goes: %s", verb, a.body)
		}
	}
}

func TestRestartOfARevision(t *testing.T) {
	s := start(t)
	s.environment("e")
	name, _ := s.app("chat", chat(nil)).get(t, "properties", "latestRevisionName").(string)
	revision := chatBase + "/revisions/" + name
	from := time.Now()
	if a := s.want(200, "POST", revision+"/restart"+version, ""); string(a.body) != `"Restart succeeded"` {
		t.Errorf("got %s", a.body)
	}
	rev, err := s.store.Revisions().Get(t.Context(), resource.AppID(subscription, "ml", "chat").Child("revisions", name))
	if err != nil || rev.Restarted.Before(from) || rev.Restarted.After(time.Now()) {
		t.Errorf("restarted at %s, %v", rev.Restarted, err)
	}
	s.want(404, "POST", chatBase+"/revisions/chat--none/restart"+version, "")
	s.await(s.want(202, "POST", chatBase+"/stop"+version, ""), "Location")
	if a := s.want(400, "POST", revision+"/restart"+version, ""); a.get(t, "error", "code") != "RevisionNotActive" {
		t.Errorf("a restart in a stopped app: %s", a.body)
	}
}
