package resource_test

import (
	"regexp"
	"testing"

	"penstock/internal/resource"
)

func TestRevisionName(t *testing.T) {
	tests := map[string]struct {
		suffix   string
		existing []string
		want     string // a pattern; "" for an error
	}{
		"the first is random":                  {"", nil, `^chat--[a-z0-9]{7}$`},
		"the second is number one":             {"", []string{"chat--20mh1s9"}, `^chat--0000001$`},
		"later ones count on from the highest": {"", []string{"chat--20mh1s9", "chat--0000007", "chat--0000002"}, `^chat--0000008$`},
		"chosen names are no numbers":          {"", []string{"chat--v3", "chat--0000001"}, `^chat--0000002$`},
		"a suffix that was asked for":          {"blue", []string{"chat--20mh1s9"}, `^chat--blue$`},
		"a suffix that is taken":               {"blue", []string{"chat--blue"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := resource.RevisionName("chat", test.suffix, test.existing)
			if (err == nil) != (test.want != "") || err == nil && !regexp.MustCompile(test.want).MatchString(got) {
				t.Errorf("got %q, %v; want %s", got, err, test.want)
			}
		})
	}
	a, _ := resource.RevisionName("chat", "", nil)
	b, _ := resource.RevisionName("chat", "", nil)
	if a == b {
		t.Errorf("two first revisions have the same name %s", a)
	}
}
