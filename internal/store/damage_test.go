package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// seeded makes a database of some pages and returns its path; it is closed.
func seeded(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "penstock.db")
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		app := chat()
		app.ID = resource.AppID("s", "g", fmt.Sprintf("app-%d", i))
		app.Tags = map[string]string{"pad": strings.Repeat("x", 1000)}
		putApp(t, s, app)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func pragma(t testing.TB, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefusesWhatIsNotSound(t *testing.T) {
	overwrite := func(at int64, with []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt(with, at)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	truncate := func(size int64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := map[string]struct {
		harm func(t *testing.T, path string)
		want error
	}{
		"another kind of file":            {overwrite(0, bytes.Repeat([]byte("no database "), 50)), store.ErrDamaged},
		"pages of noise in the middle":    {overwrite(2*4096, bytes.Repeat([]byte{0xa5}, 3*4096)), store.ErrDamaged},
		"cut in the middle":               {truncate(3 * 4096), store.ErrDamaged},
		"cut to nothing":                  {truncate(0), store.ErrDamaged},
		"cut within the header":           {truncate(50), store.ErrDamaged},
		"the database of another program": {func(t *testing.T, path string) { pragma(t, path, "PRAGMA application_id = 7") }, store.ErrDamaged},
		"a newer format":                  {func(t *testing.T, path string) { pragma(t, path, "PRAGMA user_version = 1000") }, store.ErrNewer},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := seeded(t)
			test.harm(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(t.Context(), path)
			if err == nil {
				_ = s.Close()
			}
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), path) {
				t.Errorf("got %v, want %v with the path", err, test.want)
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, after) {
				t.Error("the refused file was changed")
			}
		})
	}
}

func TestOpenSaysWhatIsInTheWay(t *testing.T) {
	dir := t.TempDir()
	if _, err := store.Open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "want a file") {
		t.Errorf("a directory: got %v", err)
	}
	if _, err := store.Open(t.Context(), filepath.Join(dir, "none", "penstock.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: got %v, want %v", err, os.ErrNotExist)
	}
}

func TestHalfMadeDatabaseIsMadeAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	for _, left := range []string{path + ".new", path + ".new-journal"} {
		if err := os.WriteFile(left, []byte("what a crash left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	putApp(t, open(t, path), chat())
}

// TestKillLeavesOldOrNew runs this test binary as a child that writes without end, kills it at some moment, and looks at
// what it left: every write that it reported is there, and no resource is half of one write and half of another.
func TestKillLeavesOldOrNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "penstock.db")
	var reported int64
	for round := range 8 {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Stderr = t.Output()
		child.Env = append(os.Environ(), "STORE_TEST_WRITE="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// Kill at another point of another write each time: after some reports, then a few hundred microseconds.
		for range 5 + 7*round {
			if _, err := fmt.Fscanln(out, &reported); err != nil {
				t.Fatalf("child's report: %v", err)
			}
		}
		timer := time.NewTimer(time.Duration(round) * 300 * time.Microsecond)
		<-timer.C
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for {
			var n int64
			if _, err := fmt.Fscanln(out, &n); err != nil {
				break
			}
			reported = n
		}
		_, _ = io.Copy(io.Discard, out)
		_ = child.Wait()

		s, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		app, err := s.Apps().Get(t.Context(), chat().ID)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if app.Generation < reported || app.Generation > reported+1 {
			t.Errorf("round %d: got generation %d, want %d (reported) or the one after", round, app.Generation, reported)
		}
		if want := filler(app.Generation); app.Tags["first"] != want || app.Template.RevisionSuffix != want {
			t.Errorf("round %d: generation %d has parts of another write", round, app.Generation)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// filler is long enough that a document spans several pages.
func filler(generation int64) string { return strings.Repeat(fmt.Sprint(generation, "."), 2000) }

// TestMain runs the child of a test that kills it, instead of the tests, when it is given a path.
func TestMain(m *testing.M) {
	for variable, run := range map[string]func(path string) error{
		"STORE_TEST_WRITE": writeUntilKilled, "STORE_TEST_CONVERT": convertUntilKilled,
	} {
		path := os.Getenv(variable)
		if path == "" {
			continue
		}
		if err := run(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func writeUntilKilled(path string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, path)
	if err != nil {
		return err
	}
	for {
		app, err := s.Apps().Put(ctx, chat().ID, func(v *resource.App, _ bool) error {
			v.Generation++
			v.Tags = map[string]string{"first": filler(v.Generation)}
			v.Template.RevisionSuffix = filler(v.Generation)
			return nil
		})
		if err != nil {
			return err
		}
		fmt.Println(app.Generation)
	}
}

func TestFullDiskKeepsTheOldState(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("penstock-store-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs the right to mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	s := open(t, filepath.Join(dir, "penstock.db"))
	putApp(t, s, chat())
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		_, err = s.Apps().Put(t.Context(), resource.AppID("s", "g", fmt.Sprint("app-", i)), func(v *resource.App, _ bool) error {
			v.Template.RevisionSuffix = strings.Repeat("x", 20_000)
			return nil
		})
	}
	if !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "write app") {
		t.Fatalf("write on a full disk: got %v, want %v", err, store.ErrFull)
	}
	t.Log(err)
	got, err := s.Apps().Get(t.Context(), chat().ID)
	if err != nil || got.Generation != chat().Generation {
		t.Errorf("read on a full disk: got generation %d, %v; want %d", got.Generation, err, chat().Generation)
	}
	before, err := s.Apps().List(t.Context(), store.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// More room, and all goes on where it was.
	if err := syscall.Mount("penstock-store-test", dir, "tmpfs", syscall.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	s, err = store.Open(t.Context(), filepath.Join(dir, "penstock.db"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := s.Apps().List(t.Context(), store.Scope{})
	if err != nil || len(after) != len(before) {
		t.Errorf("after reopen: got %d apps, %v; want %d", len(after), err, len(before))
	}
	putApp(t, s, chat())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
