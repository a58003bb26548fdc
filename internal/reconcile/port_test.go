package reconcile_test

import (
	"strings"
	"testing"

	"penstock/internal/resource"
)

// An app that names no port is served on the one that its replicas listen on. What it says of the port makes no
// revision, and what was found is nowhere in it.
func TestAPortThatNobodyNamed(t *testing.T) {
	w := newWorld(t)
	listens := []resource.EnvVar{{Name: "PORT", Value: "8000"}}
	app := w.put(func(a *resource.App) {
		a.Configuration.Ingress.TargetPort = 0
		a.Template.Containers[0].Env = listens
	})
	if app.Provisioning() != resource.Succeeded || app.Configuration.Ingress.TargetPort != 0 {
		t.Fatalf("got %s, port %d: %s", app.Provisioning(), app.Configuration.Ingress.TargetPort, app.ProvisioningError())
	}
	first := app.LatestRevision
	served := func(when string) {
		t.Helper()
		up := w.routes.revision(first)
		if len(up.Replicas) != 1 || !strings.HasSuffix(up.Replicas[0].Addr, ":8000") {
			t.Errorf("%s: the table has %+v, want a replica at port 8000", when, up.Replicas)
		}
		if got := w.ask(host); !strings.Contains(got, first) {
			t.Errorf("%s: answer %q is not of revision %s", when, got, first)
		}
	}
	served("at first")
	w.stop()
	w.start()
	served("after a restart of control")
	for _, port := range []int{8000, 0} {
		if got := w.put(func(a *resource.App) { a.Configuration.Ingress.TargetPort = port }).LatestRevision; got != first {
			t.Errorf("port %d made revision %s", port, got)
		}
		served("with another word for the same")
	}
	if w.saw("RevisionDrained") {
		t.Error("a replica was replaced")
	}
}

// An app gets its ingress while it runs: its replica is asked for its port then.
func TestAPortThatIsWantedLater(t *testing.T) {
	w := newWorld(t)
	app := w.put(func(a *resource.App) {
		a.Configuration.Ingress = nil
		a.Template.Containers[0].Env = []resource.EnvVar{{Name: "PORT", Value: "8000"}}
	})
	w.write(func(a *resource.App) {
		a.Configuration.Ingress = &resource.Ingress{External: true, Transport: resource.TransportAuto}
	})
	w.until("its replica is asked", func() bool { return strings.Contains(w.ask(host), app.LatestRevision) })
}
