package reconcile_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// A platform goes on with what one of database format 1 left: it finishes what was under way, and serves.
func TestServesWhatFormat1Left(t *testing.T) {
	dump, err := os.ReadFile(filepath.Join("..", "store", "testdata", "format1.sql"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "db")
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), string(dump))
	if err == nil { // the newest write of "waiting" is not given up yet
		_, err = db.ExecContext(t.Context(), `UPDATE resources SET document = json_set(document, '$.Modified', ?)
			WHERE document ->> '$.ID' LIKE '%/containerApps/waiting'`, time.Now().UTC().Format(time.RFC3339Nano))
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, path)
	app := func(name string) resource.ID {
		return resource.AppID("00000000-0000-0000-0000-000000000000", "old", name)
	}
	get := func(name string) resource.App {
		a, err := w.store.Apps().Get(t.Context(), app(name))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	serves := func(name, revision string) {
		t.Helper()
		env, err := w.store.Environments().Get(t.Context(), get(name).Environment)
		if err != nil {
			t.Fatal(err)
		}
		w.until(name+" serves with "+revision, func() bool {
			return strings.Contains(w.ask(name+"."+env.DefaultDomain), revision)
		})
	}
	w.until("the deletion is done", func() bool {
		_, err := w.store.Apps().Get(t.Context(), app("going"))
		return errors.Is(err, resource.ErrNotFound)
	})
	serves("single", "single--0000002")
	serves("multiple", "multiple--two")
	serves("waiting", get("waiting").LatestReadyRevision) // its newest revision starts for an hour
	if a := get("waiting"); a.Provisioning() != resource.InProgress || a.LatestReadyRevision == a.LatestRevision {
		t.Errorf("waiting is %s, latest %s, ready %s", a.Provisioning(), a.LatestRevision, a.LatestReadyRevision)
	}
	for name, want := range map[string]resource.ProvisioningState{
		"single": resource.Succeeded, "multiple": resource.Succeeded, "stopped": resource.Succeeded, "failed": resource.Failed,
	} {
		if got := get(name).Provisioning(); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for _, none := range []string{"multiple--one", "single--0000001", get("stopped").LatestRevision} {
		if running := w.running(none); len(running) > 0 {
			t.Errorf("%s was not active and has replicas: %v", none, running)
		}
	}
	// Its user brings back what was deactivated before.
	_, err = w.store.Revisions().Put(t.Context(), app("multiple").Child("revisions", "multiple--one"), func(rev *resource.Revision, _ bool) error {
		rev.Off = false
		rev.Activations++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reconciler.Touch(app("multiple"))
	w.until("it runs", func() bool { return len(w.running("multiple--one")) == 1 })

	// Of two executions of one job the first was stopped. The replica of the second has gone with its machine, and
	// there is one retry.
	executions, err := w.store.Executions().List(t.Context(), store.Scope{Parent: resource.JobID("00000000-0000-0000-0000-000000000000", "old", "long")})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range executions {
		if e.Over() {
			continue
		}
		w.until("the execution that was under way is tried again", func() bool { return len(w.running(e.Name())) == 1 })
	}
}
