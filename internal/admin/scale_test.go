package admin_test

import (
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/decisions"
	"penstock/internal/leak"
	"penstock/internal/resource"
	"penstock/internal/scale"
)

func TestScale(t *testing.T) {
	s := newServer(t, true)
	one, two := chat.Child("revisions", "chat--1"), chat.Child("revisions", "chat--2")
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	s.machine.list = []resource.Revision{{ID: two, RevisionStatus: resource.RevisionStatus{Settings: resource.Settings{Recycle: 80}}}, {ID: one}, {ID: chat.Child("revisions", "inactive")}}
	s.machine.scale = map[string]scale.Explanation{
		one.Key(): {},
		two.Key(): {
			Policy: scale.Policy{Behaviour: resource.Fast, Min: 0, Max: 5, Cooldown: time.Minute, ScaleIn: 30 * time.Second},
			Wanted: 3, Current: 2, Ready: 1, Held: 1, HeldBy: "waiting for memory",
			Last: scale.Decision{
				Reason: "because", Bound: scale.BoundScaleIn, Until: at,
				Wishes: []scale.Wish{{Rule: "users", Kind: scale.HTTP, Value: 12, Target: 10, Wanted: 2, Active: true, Note: "note", Hours: "from to", Changes: at}},
			},
			Learned: scale.Learned{Service: 1500 * time.Microsecond, Start: 2 * time.Second},
		},
	}
	s.machine.memory = map[string][]leak.Memory{two.Key(): {{
		Replica: "chat--2-abc", Container: "main", Worn: "full", Trend: leak.Trend{Used: 5, Limit: 10, PerHour: 3600, Left: 2 * time.Second, Over: time.Minute, Certain: true},
	}}}
	s.machine.decided = []decisions.Decision{
		{At: at, Revision: "chat--2", Behaviour: "fast", Rule: "users", Value: 12, Target: 10, Wanted: 2, Bound: "minReplicas", From: 0, To: 3, Reason: "woken"},
	}
	query := "?" + url.Values{"app": {chat.String()}}.Encode()
	got := get[wire.Scale](t, s, http.MethodGet, wire.ScalePath+query, "")
	if got.App != chat.String() || len(got.Revisions) != 2 || got.Revisions[0].Revision != "chat--1" {
		t.Fatalf("got %+v, want the two revisions that scale, by name", got)
	}
	r := got.Revisions[1]
	if r.Behaviour != "fast" || r.MaxReplicas != 5 || r.CooldownSeconds != 60 || r.WindowSeconds != 30 || r.Wanted != 3 || r.Replicas != 2 || r.Ready != 1 || r.Held != 1 || r.HeldBy != "waiting for memory" {
		t.Errorf("got %+v", r)
	}
	if r.Bound != "window" || !r.Until.Equal(at) || r.ServiceMS != 1.5 || r.StartMS != 2000 {
		t.Errorf("got %+v", r)
	}
	if r.RecyclePercent != 80 || len(r.Memory) != 1 || r.Memory[0] != (wire.ContainerMemory{
		Replica: "chat--2-abc", Container: "main", UsedBytes: 5, LimitBytes: 10, GrowthBytesPerHour: 3600, SecondsToLimit: 2, ObservedSeconds: 60, Leak: true, Recycled: "full",
	}) {
		t.Errorf("memory: got %+v", r.Memory)
	}
	if len(r.Rules) != 1 || r.Rules[0] != (wire.RuleState{Name: "users", Kind: "http", Value: 12, Target: 10, Wanted: 2, Active: true, Note: "note", Window: "from to", WindowChanges: at}) {
		t.Errorf("rules: got %+v", r.Rules)
	}
	if len(r.Changes) != 1 || r.Changes[0] != (wire.ScaleChange{At: at, From: 0, To: 3, Behaviour: "fast", Rule: "users", Value: 12, Target: 10, Wanted: 2, Bound: "minReplicas", Reason: "woken"}) {
		t.Errorf("changes: got %+v", r.Changes)
	}

	if q := s.machine.asked; q.App.Key() != chat.Key() || q.Limit != 200 || time.Since(q.Since) < time.Hour || time.Since(q.Since) > time.Hour+time.Minute {
		t.Errorf("asked for %+v, want 200 decisions of the last hour", q)
	}
	get[wire.Scale](t, s, http.MethodGet, wire.ScalePath+query+"&since=2026-03-01T09:00:00Z&limit=7", "")
	if q := s.machine.asked; q.Limit != 7 || !q.Since.Equal(at) {
		t.Errorf("asked for %+v, want 7 since %v", q, at)
	}
	s.refuse(t, http.MethodGet, wire.ScalePath+query+"&since=yesterday", "", http.StatusBadRequest, "InvalidParameterValue", `since: want a time as in 2026-03-01T09:00:00Z, got "yesterday"`)
	for _, limit := range []string{"0", "-1", "x", "10001"} {
		s.refuse(t, http.MethodGet, wire.ScalePath+query+"&limit="+limit, "", http.StatusBadRequest, "InvalidParameterValue", "limit: want 1 to 10000")
	}

	for _, bad := range []string{"", "?app=chat", "?app=" + url.QueryEscape(one.String())} {
		s.refuse(t, http.MethodGet, wire.ScalePath+bad, "", http.StatusBadRequest, "InvalidParameterValue", "app: want the resource ID of an app")
	}
	s.machine.err = errors.New("no database")
	s.refuse(t, http.MethodGet, wire.ScalePath+query, "", http.StatusInternalServerError, "ScaleFailed", "no database")
}

func TestScaleOfAJob(t *testing.T) {
	s := newServer(t, true)
	job := resource.JobID("s", "g", "score")
	s.machine.scale = map[string]scale.Explanation{job.Key(): {Last: scale.Decision{Wishes: []scale.Wish{{Rule: "mail", Kind: scale.External, Failed: true, Note: "away"}}}}}
	query := "?" + url.Values{"job": {job.String()}}.Encode()
	got := get[wire.JobScale](t, s, http.MethodGet, wire.ScalePath+query, "")
	if got.Job != job.String() || len(got.Rules) != 1 || got.Rules[0] != (wire.RuleState{Name: "mail", Kind: "external", Failed: true, Note: "away"}) {
		t.Errorf("got %+v", got)
	}
	s.refuse(t, http.MethodGet, wire.ScalePath+"?job=score", "", http.StatusBadRequest, "InvalidParameterValue", `job: want the resource ID of a job, got "score"`)
}
