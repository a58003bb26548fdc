package reconcile_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"penstock/internal/resource"
)

// scaler wants what a test says; of a new revision, one replica.
type scaler struct {
	mu        sync.Mutex
	n         int
	told      []string // the replicas that it was told of last
	forgotten map[string]bool
}

func (s *scaler) Wanted(_ resource.App, rev resource.Revision, replicas []resource.Replica) (int, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = nil
	for _, r := range replicas {
		s.told = append(s.told, r.Name)
	}
	if rev.Ready.IsZero() {
		return max(1, s.n), "a new revision is judged"
	}
	return s.n, "the test says so"
}

func (s *scaler) Forget(id resource.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten[id.Base()] = true
}

func (s *scaler) Demand(resource.Job, resource.Settings) (int, time.Time, bool) {
	return 0, time.Time{}, false
}

func scaled(t *testing.T) (*world, func(n int)) {
	s := &scaler{n: 1, forgotten: map[string]bool{}}
	w := newWorld(t, func(w *world) { w.scale = s })
	return w, func(n int) {
		s.mu.Lock()
		s.n = n
		s.mu.Unlock()
		w.reconciler.Touch(chat)
	}
}

func (w *world) replicas(n int) func() bool {
	return func() bool {
		rev := w.routes.revision(w.app().LatestRevision)
		return len(rev.Replicas) == n && len(w.running(w.app().LatestRevision)) == n
	}
}

func (w *world) revisionState() resource.RevisionState {
	w.t.Helper()
	rev, err := w.store.Revisions().Get(w.t.Context(), chat.Child("revisions", w.app().LatestRevision))
	if err != nil {
		w.t.Fatal(err)
	}
	return rev.State
}

func TestTheCountFollowsTheScaler(t *testing.T) {
	w, want := scaled(t)
	w.put(func(*resource.App) {})
	want(3)
	w.until("three replicas", w.replicas(3))
	want(0)
	w.until("no replica", w.replicas(0))
	w.until("a revision that is scaled to zero", func() bool { return w.revisionState() == resource.RevisionScaledToZero })
	if got := w.ask("chat.example.localhost"); got != "held: " {
		t.Errorf("at zero: got %q, want a request that is held", got)
	}
	want(1)
	w.until("one replica", w.replicas(1))
	w.until("a revision that runs", func() bool { return w.revisionState() == resource.RevisionRunning })
}

// The least loaded replica leaves; one that has a request stays until that is over, and comes back when it is wanted again.
func TestScaleInTakesTheLeastLoaded(t *testing.T) {
	w, want := scaled(t)
	w.put(func(*resource.App) {})
	want(3)
	w.until("three replicas", w.replicas(3))
	names := w.running(w.app().LatestRevision)
	busy := names[2] // the youngest, which would go first if all had as much to do
	end := w.request(busy)
	want(1)
	w.until("the busy one alone", func() bool { return slices.Equal(w.running(w.app().LatestRevision), []string{busy}) })

	want(0)
	rev := w.app().LatestRevision
	w.until("no replica in the routes", func() bool { return len(w.routes.revision(rev).Replicas) == 0 })
	if got := w.running(rev); !slices.Equal(got, []string{busy}) {
		t.Fatalf("with a request on it: %v run, want %s", got, busy)
	}
	want(1)
	w.until("the same replica in the routes again", func() bool {
		in := w.routes.revision(rev).Replicas
		return len(in) == 1 && in[0].Name == busy
	})
	want(0)
	end()
	w.until("no replica", w.replicas(0))
	if !w.saw("ReplicaScaledIn") {
		t.Error("no event says that a replica was scaled in")
	}
}

