package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"penstock/internal/reconcile"
	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
)

// A program that ends at once is ready for a moment. It must not replace one that works.
func TestAProgramThatEndsAtOnceReplacesNothing(t *testing.T) {
	env := func(pairs ...string) (all []resource.EnvVar) {
		for _, p := range pairs {
			name, value, _ := strings.Cut(p, "=")
			all = append(all, resource.EnvVar{Name: name, Value: value})
		}
		return all
	}
	sidecar := resource.Container{Name: "side", Image: fake.Exit, Resources: resource.Resources{MilliCPU: 250, Memory: 512 << 20}}
	for name, test := range map[string]struct {
		ingress bool
		change  func(*resource.App)
		want    string
	}{
		"it fails":             {false, func(a *resource.App) { a.Template.Containers[0].Image = fake.Exit }, "container 'chat' ended with exit code 3 (Error)"},
		"it succeeds":          {false, func(a *resource.App) { a.Template.Containers[0].Image = fake.Done }, "container 'chat' ended with exit code 0 (Completed)"},
		"it fails a bit later": {false, func(a *resource.App) { a.Template.Containers[0].Env = env("FAKE_EXIT_AFTER=10ms", "FAKE_EXIT_CODE=7") }, "ended with exit code 7"},
		"it listens first":     {true, func(a *resource.App) { a.Template.Containers[0].Env = env("FAKE_EXIT_AFTER=100ms", "FAKE_EXIT_CODE=7") }, "ended with exit code 7"},
		"a container beside it": {true, func(a *resource.App) { a.Template.Containers = append(a.Template.Containers, sidecar) },
			"container 'side' ended with exit code 3 (Error)"},
		"a container beside one with a probe": {true, func(a *resource.App) {
			a.Template.Containers[0].Probes = []resource.Probe{{Type: resource.Readiness, TCP: &resource.TCPSocket{Port: 8080}, Period: time.Second, Timeout: time.Second, FailureThreshold: 3, SuccessThreshold: 1}}
			a.Template.Containers = append(a.Template.Containers, sidecar)
		}, "container 'side' ended with exit code 3 (Error)"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(w *world) { w.limits.StayUp = 5 * time.Second })
			old := w.put(func(a *resource.App) {
				if !test.ingress {
					a.Configuration.Ingress = nil
				}
				a.Template.Containers[0].Probes = []resource.Probe{{Type: resource.Startup, TCP: &resource.TCPSocket{Port: 8080}, Period: time.Second, Timeout: time.Second, FailureThreshold: 3, SuccessThreshold: 1}}
			}).LatestRevision
			before := w.running(old)
			app := w.put(func(a *resource.App) {
				a.Template.Containers[0].Probes = nil
				test.change(a)
			})
			if app.Provisioning() != resource.Failed || !strings.Contains(app.ProvisioningError(), test.want) {
				t.Errorf("got %s: %q, want Failed with %q", app.Provisioning(), app.ProvisioningError(), test.want)
			}
			if app.LatestReadyRevision != old || len(before) != 1 || len(w.running(old)) != 1 || w.running(old)[0] != before[0] {
				t.Errorf("ready is %s with %v, want %s with %v", app.LatestReadyRevision, w.running(app.LatestReadyRevision), old, before)
			}
			if test.ingress {
				if got := w.ask(host); !strings.Contains(got, old) {
					t.Errorf("answer %q, want one of %s", got, old)
				}
			}
		})
	}
}

func TestOnlyTheFirstReplicasOfARevisionHaveToStayUp(t *testing.T) {
	const stayUp = 2 * time.Second
	w := newWorld(t, func(w *world) { w.limits.StayUp = stayUp })
	began := time.Now()
	w.write(func(*resource.App) {})
	w.until("the first replica of the first revision gets requests", func() bool { return strings.Contains(w.ask(host), "chat--") })
	if w.app().Provisioning() != resource.InProgress {
		t.Errorf("%s after %s, want InProgress until the program has run for %s", w.app().Provisioning(), time.Since(began), stayUp)
	}
	app := w.settled()
	if took := time.Since(began); app.Provisioning() != resource.Succeeded || took < stayUp {
		t.Errorf("%s after %s", app.Provisioning(), took)
	}
	w.limits.StayUp = time.Hour // of what is judged from now on
	w.stop()
	w.start()
	w.driver.Crash(w.running(app.LatestRevision)[0], 1)
	w.until("a crashed replica of a judged revision is back", func() bool {
		return strings.Contains(w.ask(host), "chat--") && w.saw("ContainerTerminated")
	})
	old := w.running(app.LatestRevision)
	w.restart(app.LatestRevision)
	w.replaced(app.LatestRevision, old, 1)
	if got := w.put(func(a *resource.App) { a.Configuration.Ingress.AllowInsecure = true }); got.Provisioning() != resource.Succeeded {
		t.Errorf("a write without a new revision: %s %s", got.Provisioning(), got.ProvisioningError())
	}
}

