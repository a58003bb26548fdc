package store_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/resource"
	"penstock/internal/store"
)

func observe(t testing.TB, s *store.Store, change func(status *resource.AppStatus)) {
	t.Helper()
	_, err := s.Apps().Observe(t.Context(), chat().ID, func(_ resource.App, status *resource.AppStatus) error {
		change(status)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Users and the platform write at the same time, and neither loses what it wrote.
func TestTheTwoWritersDoNotMeet(t *testing.T) {
	s := fresh(t)
	putApp(t, s, chat())
	const writes = 50
	var wg sync.WaitGroup
	wg.Go(func() {
		for range writes {
			_, err := s.Apps().Put(t.Context(), chat().ID, func(v *resource.App, _ bool) error { v.Generation++; return nil })
			if err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range writes {
			_, err := s.Apps().Observe(t.Context(), chat().ID, func(_ resource.App, status *resource.AppStatus) error {
				status.Observed++
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	got, err := s.Apps().Get(t.Context(), chat().ID)
	if err != nil || got.Generation != chat().Generation+writes || got.Observed != writes {
		t.Errorf("got generation %d, observed %d, %v; want %d and %d", got.Generation, got.Observed, err, chat().Generation+writes, writes)
	}
	got.Generation = chat().Generation
	want := chat()
	want.Observed = writes
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the rest of the app (-want +got):\n%s", diff)
	}
}

func TestUsersCannotWriteTheStatus(t *testing.T) {
	s := fresh(t)
	putApp(t, s, chat())
	observe(t, s, func(status *resource.AppStatus) { status.LatestRevision = "chat--1" })
	_, err := s.Apps().Put(t.Context(), chat().ID, func(v *resource.App, _ bool) error {
		v.Generation++
		v.LatestRevision = "chat--2"
		return nil
	})
	if err == nil {
		t.Error("a Put that changes the status succeeds")
	}
	got, err := s.Apps().Get(t.Context(), chat().ID)
	if err != nil || got.Generation != chat().Generation || got.LatestRevision != "chat--1" {
		t.Errorf("after it: generation %d, latest %q, %v", got.Generation, got.LatestRevision, err)
	}
}

func TestAStatusNeedsItsResource(t *testing.T) {
	s := fresh(t)
	putApp(t, s, chat())
	observe(t, s, func(status *resource.AppStatus) { status.Observed = 3 })
	if err := s.Apps().Delete(t.Context(), chat().ID); err != nil {
		t.Fatal(err)
	}
	_, err := s.Apps().Observe(t.Context(), chat().ID, func(resource.App, *resource.AppStatus) error { return nil })
	if !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("status of a deleted app: got %v, want not found", err)
	}
	putApp(t, s, chat())
	if got, err := s.Apps().Get(t.Context(), chat().ID); err != nil || got.Observed != 0 {
		t.Errorf("an app of the same name: got observed %d, %v; want 0", got.Observed, err)
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	s := fresh(t)
	first := resource.Execution{ID: resource.JobID("s", "g", "batch").Child("executions", "batch-a")}
	first.State = resource.ExecutionProcessing
	op := store.Operation{ID: "first", Resource: first.ID, Kind: "start"}
	if got, made, err := s.Executions().Create(t.Context(), first, &op); err != nil || !made || got.State != first.State {
		t.Fatalf("got %+v, made %t, %v", got, made, err)
	}
	second, op := first, store.Operation{ID: "second", Resource: first.ID, Kind: "start"}
	second.State = resource.ExecutionFailed
	if got, made, err := s.Executions().Create(t.Context(), second, &op); err != nil || made || got.State != first.State {
		t.Errorf("a second one of the name: got %s, made %t, %v", got.State, made, err)
	}
	if _, err := s.Operations().Get(t.Context(), "first"); err != nil {
		t.Error(err)
	}
	if _, err := s.Operations().Get(t.Context(), "second"); !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("operation of what was not made: got %v, want not found", err)
	}
}
