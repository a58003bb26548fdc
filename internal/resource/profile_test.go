package resource_test

import (
	"strings"
	"testing"

	"penstock/internal/resource"
)

// The error for a size that does not fit names the smallest type that has room, and the command.
func TestSizesNameTheProfile(t *testing.T) {
	tests := map[string]struct {
		profile       string
		milli, memory int64
		says, not     string
	}{
		"more than 8Gi":              {"", 4000, 10, "type D4 has CPU: 4.0, memory: 16.0: run penstock env update e --workload-profile D4:D4 -g g, and set workloadProfileName: D4", ""},
		"more memory than vCPUs":     {"Consumption", 2000, 30, "type E4 has CPU: 4.0, memory: 32.0", ""},
		"more vCPUs":                 {"", 6000, 12, "type D8 has CPU: 8.0, memory: 32.0", ""},
		"more than any":              {"", 4000, 300, "No workload profile is that large; the largest, E32, has CPU: 32.0, memory: 256.0", ""},
		"a pair that is not valid":   {"", 250, 4, "[cpu: 0.25, memory: 0.5Gi]", "workload profile"},
		"more than its own type has": {"small", 4000, 20, "type E4 has", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := valid()
			a.Profile = test.profile
			a.Template.Containers[0].Resources = resource.Resources{MilliCPU: test.milli, Memory: test.memory << 30}
			faults := resource.ValidateApp(a)
			if test.profile != "" && len(faults) == 0 {
				e := resource.Environment{Meta: resource.Meta{ID: a.Environment}, Profiles: []resource.Profile{{Name: "small", Type: "D4", Max: 1}}}
				faults = resource.ValidateProfile(a.Profile, a.Template, e)
			}
			if len(faults) != 1 || !strings.Contains(faults[0].Message, test.says) || test.not != "" && strings.Contains(faults[0].Message, test.not) {
				t.Errorf("got %v, want %q", faults, test.says)
			}
		})
	}
}
