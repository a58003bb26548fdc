package reconcile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/store"
)

// multiple writes the app in Multiple mode with a variable that makes each version another, and its shares.
func multiple(version string, traffic ...resource.Traffic) func(a *resource.App) {
	return func(a *resource.App) {
		a.Configuration.Mode = resource.Multiple
		a.Configuration.Ingress.Traffic = traffic
		a.Template.RevisionSuffix = version
		a.Template.Containers[0].Image = fake.Echo
		a.Template.Containers[0].Env = []resource.EnvVar{{Name: "VERSION", Value: version}}
	}
}

// shares are the targets of a host in the newest table: "v1=90 v2=10".
func (w *world) shares(host string) string {
	w.t.Helper()
	var all []string
	for _, r := range w.routes.last().Routes {
		if r.Host != host {
			continue
		}
		for _, to := range r.Targets {
			_, suffix, _ := strings.Cut(to.Revision[strings.LastIndexByte(to.Revision, '/')+1:], "--")
			all = append(all, fmt.Sprintf("%s=%d", suffix, to.Weight))
		}
		return strings.Join(all, " ")
	}
	return "no route"
}

func (w *world) setActive(revision string, active bool) {
	w.t.Helper()
	_, err := w.store.Revisions().Put(w.t.Context(), chat.Child("revisions", revision), func(rev *resource.Revision, _ bool) error {
		rev.Off = !active
		if active {
			rev.Activations++
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.reconciler.Touch(chat)
}

func TestRequestsAreSharedAsTheUserSays(t *testing.T) {
	w := newWorld(t)
	v1, v2 := resource.Traffic{Revision: "chat--v1", Weight: 90}, resource.Traffic{Revision: "chat--v2", Weight: 10, Label: "blue"}
	w.put(multiple("v1"))
	if got := w.shares(host); got != "v1=100" {
		t.Errorf("without shares: %s", got)
	}
	app := w.put(multiple("v2", v1, v2))
	if app.Provisioning() != resource.Succeeded || app.LatestReadyRevision != "chat--v2" {
		t.Fatalf("%s, ready %s: %s", app.Provisioning(), app.LatestReadyRevision, app.ProvisioningError())
	}
	if got := w.shares(host); got != "v1=90 v2=10" {
		t.Errorf("shares: %s", got)
	}
	if got := w.ask("chat---blue.example.localhost"); !strings.Contains(got, "chat--v2") {
		t.Errorf("the label answers %q", got)
	}
	if len(w.running("chat--v1")) != 1 || len(w.running("chat--v2")) != 1 {
		t.Errorf("replicas %v %v, want one each", w.running("chat--v1"), w.running("chat--v2"))
	}

	// The configuration is that of all revisions.
	w.put(func(a *resource.App) { a.Tags = map[string]string{"penstock.queue-limit": "7"} })
	for _, revision := range []string{"chat--v1", "chat--v2"} {
		if got := w.routes.revision(revision).Settings.QueueLimit; got != 7 {
			t.Errorf("the queue limit of %s is %d", revision, got)
		}
	}

	// The label moves, and the weights with it; nothing new is made.
	v1.Label, v2.Label, v1.Weight, v2.Weight = "blue", "", 0, 100
	before := w.running("chat--v1")
	w.put(multiple("v2", v1, v2))
	if got := w.shares(host); got != "v2=100" {
		t.Errorf("shares: %s", got)
	}
	if got := w.ask("chat---blue.example.localhost"); !strings.Contains(got, "chat--v1") {
		t.Errorf("the label that moved answers %q", got)
	}
	if got := w.running("chat--v1"); !slices.Equal(got, before) {
		t.Errorf("a change of weights replaced %v by %v", before, got)
	}

	// In Single mode again the platform decides.
	w.put(func(a *resource.App) { a.Configuration.Mode, a.Configuration.Ingress.Traffic = resource.Single, nil })
	w.until("the older revision has gone", func() bool { return len(w.running("chat--v1")) == 0 })
	if got := w.shares("chat---blue.example.localhost"); got != "no route" {
		t.Errorf("the label still leads to %s", got)
	}
}

func TestLatestRevisionIsTheLatestReadyOne(t *testing.T) {
	w := newWorld(t)
	latest := resource.Traffic{Latest: true, Weight: 100}
	w.put(multiple("v1", latest))
	app := w.put(func(a *resource.App) {
		multiple("v2", latest)(a)
		a.Template.Containers[0].Image = fake.Exit
	})
	if app.Provisioning() != resource.Failed || app.LatestReadyRevision != "chat--v1" || app.LatestRevision != "chat--v2" {
		t.Errorf("%s, latest %s, ready %s", app.Provisioning(), app.LatestRevision, app.LatestReadyRevision)
	}
	if got := w.shares(host); got != "v1=100" {
		t.Errorf("shares: %s", got)
	}
	// A change of the shares alone is no matter of the broken revision.
	app = w.put(func(a *resource.App) {
		a.Configuration.Ingress.Traffic = []resource.Traffic{{Latest: true, Weight: 50}, {Revision: "chat--v2", Weight: 50}}
	})
	if app.Provisioning() != resource.Succeeded {
		t.Errorf("new shares: %s: %s", app.Provisioning(), app.ProvisioningError())
	}
	// The share of the broken one fails with its reason; nothing moves by itself.
	if got := w.shares(host); got != "v1=50 v2=50" {
		t.Errorf("shares: %s", got)
	}
	if up := w.routes.revision("chat--v2"); !strings.Contains(up.Failed, "exit code 3") {
		t.Errorf("the broken revision is shown as %+v", up)
	}
	w.put(multiple("v3", latest))
	if got := w.shares(host); got != "v3=100" {
		t.Errorf("shares: %s", got)
	}
	// When it is deactivated, the one before it is the latest ready one.
	w.setActive("chat--v3", false)
	w.until("the one before takes its place", func() bool { return w.shares(host) == "v1=100" })
	w.setActive("chat--v3", true)
	w.until("it is back", func() bool { return w.shares(host) == "v3=100" })
}

func TestABrokenRevisionIsHeldWithAzuresBehaviour(t *testing.T) {
	w := newWorld(t)
	w.put(func(a *resource.App) {
		a.Tags = map[string]string{"penstock.behaviour": "azure"}
		a.Template.Containers[0].Image = fake.Exit
	})
	w.until("requests are held with the reason", func() bool {
		up := w.routes.revision(w.app().LatestRevision)
		return up.Failed == "" && strings.Contains(up.Blocked, "exit code 3")
	})
}

func TestAUserDeactivatesAndActivates(t *testing.T) {
	w := newWorld(t)
	v1, v2 := resource.Traffic{Revision: "chat--v1", Weight: 50}, resource.Traffic{Revision: "chat--v2", Weight: 50}
	w.put(multiple("v1"))
	w.put(multiple("v2", v1, v2))
	end := w.request("chat--v1")
	w.setActive("chat--v1", false)
	w.until("its share fails with the reason", func() bool {
		return strings.Contains(w.routes.revision("chat--v1").Failed, "not active")
	})
	if got := w.shares("chat--v1.example.localhost"); got != "no route" {
		t.Errorf("its own host leads to %s", got)
	}
	if len(w.running("chat--v1")) != 1 {
		t.Error("its replica went while a request was on it")
	}
	// Activated while it drains, it stays as it is.
	before := w.running("chat--v1")
	w.setActive("chat--v1", true)
	w.until("it takes requests again", func() bool { return len(w.routes.revision("chat--v1").Replicas) == 1 })
	end()
	w.put(func(a *resource.App) { a.Configuration.Ingress.AllowInsecure = true })
	if got := w.running("chat--v1"); !slices.Equal(got, before) {
		t.Errorf("replicas %v, before %v", got, before)
	}
	w.setActive("chat--v1", false)
	w.until("its replica has gone", func() bool { return len(w.running("chat--v1")) == 0 })
	w.stop()
	w.start()
	if len(w.running("chat--v1")) > 0 {
		t.Error("a restart of the platform activated it")
	}
	w.setActive("chat--v1", true)
	w.until("it is back", func() bool { return len(w.routes.revision("chat--v1").Replicas) == 1 })
}

func TestTheOnlyRevisionOfASingleAppDeactivated(t *testing.T) {
	w := newWorld(t)
	revision := w.put(func(*resource.App) {}).LatestRevision
	w.setActive(revision, false)
	w.until("the app has nothing", func() bool { return w.ask(host) == "no route" && len(w.running(revision)) == 0 })
	if app := w.put(func(a *resource.App) { a.Configuration.Ingress.AllowInsecure = true }); app.Provisioning() != resource.Succeeded {
		t.Errorf("a write that changes no template: %s", app.Provisioning())
	}
	now := w.put(func(a *resource.App) { a.Template.Scale.Min = 2 }).LatestRevision
	if now == revision {
		t.Fatal("a changed template made no revision")
	}
	if got := w.ask(host); !strings.Contains(got, now) {
		t.Errorf("answer %q, want one of %s", got, now)
	}
}

func TestOldInactiveRevisionsAreDeleted(t *testing.T) {
	w := newWorld(t)
	keep := func(a *resource.App) { a.Configuration.MaxInactive = new(1) }
	for _, version := range []string{"v1", "v2", "v3", "v4"} {
		w.put(func(a *resource.App) {
			keep(a)
			a.Template.RevisionSuffix = version
		})
	}
	names := func() (names []string) {
		t.Helper()
		all, err := w.store.Revisions().List(t.Context(), store.Scope{Parent: chat})
		if err != nil {
			t.Fatal(err)
		}
		for _, rev := range all {
			names = append(names, rev.Name())
		}
		return names
	}
	w.until("one inactive revision is left", func() bool { return slices.Equal(names(), []string{"chat--v3", "chat--v4"}) })
	if at := slices.IndexFunc(w.routes.last().Routes, func(r link.Route) bool { return r.Host == host }); at < 0 {
		t.Error("the app has lost its route")
	}
}

// As in Azure, a write may send all traffic to a revision that is inactive. It does not make the app ready, and an event
// says so.
func TestTrafficToInactiveRevisionsOnly(t *testing.T) {
	w := newWorld(t)
	v1 := resource.Traffic{Revision: "chat--v1", Weight: 100}
	w.put(multiple("v1", v1))
	w.put(multiple("v2", v1))
	w.setActive("chat--v1", false)
	w.until("v1 is inactive", func() bool { return len(w.running("chat--v1")) == 0 })
	told := func() []resource.Event {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Clone(w.events)
	}
	before := len(told())
	app := w.put(func(a *resource.App) { a.Tags = map[string]string{"team": "ml"} })
	if app.Provisioning() != resource.Succeeded {
		t.Fatalf("%s: %s", app.Provisioning(), app.ProvisioningError())
	}
	w.until("an event says so", func() bool { return w.saw("TrafficToInactiveRevisions") })
	for _, e := range told()[before:] {
		if e.Reason == "ContainerAppReady" {
			t.Errorf("the app is called ready: %s", e.Message)
		}
		if e.Reason == "TrafficToInactiveRevisions" && !strings.Contains(e.Message, "(chat--v1)") {
			t.Errorf("the event names no revision: %s", e.Message)
		}
	}
	// One of two is enough.
	w.put(func(a *resource.App) {
		a.Configuration.Ingress.Traffic = []resource.Traffic{{Revision: "chat--v1", Weight: 50}, {Revision: "chat--v2", Weight: 50}}
	})
	w.until("the app is ready again", func() bool {
		all := told()
		return all[len(all)-1].Reason == "ContainerAppReady"
	})
}
