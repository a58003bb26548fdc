package resource_test

import (
	"strings"
	"testing"

	"penstock/internal/resource"
)

func TestValidateTraffic(t *testing.T) {
	type shares []resource.Traffic
	const field = "configuration.ingress.traffic"
	tests := map[string]struct {
		shares shares
		field  string // "" when nothing is wrong
		says   string
	}{
		"none":                          {nil, "", ""},
		"two revisions":                 {shares{{Revision: "chat--a", Weight: 90}, {Revision: "chat--b", Weight: 10}}, "", ""},
		"the latest beside another":     {shares{{Latest: true, Weight: 90}, {Revision: "chat--b", Weight: 10, Label: "blue"}}, "", ""},
		"a label without a share":       {shares{{Latest: true, Weight: 100}, {Revision: "chat--b", Label: "blue-1"}}, "", ""},
		"99 percent":                    {shares{{Latest: true, Weight: 99}}, field, "add up to 100, got 99"},
		"110 percent":                   {shares{{Latest: true, Weight: 60}, {Revision: "chat--b", Weight: 50}}, field, "got 110"},
		"a negative share":              {shares{{Latest: true, Weight: 110}, {Revision: "chat--b", Weight: -10}}, field + "[0].weight", "want 0 to 100, got 110"},
		"no revision":                   {shares{{Weight: 100}}, field + "[0]", "got neither"},
		"a name and the latest":         {shares{{Latest: true, Revision: "chat--a", Weight: 100}}, field + "[0]", "got both"},
		"one revision twice":            {shares{{Revision: "chat--a", Weight: 50}, {Revision: "chat--a", Weight: 50}}, field + "[1]", "one entry for each revision"},
		"the latest twice":              {shares{{Latest: true, Weight: 50}, {Latest: true, Weight: 50}}, field + "[1]", "one entry for each revision"},
		"one label twice":               {shares{{Latest: true, Weight: 50, Label: "x"}, {Revision: "chat--a", Weight: 50, Label: "x"}}, field + "[1].label", "on a second"},
		"a label in capitals":           {shares{{Latest: true, Weight: 100, Label: "Blue"}}, field + "[0].label", "lower-case"},
		"a label with two dashes":       {shares{{Latest: true, Weight: 100, Label: "a--b"}}, field + "[0].label", "single '-'"},
		"a label that starts with a 1":  {shares{{Latest: true, Weight: 100, Label: "1a"}}, field + "[0].label", "starting with a letter"},
		"the longest label":             {shares{{Latest: true, Weight: 100, Label: strings.Repeat("a", 56)}}, "", ""},
		"a label too long for its host": {shares{{Latest: true, Weight: 100, Label: strings.Repeat("a", 57)}}, field + "[0].label", `at most 63 characters with "chat---"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := valid()
			a.Configuration.Mode = resource.Multiple
			a.Configuration.Ingress.Traffic = test.shares
			faults := resource.ValidateApp(a)
			if test.field == "" {
				if len(faults) > 0 {
					t.Errorf("got %v", faults)
				}
				return
			}
			if len(faults) == 0 || faults[0].Field != test.field || !strings.Contains(faults[0].Message, test.says) {
				t.Errorf("got %v, want %s: %s", faults, test.field, test.says)
			}
		})
	}
}
