package arm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
)

const environmentE = base + "/managedEnvironments/e"

// profiled makes the environment e with a D4 and an E8 profile.
func (s *server) profiled() {
	s.t.Helper()
	a := s.want(201, "PUT", environmentE+version, `{"location":"koreacentral","properties":{"workloadProfiles":[
		{"name":"Consumption","workloadProfileType":"Consumption"},
		{"name":"cpu","workloadProfileType":"d4","minimumCount":1,"maximumCount":1},
		{"name":"ram","workloadProfileType":"E8","minimumCount":0,"maximumCount":1}]}}`)
	s.await(a, "Azure-AsyncOperation")
}

func sized(profile string, cpu float64, memory string) string {
	return chat(func(properties, _, container map[string]any) {
		properties["workloadProfileName"] = profile
		container["resources"] = map[string]any{"cpu": cpu, "memory": memory}
	})
}

// On a dedicated profile an app has any size up to a node; on Consumption one of the pairs.
func TestWorkloadProfilesOfApps(t *testing.T) {
	s := start(t)
	s.profiled()
	tests := map[string]struct {
		body   string
		status int
		want   string
	}{
		"any size on a dedicated node":    {sized("cpu", 3.1, "10.5Gi"), 201, `"workloadProfileName":"cpu"`},
		"a whole node":                    {sized("RAM", 8, "64Gi"), 201, `"workloadProfileName":"RAM"`},
		"more vCPUs than the node has":    {sized("cpu", 4.25, "8Gi"), 400, "CPU: 4.0, memory: 16.0"},
		"more memory than the node has":   {sized("cpu", 1, "17Gi"), 400, "ContainerAppInvalidResourceTotal"},
		"no pair of Consumption":          {sized("Consumption", 3.1, "10.5Gi"), 400, "[cpu: 0.25, memory: 0.5Gi]"},
		"a pair of Consumption":           {sized("Consumption", 4, "8Gi"), 201, `"workloadProfileName":"Consumption"`},
		"a profile that there is none of": {sized("gpu", 1, "2Gi"), 400, "want one of the workload profiles of the environment 'e', which are Consumption, cpu, ram"},
	}
	n := 0
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n++
			a := s.want(test.status, "PUT", fmt.Sprintf("%s/containerApps/app-%d%s", base, n, version), test.body)
			if !strings.Contains(string(a.body), test.want) {
				t.Errorf("want %s in\n%s", test.want, a.body)
			}
		})
	}
}