// stuck is an app whose replica listens on another port than it is asked on.
func stuck(a *resource.App) {
	a.Template.Containers[0].Env = []resource.EnvVar{{Name: "PORT", Value: "8081"}}
}

func TestAWriteWithoutProgressEnds(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.limits = reconcile.Limits{StayUp: time.Millisecond, Stalled: 3 * time.Second, Unhealthy: time.Hour}
	})
	old := w.put(func(*resource.App) {}).LatestRevision
	app := w.put(stuck)
	if app.Provisioning() != resource.Failed || !strings.Contains(app.ProvisioningError(), "no progress for 3s") || !strings.Contains(app.ProvisioningError(), "listens on 8081") {
		t.Errorf("got %s: %s", app.Provisioning(), app.ProvisioningError())
	}
	if got := w.ask(host); !strings.Contains(got, old) {
		t.Errorf("answer %q, want one of %s", got, old)
	}
}

func TestAWriteWithoutProgressSucceedsInAzure(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.limits = reconcile.Limits{StayUp: time.Millisecond, Stalled: time.Hour, Unhealthy: 4 * time.Second}
	})
	old := w.put(func(*resource.App) {}).LatestRevision
	app := w.put(func(a *resource.App) {
		a.Tags = map[string]string{"penstock.behaviour": "azure"}
		stuck(a)
	})
	if app.Provisioning() != resource.Succeeded || app.LatestReadyRevision != old {
		t.Errorf("got %s: %s, ready %s, want %s", app.Provisioning(), app.ProvisioningError(), app.LatestReadyRevision, old)
	}
	rev, err := w.store.Revisions().Get(t.Context(), chat.Child("revisions", app.LatestRevision))
	if err != nil || rev.State != resource.RevisionDegraded || !strings.Contains(rev.Reason, "8081") {
		t.Errorf("revision is %s: %q, %v", rev.State, rev.Reason, err)
	}
	if got := w.ask(host); !strings.Contains(got, old) {
		t.Errorf("answer %q, want one of %s", got, old)
	}
	w.until("an event says so", func() bool { return w.saw("ContainerAppUnhealthy") })
	// It is still tried: what it becomes later counts.
	w.driver.Crash(w.running(app.LatestRevision)[0], 1)
	w.until("the end of the process is seen", func() bool { return w.saw("ContainerTerminated") })
	if got := w.app(); got.Provisioning() != resource.Succeeded || got.LatestReadyRevision != old {
		t.Errorf("after a crash: %s, ready %s", got.Provisioning(), got.LatestReadyRevision)
	}
}

// A program that a probe restarts ends with code 0, which explains nothing. The probe goes on long enough for the program
// to listen somewhere.
func TestAFailedProbeIsTheReason(t *testing.T) {
	w := newWorld(t)
	app := w.put(func(a *resource.App) {
		a.Template.Containers[0].Probes = []resource.Probe{{
			Type: resource.Startup, TCP: &resource.TCPSocket{Port: 9999}, Period: 50 * time.Millisecond, Timeout: time.Second, FailureThreshold: 10, SuccessThreshold: 1, Grace: time.Second,
		}}
	})
	const want = "connection refused on port 9999; the container listens on 8080"
	if app.Provisioning() != resource.Failed || !strings.Contains(app.ProvisioningError(), want) || strings.Contains(app.ProvisioningError(), "Completed") {
		t.Errorf("got %s: %s", app.Provisioning(), app.ProvisioningError())
	}
	rev, err := w.store.Revisions().Get(t.Context(), chat.Child("revisions", app.LatestRevision))
	if err != nil || !strings.Contains(rev.Reason, want) {
		t.Errorf("the revision's reason is %q, %v", rev.Reason, err)
	}
	all, err := w.engine.Replicas(t.Context())
	if err != nil || len(all) != 1 || all[0].Containers[0].LastExit == nil || !strings.Contains(all[0].Containers[0].LastExit.Why(), want) {
		t.Errorf("replicas %+v, %v", all, err)
	}
}
