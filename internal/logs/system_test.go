package logs_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/logs"
	"penstock/internal/resource"
)

func openSystem(t testing.TB, dir string) *logs.System {
	t.Helper()
	s, err := logs.OpenSystem(dir, logs.Limits{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func events(ctx context.Context, t testing.TB, s *logs.System, q logs.EventQuery) (all []resource.Event) {
	t.Helper()
	for e, err := range s.Read(ctx, q) {
		if err != nil {
			t.Error(err)
		}
		all = append(all, e)
	}
	return all
}

func TestEventsComeBackAfterReopen(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC)
	want := []resource.Event{
		{At: at, App: app("chat"), Reason: "ContainerAppUpdate", Message: "accepted", Source: "ContainerAppController"},
		{At: at.Add(time.Second), App: app("chat"), Revision: "chat--1", Replica: "chat--1-x", Warning: true, Reason: "ProbeFailed",
			Message: "readiness: GET /health: 503", Source: "Engine", Duration: 1500 * time.Millisecond},
		{At: at.Add(2 * time.Second), App: app("chat"), Revision: "chat--2", Reason: "RevisionReady", Source: "Engine"},
	}
	s, err := logs.OpenSystem(dir, logs.Limits{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range want {
		s.Append(e)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openSystem(t, dir)
	tests := map[string]struct {
		q    logs.EventQuery
		want []resource.Event
	}{
		"everything":   {logs.EventQuery{}, want},
		"a revision":   {logs.EventQuery{Revision: "chat--1"}, want[1:2]},
		"the newest":   {logs.EventQuery{Tail: 1}, want[2:]},
		"since a time": {logs.EventQuery{Since: at.Add(time.Second)}, want[1:]},
	}
	for name, test := range tests {
		test.q.App = app("chat")
		if diff := cmp.Diff(test.want, events(t.Context(), t, s, test.q)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if err := s.Forget(app("chat")); err != nil {
		t.Fatal(err)
	}
	if got := events(t.Context(), t, s, logs.EventQuery{App: app("chat")}); got != nil {
		t.Errorf("forgotten app: got %v", got)
	}
}

// Parts that do not know yet that an app was deleted may still report events about it.
func TestEventsAfterForgetAreDropped(t *testing.T) {
	dir := t.TempDir()
	s := openSystem(t, dir)
	event := func(message string) resource.Event {
		return resource.Event{At: time.Now().UTC(), App: app("chat"), Message: message, Source: "Engine"}
	}
	s.Append(event("old"))
	if err := s.Forget(app("chat")); err != nil {
		t.Fatal(err)
	}
	s.Append(event("late"))
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("after Forget: %v, %v; want nothing left", left, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	followed := events(ctx, t, s, logs.EventQuery{App: app("chat"), Follow: true})
	if ctx.Err() != nil {
		t.Error("who follows the events of an app that has gone waits for ever")
	}
	s.Begin(app("CHAT"))
	if all := append(followed, events(t.Context(), t, s, logs.EventQuery{App: app("chat")})...); len(all) > 0 {
		t.Errorf("made again: got %v, want nothing of the old app", all)
	}
	s.Append(event("new"))
	if all := events(t.Context(), t, s, logs.EventQuery{App: app("chat")}); len(all) != 1 || all[0].Message != "new" {
		t.Errorf("got %v, want the event of the new app", all)
	}
}

func TestEventsOfTheVersionBefore(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC)
	want := []resource.Event{
		{At: at, App: app("chat"), Reason: "ContainerAppUpdate", Message: "accepted", Source: "ContainerAppController"},
		{At: at.Add(time.Second), App: app("chat"), Revision: "chat--1", Replica: "chat--1-x", Warning: true, Reason: "ProbeFailed",
			Message: "readiness: GET /health: 503", Source: "Engine", Duration: 1500 * time.Millisecond},
	}
	s := openSystem(t, old(t, "system"))
	if diff := cmp.Diff(want, events(t.Context(), t, s, logs.EventQuery{App: app("chat")})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEventsAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openSystem(t, t.TempDir())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan []resource.Event)
		go func() { done <- events(ctx, t, s, logs.EventQuery{App: app("chat"), Follow: true}) }()
		synctest.Wait()
		s.Append(resource.Event{App: app("other"), Reason: "Other"})
		s.Append(resource.Event{App: app("chat"), Reason: "PulledImage"})
		synctest.Wait()
		cancel()
		want := []resource.Event{{At: time.Now().UTC(), App: app("chat"), Reason: "PulledImage"}}
		if diff := cmp.Diff(want, <-done); diff != "" {
			t.Errorf("followed (-want +got):\n%s", diff)
		}
	})
}

func TestEventThatCannotBeWrittenIsCounted(t *testing.T) {
	s := openSystem(t, t.TempDir())
	s.Append(resource.Event{At: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), App: app("chat")})
	s.Append(resource.Event{App: app("chat"), Reason: "Good"})
	if got := events(t.Context(), t, s, logs.EventQuery{App: app("chat")}); len(got) != 1 || s.Dropped() != 1 {
		t.Errorf("got %d events and %d dropped, want 1 and 1", len(got), s.Dropped())
	}
}
