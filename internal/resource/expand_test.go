package resource_test

import (
	"strings"
	"testing"

	"penstock/internal/resource"
)

func TestExpand(t *testing.T) {
	known := map[string]string{"A": "one", "B_2": "two", "EMPTY": "", "REF": "$(A)", "a.b-c": "dots"}
	value := func(name string) (string, bool) {
		v, ok := known[name]
		return v, ok
	}
	for text, want := range map[string]string{
		"":                      "",
		"plain":                 "plain",
		"$(A)":                  "one",
		"-$(A)$(B_2)-":          "-onetwo-",
		"$(EMPTY)|":             "|",
		"$(REF)":                "$(A)", // not replaced again
		"$(a.b-c)":              "dots",
		"$(NONE)":               "$(NONE)",
		"$()":                   "$()",
		"$(date +%s)":           "$(date +%s)", // of a shell
		"$$":                    "$",
		"$$(A)":                 "$(A)",
		"$$$(A)":                "$one",
		"$$$$(A)":               "$$(A)",
		"$":                     "$",
		"a$":                    "a$",
		"$A ${A} $1 $":          "$A ${A} $1 $",
		"$(A":                   "$(A",
		"$(A $(A)":              "$(A $(A)",
		"$((1+1))":              "$((1+1))",
		"$A$(A)":                "$Aone",
		"cost: 5$, $(A)$":       "cost: 5$, one$",
		"$(NONE)$(A)$$(NONE)$ü": "$(NONE)one$(NONE)$ü",
	} {
		if got := resource.Expand(text, value); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	// Variables of variables cannot use up the memory.
	known["A"] = strings.Repeat("x", 100_000)
	if n := len(resource.Expand(strings.Repeat("$(A)", 20_000), value)); n <= resource.MaxText || n > 300_000 {
		t.Errorf("got %d bytes, want a little more than %d", n, resource.MaxText)
	}
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"$(A)", "$$(A)", "$", "$(", "$()", "a$(A)b$$", "$(A$(A))"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			return
		}
		none := func(string) (string, bool) { return "", false }
		if got := resource.Expand(text, none); !strings.Contains(text, "$$") && got != text {
			t.Errorf("%q without variables: got %q", text, got)
		}
		// What is escaped comes back as it was.
		if got := resource.Expand(strings.ReplaceAll(text, "$", "$$"), func(string) (string, bool) { return "bad", true }); got != text {
			t.Errorf("%q escaped: got %q", text, got)
		}
	})
}
