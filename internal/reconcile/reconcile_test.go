package reconcile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
	"penstock/internal/store"
)

const host = "chat.example.localhost"

// room is the memory of the machine that the tests run on.
const room = 16 << 30

// quickly spaces restarts so that three failed starts take no time.
var quickly = local.Backoff{First: time.Millisecond, Max: time.Millisecond}

func TestAnAppIsServedByItsRevision(t *testing.T) {
	w := newWorld(t)
	app := w.put(func(*resource.App) {})
	if app.Provisioning() != resource.Succeeded || app.LatestRevision == "" || app.LatestReadyRevision != app.LatestRevision {
		t.Fatalf("got %s, latest %q, ready %q: %s", app.Provisioning(), app.LatestRevision, app.LatestReadyRevision, app.ProvisioningError())
	}
	if got := w.ask(host); !strings.Contains(got, app.LatestRevision) {
		t.Errorf("answer %q is not of revision %s", got, app.LatestRevision)
	}
	if got := w.ask(app.LatestRevision + ".example.localhost"); !strings.Contains(got, app.LatestRevision) {
		t.Errorf("answer at the revision's own host: %q", got)
	}
	for _, reason := range []string{"RevisionCreation", "RevisionReady", "ContainerAppReady"} {
		w.until("event "+reason, func() bool { return w.saw(reason) })
	}
}

func TestTrafficMovesWhenTheNewRevisionIsReadyAndTheOldOneDrainsFirst(t *testing.T) {
	w := newWorld(t)
	old := w.put(func(*resource.App) {}).LatestRevision
	request := make(chan struct{})
	w.routes.mu.Lock()
	w.routes.busy[old] = request
	w.routes.mu.Unlock()

	now := w.put(func(a *resource.App) {
		a.Template.Containers[0].Env = []resource.EnvVar{{Name: "MODE", Value: "new"}}
	}).LatestReadyRevision
	if now == old {
		t.Fatal("a changed template made no revision")
	}
	if got := w.ask(host); !strings.Contains(got, now) {
		t.Errorf("answer %q after the switch, want one of %s", got, now)
	}
	if len(w.running(old)) != 1 {
		t.Error("the old replica went while a request was on it")
	}
	close(request)
	w.until("the old replica has gone", func() bool { return len(w.running(old)) == 0 })
	w.until("its end is told", func() bool { return w.saw("RevisionDrained") })
}

func TestABrokenRevisionTakesNoTraffic(t *testing.T) {
	w := newWorld(t)
	old := w.put(func(*resource.App) {}).LatestRevision
	app := w.put(func(a *resource.App) { a.Template.Containers[0].Image = fake.Exit })
	if app.Provisioning() != resource.Failed || !strings.Contains(app.ProvisioningError(), "chat") {
		t.Errorf("got %s: %q", app.Provisioning(), app.ProvisioningError())
	}
	if app.LatestReadyRevision != old || app.LatestRevision == old {
		t.Errorf("latest %s, ready %s, want ready %s", app.LatestRevision, app.LatestReadyRevision, old)
	}
	if got := w.ask(host); !strings.Contains(got, old) {
		t.Errorf("answer %q, want one of %s", got, old)
	}
	w.until("whoever asks for the broken revision itself is answered", func() bool {
		return w.routes.revision(app.LatestRevision).Failed != ""
	})

	app = w.put(func(a *resource.App) { a.Template.Containers[0].Image = fake.Echo })
	if app.Provisioning() != resource.Succeeded {
		t.Errorf("the mended app is %s: %s", app.Provisioning(), app.ProvisioningError())
	}
}

func TestARevisionWithoutRoomBesideTheOldOne(t *testing.T) {
	w := newWorld(t)
	whole := func(a *resource.App) { a.Template.Containers[0].Resources.Memory = room }
	old := w.put(whole).LatestRevision
	change := func(a *resource.App) { a.Template.Containers[0].Env = []resource.EnvVar{{Name: "MODE", Value: "new"}} }
	w.write(change)
	w.until("it is told that there is no room", func() bool { return w.saw("InsufficientMemory") })
	if got := w.ask(host); !strings.Contains(got, old) {
		t.Errorf("answer %q, want one of %s, which stays", got, old)
	}

	app := w.put(func(a *resource.App) { a.Tags = map[string]string{"penstock.rollout": "replace"} })
	if app.Provisioning() != resource.Succeeded || app.LatestReadyRevision == old {
		t.Errorf("rollout replace: %s, ready %s: %s", app.Provisioning(), app.LatestReadyRevision, app.ProvisioningError())
	}
	if got := w.ask(host); !strings.Contains(got, app.LatestRevision) {
		t.Errorf("answer %q, want one of %s", got, app.LatestRevision)
	}
}

func TestARevisionThatNeverWasReadyAnswersWithItsReason(t *testing.T) {
	w := newWorld(t)
	app := w.put(func(a *resource.App) { a.Template.Containers[0].Image = fake.Exit })
	if app.Provisioning() != resource.Failed {
		t.Fatalf("got %s", app.Provisioning())
	}
	w.until("waiting requests learn why", func() bool { return strings.Contains(w.ask(host), "exit") })
}

