package reconcile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
)

// ended are the replicas whose end was told, and how long they ran.
func (w *world) ended() map[string]time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]time.Duration{}
	for _, e := range w.events {
		if e.Reason == "ReplicaEnded" {
			all[e.Replica] += e.Duration // twice as long if it is told twice
			if !strings.Contains(e.Message, fmt.Sprintf("It ran for %s, from ", e.Duration)) || e.App.Key() != chat.Key() {
				w.t.Errorf("want the app's event to say how long the replica ran, got %+v", e)
			}
		}
	}
	return all
}

func (w *world) unacknowledged() int {
	w.t.Helper()
	ends, err := w.engine.Ended(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return len(ends)
}

func TestTheEndOfAReplicaIsToldOnce(t *testing.T) {
	w := newWorld(t)
	began := time.Now()
	first := w.put(func(a *resource.App) { a.Template.Scale.Min = 2 }).LatestRevision
	replicas := w.running(first)
	w.put(func(a *resource.App) { a.Template.Containers[0].Env = []resource.EnvVar{{Name: "MODE", Value: "new"}} })
	w.until("the ends are told", func() bool { return len(w.ended()) == 2 && w.unacknowledged() == 0 })
	took := time.Since(began)
	for replica, ran := range w.ended() {
		if !slices.Contains(replicas, replica) || ran <= 0 || ran > took {
			t.Errorf("want the ends of %v, each once and within %s, got %s after %s", replicas, took, replica, ran)
		}
	}
	w.stop()
	w.start()
	w.write(func(a *resource.App) { a.Stopped = true })
	w.settled()
	w.until("the ends of a stopped app are told too", func() bool { return len(w.ended()) == 4 && w.unacknowledged() == 0 })
}

// An app that has gone from the database leaves no ends behind that would wait for ever.
func TestEndsOfADeletedAppAreAcknowledged(t *testing.T) {
	w := newWorld(t)
	revision := w.put(func(a *resource.App) { a.Template.Scale.Min = 2 }).LatestRevision
	if err := w.store.Apps().Delete(t.Context(), chat); err != nil {
		t.Fatal(err)
	}
	w.until("the replicas have gone and so have their ends", func() bool {
		// A pass that had read the app before it went may apply it once more.
		if err := w.engine.Remove(t.Context(), chat.Child("revisions", revision)); err != nil {
			t.Fatal(err)
		}
		return len(w.running(revision)) == 0 && w.unacknowledged() == 0
	})
}
