package resource_test

import (
	"encoding/json"
	"testing"

	"penstock/internal/resource"
)

func TestTarget(t *testing.T) {
	tests := map[string]struct {
		rules string
		want  int
	}{
		"no rules":                {``, 0},
		"one":                     {`[{"name":"a","http":{"metadata":{"concurrentRequests":"7"}}}]`, 7},
		"the smallest of several": {`[{"http":{"metadata":{"concurrentRequests":"7"}}},{"http":{"metadata":{"concurrentRequests":"3"}}}]`, 3},
		"of connections":          {`[{"tcp":{"metadata":{"concurrentConnections":"7"}}}]`, 7},
		"another kind":            {`[{"custom":{"type":"cron","metadata":{"concurrentRequests":"7"}}}]`, 0},
		"one that says nothing":   {`[{"http":{}},{"http":{"metadata":{"concurrentRequests":"many"}}}]`, 0},
		"none at all":             {`[{"http":{"metadata":{"concurrentRequests":"0"}}}]`, 0},
		"something else":          {`{"http":7}`, 0},
	}
	for name, test := range tests {
		s := resource.Scale{}
		if test.rules != "" {
			s.Stored = map[string]json.RawMessage{"rules": json.RawMessage(test.rules)}
		}
		if got := s.Target(); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}
