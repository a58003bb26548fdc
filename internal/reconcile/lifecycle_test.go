package reconcile_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
)

func (w *world) restart(revision string) {
	w.t.Helper()
	_, err := w.store.Revisions().Put(w.t.Context(), chat.Child("revisions", revision), func(rev *resource.Revision, _ bool) error {
		rev.Restarted = time.Now().UTC()
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.reconciler.Touch(chat)
}

// replaced waits until n replicas run and none of the old ones.
func (w *world) replaced(revision string, old []string, n int) {
	w.t.Helper()
	w.until("all replicas are new", func() bool {
		now := w.running(revision)
		return len(now) == n && len(w.routes.revision(revision).Replicas) == n &&
			!slices.ContainsFunc(now, func(name string) bool { return slices.Contains(old, name) })
	})
}

func TestAStoppedAppHasNothingAndComesBack(t *testing.T) {
	w := newWorld(t)
	revision := w.put(func(a *resource.App) { a.Template.Scale.Min = 2 }).LatestRevision
	end := w.request(revision)
	w.write(func(a *resource.App) { a.Stopped = true })
	w.until("its host is not known", func() bool { return w.ask(host) == "no route" })
	if len(w.running(revision)) != 2 || w.app().Provisioning() != resource.InProgress {
		t.Error("it stopped while a request was on it")
	}
	end()
	app := w.settled()
	if app.Provisioning() != resource.Succeeded || len(w.running(revision)) > 0 {
		t.Errorf("stopped: %s, replicas %v", app.Provisioning(), w.running(revision))
	}
	w.until("it is told", func() bool { return w.saw("ContainerAppStopped") })
	if got := w.ask(revision + ".example.localhost"); got != "no route" {
		t.Errorf("the revision's own host answers %q", got)
	}
	// A write does not start it, a start of the platform neither.
	app = w.put(func(a *resource.App) { a.Template.Containers[0].Env = []resource.EnvVar{{Name: "MODE", Value: "new"}} })
	w.stop()
	w.start()
	if app.Provisioning() != resource.Succeeded || len(w.running(app.LatestRevision)) > 0 {
		t.Errorf("written while stopped: %s, replicas %v", app.Provisioning(), w.running(app.LatestRevision))
	}
	app = w.put(func(a *resource.App) { a.Stopped = false })
	if app.Provisioning() != resource.Succeeded || app.LatestReadyRevision != app.LatestRevision || app.LatestRevision == revision {
		t.Errorf("started: %s, latest %s, ready %s", app.Provisioning(), app.LatestRevision, app.LatestReadyRevision)
	}
	if got := w.ask(host); !strings.Contains(got, app.LatestRevision) {
		t.Errorf("answer %q, want one of %s", got, app.LatestRevision)
	}
}

func TestARestartPutsNewReplicasFirst(t *testing.T) {
	w := newWorld(t)
	revision := w.put(func(a *resource.App) { a.Template.Scale.Min = 2 }).LatestRevision
	old := w.running(revision)
	end := w.request(old[0])
	fewest := w.watch()
	w.restart(revision)
	w.until("new ones take the requests", func() bool {
		up := w.routes.revision(revision).Replicas
		return len(up) == 2 && !slices.Contains(old, up[0].Name) && !slices.Contains(old, up[1].Name)
	})
	if !slices.Contains(w.running(revision), old[0]) {
		t.Error("an old replica went while a request was on it")
	}
	w.stop() // a restart that is under way goes on after one of the platform
	w.start()
	end()
	w.replaced(revision, old, 2)
	if n := fewest(revision); n < 2 {
		t.Errorf("a table had only %d replicas", n)
	}
	if app := w.app(); app.LatestRevision != revision || app.Provisioning() != resource.Succeeded {
		t.Errorf("the app has revision %s and is %s", app.LatestRevision, app.Provisioning())
	}
}

func TestARestartWithoutRoomGoesOneByOne(t *testing.T) {
	w := newWorld(t)
	revision := w.put(func(a *resource.App) {
		a.Template.Scale.Min = 4
		a.Template.Containers[0].Resources.Memory = room / 4
	}).LatestRevision
	old := w.running(revision)
	fewest := w.watch()
	w.restart(revision)
	w.replaced(revision, old, 4)
	if n := fewest(revision); n < 3 {
		t.Errorf("a table had only %d of 4 replicas", n)
	}
}

func TestARestartThatCannotSucceedKeepsWhatServes(t *testing.T) {
	w := newWorld(t)
	w.set("code", "1")
	revision := w.put(func(a *resource.App) {
		a.Template.Containers[0].Env = []resource.EnvVar{{Name: "FAKE_EXIT_CODE", SecretRef: "code"}}
	}).LatestRevision
	old := w.running(revision)
	w.set("code", "")
	w.restart(revision)
	w.until("the new replica says what it lacks", func() bool { return w.saw("ContainerCreateFailure") })
	if got := w.ask(host); !strings.Contains(got, old[0]) {
		t.Errorf("answer %q, want one of %s", got, old[0])
	}
	w.set("code", "2")
	w.replaced(revision, old, 1)
}

func TestARestartReplacesWhatDoesNotServeAtOnce(t *testing.T) {
	w := newWorld(t)
	revision := w.put(func(a *resource.App) { a.Template.Containers[0].Image = fake.Exit }).LatestRevision
	old := w.running(revision)
	w.restart(revision)
	w.until("the broken replica is another", func() bool {
		now := w.running(revision)
		return len(now) == 1 && now[0] != old[0]
	})
}

func TestADeletedEnvironmentGivesItsAddressesBack(t *testing.T) {
	w := newWorld(t)
	_, err := w.store.Environments().Put(t.Context(), environment, func(e *resource.Environment, _ bool) error {
		e.Deleted = time.Now()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reconciler.Touch(environment)
	w.until("the environment is gone", func() bool {
		_, err := w.store.Environments().Get(t.Context(), environment)
		return errors.Is(err, resource.ErrNotFound)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.released) != 1 || w.released[0] != environment {
		t.Errorf("released %v, want %v", w.released, environment)
	}
}
