package arm_test

import (
	"strings"
	"testing"
)

// Types that exist in Azure and never here have empty lists, and each resource of them is missing. az lists some of them
// before it does something else.
func TestAbsentTypes(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.want(201, "PUT", base+"/containerApps/chat"+version, chat(nil))
	for _, list := range []string{
		base + "/managedEnvironments/e/daprComponents", base + "/managedEnvironments/E/managedcertificates", base + "/managedEnvironments/e/httpRouteConfigs",
		base + "/containerApps/chat/authConfigs", base + "/containerApps/chat/sourcecontrols", base + "/connectedEnvironments",
	} {
		if value, ok := s.want(200, "GET", list+version, "").get(t, "value").([]any); !ok || len(value) != 0 {
			t.Errorf("%s: got %v, want an empty list", list, value)
		}
		if got := s.want(404, "GET", list+"/x"+version, "").get(t, "error", "code"); got != "ResourceNotFound" {
			t.Errorf("%s/x: got %v", list, got)
		}
		s.want(204, "DELETE", list+"/x"+version, "")
		if got := s.want(400, "PUT", list+"/x"+version, `{}`).get(t, "error", "message"); !strings.Contains(got.(string), "not built here") {
			t.Errorf("%s/x: got %v", list, got)
		}
	}
	message := s.want(404, "GET", base+"/managedEnvironments/e/daprComponents/state"+version, "").get(t, "error", "message")
	if want := "'Microsoft.App/managedEnvironments/daprComponents/e/state' under resource group 'ml' was not found"; !strings.Contains(message.(string), want) {
		t.Errorf("got %v, want %s", message, want)
	}
	for _, path := range []string{"/managedEnvironments/none/daprComponents", "/containerApps/none/authConfigs", "/jobs/none/detectors", "/connectedEnvironments/none/storages"} {
		s.want(404, "GET", base+path+version, "")
	}
	s.want(200, "GET", "/subscriptions/"+subscription+"/providers/Microsoft.App/sessionPools"+version, "")
	s.want(200, "GET", "/subscriptions/"+subscription+"/providers/Microsoft.App/locations/koreacentral/billingMeters"+version, "")
	if listed := string(s.want(200, "GET", "/subscriptions/"+subscription+"/providers/Microsoft.App"+version, "").body); strings.Contains(listed, "daprComponents") {
		t.Errorf("the provider lists a type that is not here: %s", listed)
	}
}