func TestAWriteThatGetsNowhereEndsWithItsReason(t *testing.T) {
	w := newWorld(t)
	// It listens on another port than it is asked on, and was written so long ago that its time is over.
	w.stop()
	_, err := w.store.Apps().Put(t.Context(), chat, func(a *resource.App, _ bool) error {
		a.ID, a.Environment, a.Generation = chat, environment, 1
		a.Modified = time.Now().Add(-time.Hour)
		a.Configuration.Ingress = &resource.Ingress{External: true, TargetPort: 9999}
		a.Template.Containers = []resource.Container{{
			Name: "chat", Image: fake.Echo, Env: []resource.EnvVar{{Name: "PORT", Value: "8080"}},
			Resources: resource.Resources{MilliCPU: 250, Memory: 512 << 20},
		}}
		a.Template.Scale.Min = 1
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	app := w.settled()
	if app.Provisioning() != resource.Failed || !strings.Contains(app.ProvisioningError(), "not ready after 20m0s") {
		t.Errorf("got %s: %s", app.Provisioning(), app.ProvisioningError())
	}
}

func TestWhatMakesARevisionAndWhatDoesNot(t *testing.T) {
	w := newWorld(t)
	first := w.put(func(*resource.App) {}).LatestRevision
	if got := w.put(func(*resource.App) {}).LatestRevision; got != first {
		t.Errorf("the same template made %s", got)
	}
	if got := w.put(func(a *resource.App) { a.Configuration.Ingress.AllowInsecure = true }).LatestRevision; got != first {
		t.Errorf("a change of configuration made %s", got)
	}
	if !slices.ContainsFunc(w.routes.last().Routes, func(r link.Route) bool { return r.Host == host && r.AllowInsecure }) {
		t.Error("the change of configuration has not reached the routes")
	}
	w.images.push(fake.Echo)
	second := w.put(func(*resource.App) {}).LatestRevision
	if second == first {
		t.Error("an image that was pushed again made no revision at the next write")
	}
	w.images.push(fake.Echo)
	if got := w.put(func(a *resource.App) { a.Tags = map[string]string{"penstock.behaviour": "azure"} }).LatestRevision; got != second {
		t.Errorf("behaviour azure compares the text of the image only, and made %s", got)
	}
}

func TestRoutesTellWhoIsWhoseNeighbour(t *testing.T) {
	w := newWorld(t)
	app := w.put(func(a *resource.App) { a.Configuration.Ingress.External = false })
	table := w.routes.last()
	if len(table.Environments) != 1 || !table.Environments[0].Addresses.Contains(table.Environments[0].Gateway) {
		t.Fatalf("environments %+v, want the app's, with addresses and gateway", table.Environments)
	}
	names := map[string]bool{"chat": false, app.LatestRevision: false}
	for _, r := range table.Routes {
		if _, known := names[r.Name]; !known || r.Environment != table.Environments[0].ID || r.External {
			t.Errorf("route %+v", r)
		}
		names[r.Name] = true
	}
	for name, there := range names {
		if !there {
			t.Errorf("no route has the name %s", name)
		}
	}
}

func TestTheScaleRuleTellsHowFullAReplicaShouldBe(t *testing.T) {
	w := newWorld(t)
	w.put(func(a *resource.App) {
		a.Template.Scale.Rules = []resource.ScaleRule{{Name: "http", HTTP: &resource.RequestRule{Concurrent: 7}}}
	})
	w.routes.mu.Lock()
	defer w.routes.mu.Unlock()
	if got := w.routes.table.Revisions; len(got) != 1 || got[0].Target != 7 {
		t.Errorf("got %+v, want one revision with target 7", got)
	}
}

func TestARestartOfThePlatformDisturbsNothing(t *testing.T) {
	w := newWorld(t)
	app := w.put(func(a *resource.App) { a.Template.Scale.Min = 3 })
	before := w.running(app.LatestRevision)
	w.stop()
	w.start()
	w.until("routes are back", func() bool { return len(w.routes.revision(app.LatestRevision).Replicas) == 3 })
	if after := w.running(app.LatestRevision); !slices.Equal(before, after) {
		t.Errorf("replicas before %v, after %v", before, after)
	}
}

func TestALostDatabaseNeverRemovesAReplica(t *testing.T) {
	w := newWorld(t)
	revision := w.put(func(*resource.App) {}).LatestRevision
	before := w.running(revision)
	w.stop()
	if err := w.store.Apps().Delete(t.Context(), chat); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Revisions().Delete(t.Context(), chat.Child("revisions", revision)); err != nil {
		t.Fatal(err)
	}
	w.start()
	if now := w.put(func(*resource.App) {}).LatestRevision; now == revision {
		t.Error("the new app took the name of a revision that it does not know")
	}
	if after := w.running(revision); !slices.Equal(before, after) {
		t.Errorf("replicas before %v, after %v", before, after)
	}
}

func TestADeletedAppLeavesNothing(t *testing.T) {
	w := newWorld(t)
	revision := w.put(func(*resource.App) {}).LatestRevision
	_, err := w.store.Apps().Put(t.Context(), chat, func(a *resource.App, _ bool) error {
		a.Deleted = time.Now()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reconciler.Touch(chat)
	w.until("the document has gone", func() bool {
		_, err := w.store.Apps().Get(t.Context(), chat)
		return err != nil
	})
	if left := w.running(revision); len(left) > 0 {
		t.Errorf("replicas are left: %v", left)
	}
	if revisions, err := w.store.Revisions().List(t.Context(), store.Scope{Parent: chat}); err != nil || len(revisions) > 0 {
		t.Errorf("revisions are left: %v, %v", revisions, err)
	}
	if got := w.ask(host); got != "no route" {
		t.Errorf("its host answers %q", got)
	}
}
