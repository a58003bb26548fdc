package main

import (
	"strings"
	"testing"
)

func TestSettingsThatAreWrong(t *testing.T) {
	for name, tt := range map[string]struct{ variable, value, says string }{
		"port":             {"PORT", "70000", `want a whole number from 0 to 65535, got "70000"`},
		"tokens":           {"MAX_TOKENS", "0", "want a whole number from 1 to 1000000"},
		"temperature":      {"TEMPERATURE", "3", "want a number from 0 to 2"},
		"not a number":     {"TEMPERATURE", "NaN", `got "NaN"`},
		"load":             {"LOAD_SECONDS", "5s", `seconds: want a number from 0 to 3600, got "5s"`},
		"resident":         {"RESIDENT_BYTES", "most", "want bytes, KiB, MiB or GiB"},
		"port while":       {"PORT_WHILE_LOADING", "open", `want 503 or closed, got "open"`},
		"slots":            {"SLOTS", "0", "want a whole number from 1 to 1024"},
		"queue":            {"QUEUE_LIMIT", "-1", "want a whole number from 0"},
		"first token":      {"TIME_TO_FIRST_TOKEN", "200", "with its unit such as 200ms"},
		"first token late": {"TIME_TO_FIRST_TOKEN", "1h", "want a duration up to 10m0s"},
		"rate":             {"TOKENS_PER_SECOND", "-2", "want a number from 0"},
		"leak":             {"LEAK_BYTES_PER_REQUEST", "1MB", "want bytes, KiB, MiB or GiB"},
		"too big a leak":   {"LEAK_BYTES_PER_REQUEST", "2048GiB", "want at most 1024GiB"},
		"faults":           {"FAULTS", "yes", `want off or on, got "yes"`},
		"drain":            {"DRAIN_SECONDS", "-1", "want a number from 0 to 3600"},
		"log level":        {"LOG_LEVEL", "loud", "want debug, info, warn or error"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), func(v string) string { return map[string]string{tt.variable: tt.value}[v] }, t.Output())
			if err == nil || !strings.Contains(err.Error(), tt.variable+": ") || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s=%s: got %v, want %q", tt.variable, tt.value, err, tt.says)
			}
		})
	}
}

func TestAllFaultsAreNamedAtOnce(t *testing.T) {
	env := map[string]string{"PORT": "x", "SLOTS": "y", "FAULTS": "z"}
	err := run(t.Context(), func(v string) string { return env[v] }, t.Output())
	for name := range env {
		if err == nil || !strings.Contains(err.Error(), name+": ") {
			t.Errorf("got %v, want %s in it", err, name)
		}
	}
}
