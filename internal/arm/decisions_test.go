package arm_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/decisions"
	"penstock/internal/resource"
)

const chatDecisions = base + "/containerApps/chat/scalingDecisions"

// decide records n decisions about an app, two at the same time, about two revisions.
func (s *server) decide(app string, from, n int) {
	at := time.Date(2026, 11, 30, 9, 0, 0, 123456789, time.UTC)
	for i := from; i < from+n; i++ {
		s.decided.Add(decisions.Decision{
			At: at.Add(time.Duration(i/2) * time.Minute), App: resource.AppID(subscription, "ml", app), Revision: fmt.Sprintf("%s--%d", app, 1-i%2), Behaviour: "fast",
			Rule: "users", Value: 12.5, Target: 10, Wanted: i + 1, Bound: "maxReplicas", From: i, To: i + 1, Reason: "because",
		})
	}
}

// counts reads a list of decisions in parts, and returns their counts. between is called after the first part.
func (s *server) counts(query string, between func()) (counts []int) {
	s.t.Helper()
	next := chatDecisions + version + query
	for first := true; next != ""; first = false {
		a := s.want(200, "GET", next, "")
		value, _ := a.get(s.t, "value").([]any)
		for _, one := range value {
			counts = append(counts, int(dig(one, "properties", "to").(float64)))
		}
		next, _ = a.get(s.t, "nextLink").(string)
		if first && between != nil {
			between()
		}
	}
	return counts
}

func TestScalingDecisions(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	s.app("echo", chat(nil))
	if a := s.want(200, "GET", chatDecisions+version, ""); string(a.body) != `{"value":[]}`+"\n" && string(a.body) != `{"value":[]}` {
		t.Errorf("none yet: got %s", a.body)
	}
	s.decide("chat", 0, 5)
	s.decide("echo", 0, 3)
	// The decisions 0 and 1, and 2 and 3, were made at the same time; the even ones are about revision 1.
	tests := map[string][]int{
		"":          {5, 3, 4, 1, 2},
		"&$top=1":   {5, 3, 4, 1, 2},
		"&$top=2":   {5, 3, 4, 1, 2},
		"&$top=5":   {5, 3, 4, 1, 2},
		"&$Top=999": {5, 3, 4, 1, 2},
		"&$filter=" + url.QueryEscape("properties/revisionName eq 'chat--1'"):                                      {5, 3, 1},
		"&$top=1&$filter=" + url.QueryEscape("properties/revisionName eq 'chat--1'"):                               {5, 3, 1},
		"&$filter=" + url.QueryEscape("time ge 2026-11-30T09:01:00Z and properties/from lt 3 and rule eq 'users'"): {3},
		"&$filter=" + url.QueryEscape("rule ne 'users'"):                                                           nil,
	}
	for query, want := range tests {
		if got := s.counts(query, nil); !slices.Equal(got, want) {
			t.Errorf("%s: got %d, want %d", query, got, want)
		}
	}
	// New decisions between two parts move nothing.
	if got, want := s.counts("&$top=2", func() { s.decide("chat", 6, 4) }), []int{5, 3, 4, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("with decisions between the parts: got %d, want %d", got, want)
	}

	one := s.want(200, "GET", chatDecisions+version+"&$top=1", "")
	id, _ := one.get(t, "value", 0, "id").(string)
	if want := "/scalingDecisions/20261130T090400.123456789Z-chat--1"; !strings.HasSuffix(id, want) {
		t.Fatalf("got the ID %s, want it to end with %s", id, want)
	}
	a := s.want(200, "GET", strings.ToUpper(id)+version, "")
	for name, want := range map[string]any{
		"time": "2026-11-30T09:04:00.123456789Z", "revisionName": "chat--1", "behaviour": "fast", "from": 8.0, "to": 9.0, "rule": "users", "value": 12.5, "target": 10.0,
		"wanted": 9.0, "bound": "maxReplicas", "reason": "because",
	} {
		if got := a.get(t, "properties", name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if got := a.get(t, "type"); got != "Microsoft.App/containerApps/scalingDecisions" {
		t.Errorf("got the type %v", got)
	}
	for _, none := range []string{"20261130T090400.123456789Z-chat--2", "20261130T090400.123456788Z-chat--1", "20261130T090400.123456789Z", "x", "20269930T090400.123456789Z-chat--1"} {
		s.want(404, "GET", chatDecisions+"/"+none+version, "")
	}
	s.want(404, "GET", base+"/containerApps/none/scalingDecisions"+version, "")
	for _, bad := range []string{"$top=0", "$top=x", "$skipToken=***", "$skipToken=abcd", "$skipToken=", "$filter=rule", "$expand=all"} {
		s.want(400, "GET", chatDecisions+version+"&"+bad, "")
	}
}

func TestScalingDecisionsAreReadOnly(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	s.decide("chat", 0, 1)
	id, _ := s.want(200, "GET", chatDecisions+version, "").get(t, "value", 0, "id").(string)
	for _, target := range []string{chatDecisions, id} {
		for _, method := range []string{"PUT", "PATCH", "POST", "DELETE"} {
			a := s.want(405, method, target+version, "{}")
			if message := fmt.Sprint(a.get(t, "error", "message")); a.header.Get("Allow") != "GET" || !strings.Contains(message, method) || !strings.Contains(message, "want GET") {
				t.Errorf("%s: want a message that names both methods, got %s", method, a.body)
			}
		}
	}
	s.want(200, "GET", id+version, "")
}

func TestManyScalingDecisions(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	for from := 0; from < 2500; from += 500 {
		s.decide("chat", from, 500)
		s.want(200, "GET", chatDecisions+version+"&$top=1", "") // has them written, so that the queue stays short
	}
	for query, want := range map[string]int{"": 200, "&$top=5000": 1000} {
		a := s.want(200, "GET", chatDecisions+version+query, "")
		if a.get(t, "value", want-1) == nil || a.get(t, "value", want) != nil {
			t.Errorf("%q: want a part of %d decisions", query, want)
		}
		all := s.counts(query, nil)
		slices.Sort(all)
		if all = slices.Compact(all); len(all) != 2500 {
			t.Errorf("%q: got %d of 2500 decisions", query, len(all))
		}
	}
}

func FuzzScalingDecisionName(f *testing.F) {
	for _, name := range []string{"20261130T090400.123456789Z-chat--1", "20261130t090400.123456789z-", "99991231T235959.999999999Z-a", "-"} {
		f.Add(name)
	}
	s := start(f)
	s.environment("e")
	s.app("chat", chat(nil))
	s.decide("chat", 0, 1)
	f.Fuzz(func(t *testing.T, name string) {
		client := &server{Server: s.Server, t: t}
		if a := client.do("GET", chatDecisions+"/"+url.PathEscape(name)+version, ""); a.status >= 500 {
			t.Errorf("%q: %d %s", name, a.status, a.body)
		}
	})
}