func TestWorkloadProfilesOfEnvironments(t *testing.T) {
	s := start(t)
	write := func(profiles string) answer {
		t.Helper()
		return s.do("PUT", environmentE+version, `{"location":"koreacentral","properties":{"workloadProfiles":[`+profiles+`]}}`)
	}
	refusals := map[string]struct{ profiles, want string }{
		"a GPU":                   {`{"name":"a","workloadProfileType":"NC24-A100","minimumCount":1,"maximumCount":1}`, "get no GPU"},
		"a serverless GPU":        {`{"name":"a","workloadProfileType":"Consumption-GPU-NC8as-T4"}`, "get no GPU"},
		"confidential":            {`{"name":"a","workloadProfileType":"DC4","maximumCount":1}`, "its memory is not encrypted"},
		"no type of Azure's":      {`{"name":"a","workloadProfileType":"D5","maximumCount":1}`, "want one of Consumption, D4, D8, D16, D32, E4, E8, E16, E32"},
		"no name":                 {`{"workloadProfileType":"D4","maximumCount":1}`, "workloadProfiles[0].name"},
		"a name twice":            {`{"name":"a","workloadProfileType":"D4","maximumCount":1},{"name":"A","workloadProfileType":"D8","maximumCount":1}`, "is the name of another profile already"},
		"fewer nodes than least":  {`{"name":"a","workloadProfileType":"D4","minimumCount":2,"maximumCount":1}`, "at least minimumCount, which is 2"},
		"no node at most":         {`{"name":"a","workloadProfileType":"D4"}`, "want at least 1 node"},
		"nodes of Consumption":    {`{"name":"Consumption","workloadProfileType":"Consumption","maximumCount":3}`, "want no minimumCount and maximumCount"},
		"Consumption twice":       {`{"name":"a","workloadProfileType":"Consumption"},{"name":"b","workloadProfileType":"Consumption"}`, "want one profile of type Consumption"},
		"a flexible preview type": {`{"name":"a","workloadProfileType":"Flexible"}`, "FeatureNotSupported"},
	}
	for name, test := range refusals {
		t.Run(name, func(t *testing.T) {
			if a := write(test.profiles); a.status != 400 || !strings.Contains(string(a.body), test.want) {
				t.Errorf("got %d, want 400 with %s\n%s", a.status, test.want, a.body)
			}
		})
	}

	s.profiled()
	if a := s.want(200, "GET", environmentE+version, ""); !strings.Contains(string(a.body), `{"name":"cpu","workloadProfileType":"D4","minimumCount":1,"maximumCount":1}`) {
		t.Errorf("profiles do not read back: %s", a.body)
	}
	s.app("chat", sized("cpu", 3, "9Gi"))
	if a := write(`{"name":"ram","workloadProfileType":"E8","maximumCount":1}`); a.status != 409 || a.get(t, "error", "code") != "ManagedEnvironmentWorkloadProfileInUse" {
		t.Errorf("a profile that an app has was taken away: %d %s", a.status, a.body)
	}
	states := s.want(200, "GET", environmentE+"/workloadProfileStates"+version, "")
	if states.get(t, "value", 0, "name") != "cpu" || states.get(t, "value", 0, "properties", "currentCount") != 1.0 || states.get(t, "value", 2) != nil {
		t.Errorf("states: %s", states.body)
	}
	types := s.want(200, "GET", "/subscriptions/"+subscription+"/providers/Microsoft.App/locations/koreacentral/availableManagedEnvironmentsWorkloadProfileTypes"+version, "")
	if types.get(t, "value", 8, "name") != "E32" || types.get(t, "value", 8, "properties", "memoryGiB") != 256.0 || types.get(t, "value", 0, "properties", "applicability") != "LocationDefault" {
		t.Errorf("types: %s", types.body)
	}
}

// Usages count what runs, by the category of its profile.
func TestUsages(t *testing.T) {
	s := start(t)
	s.profiled()
	a := s.app("chat", sized("cpu", 1.5, "3Gi"))
	name, _ := a.get(t, "properties", "latestRevisionName").(string)
	s.mu.Lock()
	for i := range 2 {
		s.replicas = append(s.replicas, resource.Replica{Name: fmt.Sprint("r", i), Revision: chatID.Child("revisions", name), Created: time.Now()})
	}
	s.mu.Unlock()
	got := s.want(200, "GET", environmentE+"/usages"+version, "")
	for i, want := range []struct {
		name    string
		current float64
	}{{"ManagedEnvironmentConsumptionCores", 0}, {"ManagedEnvironmentGeneralPurposeCores", 3}, {"ManagedEnvironmentMemoryOptimizedCores", 0}} {
		if got.get(t, "value", i, "name", "value") != want.name || got.get(t, "value", i, "currentValue") != want.current || got.get(t, "value", i, "limit") != 4.0 || got.get(t, "value", i, "unit") != "Count" {
			t.Errorf("want %v of 4 in %s", want, got.body)
		}
	}
	for location, want := range map[string]float64{"Korea%20Central": 1, "westeurope": 0} {
		got := s.want(200, "GET", "/subscriptions/"+subscription+"/providers/Microsoft.App/locations/"+location+"/usages"+version, "")
		if got.get(t, "value", 0, "name", "value") != "ManagedEnvironmentCount" || got.get(t, "value", 0, "currentValue") != want {
			t.Errorf("%s: want %v in %s", location, want, got.body)
		}
	}
}
