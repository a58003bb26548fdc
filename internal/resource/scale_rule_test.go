package resource_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"penstock/internal/resource"
)

func TestTarget(t *testing.T) {
	http := func(n int) resource.ScaleRule { return resource.ScaleRule{HTTP: &resource.RequestRule{Concurrent: n}} }
	tcp := func(n int) resource.ScaleRule { return resource.ScaleRule{TCP: &resource.RequestRule{Concurrent: n}} }
	custom := resource.ScaleRule{Custom: &resource.CustomRule{Type: "cron", Metadata: map[string]string{"concurrentRequests": "7"}}}
	tests := map[string]struct {
		rules []resource.ScaleRule
		want  int
	}{
		"no rules":                {nil, 0},
		"one":                     {[]resource.ScaleRule{http(7)}, 7},
		"the smallest of several": {[]resource.ScaleRule{http(7), http(3), tcp(5)}, 3},
		"of connections":          {[]resource.ScaleRule{tcp(7)}, 7},
		"another kind":            {[]resource.ScaleRule{custom}, 0},
		"one that says nothing":   {[]resource.ScaleRule{http(0), tcp(9)}, 9},
	}
	for name, test := range tests {
		if got := (resource.Scale{Rules: test.rules}).Target(); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

func TestScaleOfEarlierVersions(t *testing.T) {
	usual := resource.Scale{Min: 1, Max: 10, Cooldown: 300 * time.Second, Polling: 30 * time.Second}
	with := func(rules ...resource.ScaleRule) resource.Scale {
		s := usual
		s.Rules = rules
		return s
	}
	tests := map[string]struct {
		stored string
		want   resource.Scale
	}{
		"nothing":                   {`{"Min":1,"Max":10}`, usual},
		"times":                     {`{"Min":1,"Max":10,"Stored":{"cooldownPeriod":0,"pollingInterval":5}}`, resource.Scale{Min: 1, Max: 10, Polling: 5 * time.Second}},
		"a number that is none":     {`{"Min":1,"Max":10,"Stored":{"rules":[{"name":"a","http":{"metadata":{"concurrentRequests":"abc"}}}]}}`, with(resource.ScaleRule{Name: "a", HTTP: &resource.RequestRule{}})},
		"a number below 0":          {`{"Min":1,"Max":10,"Stored":{"rules":[{"name":"a","tcp":{"metadata":{"concurrentConnections":"-5"}}}]}}`, with(resource.ScaleRule{Name: "a", TCP: &resource.RequestRule{}})},
		"a rule without metadata":   {`{"Min":1,"Max":10,"Stored":{"rules":[{"name":"a","http":{"metadata":null}}]}}`, with(resource.ScaleRule{Name: "a", HTTP: &resource.RequestRule{}})},
		"a name that is misspelt":   {`{"Min":1,"Max":10,"Stored":{"rules":[{"name":"a","http":{"metadata":{"concurrent":"7"}}}]}}`, with(resource.ScaleRule{Name: "a", HTTP: &resource.RequestRule{}})},
		"something that is no rule": {`{"Min":1,"Max":10,"Stored":{"rules":{"http":7}}}`, usual},
		"as it is stored now":       {`{"Min":1,"Max":10,"Cooldown":0,"Polling":30000000000}`, resource.Scale{Min: 1, Max: 10, Polling: 30 * time.Second}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var s resource.Scale
			if err := json.Unmarshal([]byte(test.stored), &s); err != nil || !reflect.DeepEqual(s, test.want) {
				t.Fatalf("got %+v, %v\nwant %+v", s, err, test.want)
			}
			text, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			var again resource.Scale
			if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, s) {
				t.Errorf("stored again: got %+v, %v, want %+v", again, err, s)
			}
		})
	}
}
