package store_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// format1 makes a database of format 1, as a server of that time left it (testdata/format1.sh). Its resources are there
// copies times, each time in a group of another name.
func format1(t testing.TB, path string, copies int) {
	t.Helper()
	dump, err := os.ReadFile(filepath.Join("testdata", "format1.sql"))
	if err != nil {
		t.Fatal(err)
	}
	db := raw(t, path)
	if _, err := db.ExecContext(t.Context(), "PRAGMA journal_mode = WAL; "+string(dump)); err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO resources SELECT kind, replace(key, '/old/', '/old-' || i || '/'), subscription, 'old-' || i,
			replace(parent, '/old/', '/old-' || i || '/'), replace(document, '/old/', '/old-' || i || '/')
		FROM resources, n WHERE grp = 'old' AND n.i <= ?`, copies, copies)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// raw opens a database as it is.
func raw(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// rows are the documents of a database, under "app /subscriptions/...". The time of a conversion is taken out of them.
func rows(t testing.TB, path, columns string) map[string][]string {
	t.Helper()
	found, err := raw(t, path).QueryContext(t.Context(), "SELECT kind || ' ' || key, "+columns+" FROM resources")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	deleted := regexp.MustCompile(`"Deleted":"[^"]*"`)
	all := map[string][]string{}
	for found.Next() {
		var key, document, status string
		to := []any{&key, &document, &status}
		if !strings.Contains(columns, ",") {
			to = to[:2]
		}
		if err := found.Scan(to...); err != nil {
			t.Fatal(err)
		}
		all[key] = []string{deleted.ReplaceAllString(document, `"Deleted":"then"`), status}
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// Everything that a document of format 1 says is said by the two of today.
func TestFormat1IsConverted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	format1(t, path, 1)
	was := map[string]json.RawMessage{}
	for key, row := range rows(t, path, "document") {
		was[key] = json.RawMessage(row[0])
	}
	s := open(t, path)
	seen := map[string]bool{}
	// same compares what is read today with a field of before. A field that was not there is the zero value.
	same := func(kind string, id resource.ID, field string, got any) {
		t.Helper()
		key := kind + " " + id.Key()
		seen[key] = true
		text := was[key]
		for part := range strings.SplitSeq(field, ".") {
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(text, &fields); err != nil {
				t.Fatalf("%s: %s: %v", key, field, err)
			}
			text = fields[part]
		}
		want := reflect.New(reflect.TypeOf(got))
		if text != nil {
			if err := json.Unmarshal(text, want.Interface()); err != nil {
				t.Fatalf("%s: %s: %v", key, field, err)
			}
		}
		if diff := cmp.Diff(want.Elem().Interface(), got); diff != "" {
			t.Errorf("%s: %s (-before +now):\n%s", key, field, diff)
		}
	}
	meta := func(kind string, m resource.Meta) {
		t.Helper()
		same(kind, m.ID, "ID", m.ID)
		same(kind, m.ID, "Location", m.Location)
		same(kind, m.ID, "Tags", m.Tags)
		same(kind, m.ID, "Created", m.Created)
		same(kind, m.ID, "Modified", m.Modified)
		same(kind, m.ID, "Generation", m.Generation)
	}

	environments, err := s.Environments().List(t.Context(), store.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range environments {
		meta("environment", e.Meta)
		same("environment", e.ID, "Provisioning", e.Provisioning())
		same("environment", e.ID, "DefaultDomain", e.DefaultDomain)
	}
	apps, err := s.Apps().List(t.Context(), store.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range apps {
		meta("app", a.Meta)
		same("app", a.ID, "Environment", a.Environment)
		same("app", a.ID, "Configuration", a.Configuration)
		same("app", a.ID, "Template", a.Template)
		same("app", a.ID, "Stopped", a.Stopped)
		same("app", a.ID, "Provisioning", a.Provisioning())
		same("app", a.ID, "ProvisioningError", a.ProvisioningError())
		same("app", a.ID, "Observed", a.Observed)
		same("app", a.ID, "LatestRevision", a.LatestRevision)
		same("app", a.ID, "LatestReadyRevision", a.LatestReadyRevision)
	}
	revisions, err := s.Revisions().List(t.Context(), store.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range revisions {
		same("revision", r.ID, "ID", r.ID)
		same("revision", r.ID, "Environment", r.Environment)
		same("revision", r.ID, "Created", r.Created)
		same("revision", r.ID, "Template", r.Template)
		same("revision", r.ID, "Images", r.Images)
		same("revision", r.ID, "Generation", r.Generation)
		same("revision", r.ID, "Off", r.Off)
		same("revision", r.ID, "Restarted", r.Restarted)
		same("revision", r.ID, "Active", r.Active())
		same("revision", r.ID, "TargetPort", r.TargetPort)
		same("revision", r.ID, "DetectPort", r.DetectPort)
		same("revision", r.ID, "TLS", r.TLS)
		same("revision", r.ID, "Settings", r.Settings)
		same("revision", r.ID, "State", r.State)
		same("revision", r.ID, "Reason", r.Reason)
		same("revision", r.ID, "Ready", r.Ready)
	}
	jobs, err := s.Jobs().List(t.Context(), store.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		meta("job", j.Meta)
		same("job", j.ID, "Environment", j.Environment)
		same("job", j.ID, "Configuration", j.Configuration)
		same("job", j.ID, "Template", j.Template)
		same("job", j.ID, "Suspended", j.Suspended)
		same("job", j.ID, "Provisioning", j.Provisioning())
		same("job", j.ID, "Observed", j.Observed)
		same("job", j.ID, "Since", j.Since())
	}
	executions, err := s.Executions().List(t.Context(), store.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range executions {
		same("execution", e.ID, "ID", e.ID)
		same("execution", e.ID, "Created", e.Created)
		same("execution", e.ID, "Plan", e.Policy)
		same("execution", e.ID, "Due", e.Due)
		same("execution", e.ID, "StopAsked", e.StopAsked)
		same("execution", e.ID, "State", e.State)
		same("execution", e.ID, "Reason", e.Reason)
		same("execution", e.ID, "Message", e.Message)
		same("execution", e.ID, "Ended", e.Ended)
		same("execution", e.ID, "Replicas", e.Replicas)
		rev := e.Revision()
		same("execution", e.ID, "Revision.ID", rev.ID)
		same("execution", e.ID, "Revision.Environment", rev.Environment)
		same("execution", e.ID, "Revision.Created", rev.Created)
		same("execution", e.ID, "Revision.Template", rev.Template)
		same("execution", e.ID, "Revision.Settings", rev.Settings)
		same("execution", e.ID, "Revision.Images", rev.Images)
		same("execution", e.ID, "Revision.Generation", rev.Generation)
	}
	storages, err := s.Storages().List(t.Context(), store.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range storages {
		meta("storage", v.Meta)
		same("storage", v.ID, "Share", v.Share)
		same("storage", v.ID, "Sealed", v.Sealed)
	}
	for key := range was {
		if !seen[key] {
			t.Errorf("%s is lost", key)
		}
	}
	// What the database has to have for this to be worth anything.
	states := map[string]bool{}
	for key, text := range was {
		var document struct{ Provisioning, State string }
		if err := json.Unmarshal(text, &document); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		states[document.Provisioning], states[document.State] = true, true
	}
	for _, state := range []string{"InProgress", "Succeeded", "Failed", "Deleting", "Activating", "Running", "ActivationFailed", "Stopped"} {
		if !states[state] {
			t.Errorf("nothing in the database of before is %s", state)
		}
	}
}

func TestConvertedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	format1(t, path, 1)
	convert := func() map[string][]string {
		s, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return rows(t, path, "document, status")
	}
	if diff := cmp.Diff(convert(), convert()); diff != "" {
		t.Errorf("the second open changes documents (-first +second):\n%s", diff)
	}
}

// A process that is killed while it converts a database loses nothing: the next one begins again from what there was.
func TestKillWhileConverting(t *testing.T) {
	const copies, kills = 10, 20
	dir := t.TempDir()
	pattern := filepath.Join(dir, "pattern.db")
	format1(t, pattern, copies)
	before, err := os.ReadFile(pattern)
	if err != nil {
		t.Fatal(err)
	}
	// begin lets a child convert a database, and returns when it is about to.
	begin := func(path string) (child *exec.Cmd, out *bufio.Scanner) {
		child = exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), "STORE_TEST_CONVERT="+path)
		child.Stderr = t.Output()
		pipe, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		out = bufio.NewScanner(pipe)
		if !out.Scan() || out.Text() != "opening" {
			t.Fatalf("the child says %q: %v", out.Text(), out.Err())
		}
		return child, out
	}
	whole := filepath.Join(dir, "whole.db")
	if err := os.WriteFile(whole, before, 0o600); err != nil {
		t.Fatal(err)
	}
	child, out := begin(whole)
	from := time.Now()
	if !out.Scan() || out.Text() != "open" {
		t.Fatalf("the child says %q: %v", out.Text(), out.Err())
	}
	took := time.Since(from)
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	want := rows(t, whole, "document, status")

	cut, begun := 0, 0
	for round := range kills {
		path := filepath.Join(dir, fmt.Sprintf("%d.db", round))
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
		child, out := begin(path)
		timer := time.NewTimer(rand.N(took))
		<-timer.C
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if !out.Scan() {
			cut++
		}
		_ = child.Wait()
		if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
			begun++
		}
		s, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := rows(t, path, "document, status"); !reflect.DeepEqual(want, got) {
			t.Fatalf("round %d: documents after a kill (-want +got):\n%s", round, cmp.Diff(want, got))
		}
	}
	t.Logf("%d documents are converted in %s; of %d kills %d came before the end, %d with pages written", len(want), took.Round(time.Millisecond), kills, cut, begun)
	if cut == 0 {
		t.Error("no kill came before the conversion had ended")
	}
}

// convertUntilKilled is the child of TestKillWhileConverting.
func convertUntilKilled(path string) error {
	fmt.Println("opening")
	s, err := store.Open(context.Background(), path)
	if err != nil {
		return err
	}
	fmt.Println("open")
	return s.Close()
}