// An app at zero that gets a new template starts one replica of it to be judged.
func TestANewRevisionOfAnAppAtZeroIsJudged(t *testing.T) {
	w, want := scaled(t)
	w.put(func(*resource.App) {})
	want(0)
	w.until("no replica", w.replicas(0))
	app := w.put(func(a *resource.App) { a.Template.Containers[0].Args = []string{"again"} })
	if app.Provisioning() != resource.Succeeded || app.LatestReadyRevision != app.LatestRevision {
		t.Fatalf("got %+v, want the new revision to have been ready", app.AppStatus)
	}
	w.until("no replica", w.replicas(0))
}

func TestWhoHasNoReplicasIsForgotten(t *testing.T) {
	w, _ := scaled(t)
	first := w.put(func(*resource.App) {}).LatestRevision
	w.put(func(a *resource.App) { a.Template.Containers[0].Args = []string{"again"} })
	s := w.scale.(*scaler)
	w.until("the scaler forgets the revision that was replaced", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.forgotten[first]
	})
}

// An app that is made again under the name of one that was deleted at zero begins like any other.
func TestADeletedAppIsForgotten(t *testing.T) {
	w, want := scaled(t)
	rev := w.put(func(*resource.App) {}).LatestRevision
	want(0)
	w.until("no replica", w.replicas(0))
	if _, err := w.store.Apps().Put(t.Context(), chat, func(a *resource.App, _ bool) error { a.Deleted = time.Now(); return nil }); err != nil {
		t.Fatal(err)
	}
	w.reconciler.Touch(chat)
	s := w.scale.(*scaler)
	w.until("the scaler forgets the revision", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.forgotten[rev]
	})
}

// A new revision begins with as many replicas as the one before. Where there is no room for all of both, those that there is room for
// are enough, as long as they are minReplicas.
func TestANewRevisionNeedNotHaveRoomForAllItsReplicas(t *testing.T) {
	w, want := scaled(t)
	w.put(func(a *resource.App) { a.Template.Containers[0].Resources.Memory = room / 4 })
	want(3)
	w.until("three replicas", w.replicas(3))
	first := w.app().LatestRevision
	app := w.put(func(a *resource.App) { a.Template.Containers[0].Args = []string{"again"} })
	if app.Provisioning() != resource.Succeeded || app.LatestReadyRevision == first {
		t.Fatalf("got %+v, want the new revision to have the traffic", app.AppStatus)
	}
	w.until("three replicas of the new one", w.replicas(3))
}

// A revision that could not be started any more is tried again by the next request after it has gone to zero.
func TestAFailedRevisionIsTriedAgain(t *testing.T) {
	w, want := scaled(t)
	w.set("key", "value")
	w.put(func(a *resource.App) {
		a.Template.Containers[0].Env = []resource.EnvVar{{Name: "KEY", SecretRef: "key"}}
	})
	want(0)
	w.until("no replica", w.replicas(0))
	w.set("key", "")
	want(1)
	w.until("a revision that cannot be started", func() bool { return w.revisionState() == resource.RevisionActivationFailed })
	want(0)
	w.until("a revision at zero", func() bool { return w.revisionState() == resource.RevisionScaledToZero })
	w.set("key", "value")
	want(1)
	w.until("one replica", w.replicas(1))
}

// An app that nothing can wake says so when it is made.
func TestAnAppThatNothingWakesSaysSo(t *testing.T) {
	w, _ := scaled(t)
	w.put(func(a *resource.App) { a.Template.Scale.Min = 0 })
	if w.saw("NothingWakesTheApp") {
		t.Error("with ingress: want no warning")
	}
	w.put(func(a *resource.App) { a.Configuration.Ingress, a.Template.RevisionSuffix = nil, "worker" })
	if !w.saw("NothingWakesTheApp") {
		t.Error("without ingress and rules: want a warning")
	}
	w.mu.Lock()
	w.events = nil
	w.mu.Unlock()
	w.put(func(a *resource.App) { a.Template.Scale.Min, a.Template.RevisionSuffix = 1, "kept" })
	if w.saw("NothingWakesTheApp") {
		t.Error("with minReplicas 1: want no warning")
	}
}
