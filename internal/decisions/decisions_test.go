package decisions_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/decisions"
	"penstock/internal/resource"
)

var (
	chat = resource.AppID("s", "g", "chat")
	echo = resource.AppID("s", "g", "echo")
)

func open(t testing.TB, dir string) *decisions.Log {
	t.Helper()
	l, err := decisions.Open(dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func decision(app resource.ID, to int) decisions.Decision {
	return decisions.Decision{
		At: time.Now().UTC(), App: app, Revision: app.Base() + "--1", Behaviour: "fast", Rule: "users", Value: 12.5, Target: 10, Wanted: to,
		Bound: "maxReplicas", From: to - 1, To: to, Reason: "because",
	}
}

func read(t testing.TB, l *decisions.Log, q decisions.Query) []decisions.Decision {
	t.Helper()
	all, err := l.Read(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDecisionsSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "decisions")
	l := open(t, dir)
	var want []decisions.Decision
	for n := range 3 {
		d := decision(chat, n)
		want = append(want, d)
		l.Add(d)
		l.Add(decision(echo, n))
		if diff := cmp.Diff(want, read(t, l, decisions.Query{App: chat})); diff != "" {
			t.Errorf("at once (-want +got):\n%s", diff)
		}
	}
	d := decision(chat, 3) // nobody reads before the end
	want = append(want, d)
	l.Add(d)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	tests := map[string]struct {
		q    decisions.Query
		want []decisions.Decision
	}{
		"all":        {decisions.Query{App: chat}, want},
		"the newest": {decisions.Query{App: chat, Limit: 1}, want[3:]},
		"since":      {decisions.Query{App: chat, Since: want[2].At}, want[2:]},
		"other app":  {decisions.Query{App: resource.AppID("s", "g", "none")}, nil},
		"before one": {decisions.Query{App: chat, Before: want[2].Place(), Limit: 1}, want[1:2]},
		"some":       {decisions.Query{App: chat, Keep: func(d decisions.Decision) bool { return d.To > 1 }, Limit: 1}, want[3:]},
		"any case":   {decisions.Query{App: resource.AppID("S", "G", "CHAT")}, want},
	}
	for name, test := range tests {
		if diff := cmp.Diff(test.want, read(t, l, test.q)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestForget(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	if err := l.Forget(chat); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("nothing to forget: got %v, %v; want no file", files, err)
	}
	l.Add(decision(chat, 1))
	late := decision(chat, 2)
	l.Add(decision(echo, 1))
	if err := l.Forget(chat); err != nil {
		t.Fatal(err)
	}
	l.Add(late)
	fresh := decision(chat, 3)
	l.Add(fresh)
	for range 2 {
		if diff := cmp.Diff([]decisions.Decision{fresh}, read(t, l, decisions.Query{App: chat})); diff != "" {
			t.Errorf("made again (-want +got):\n%s", diff)
		}
		if got := read(t, l, decisions.Query{App: echo}); len(got) != 1 {
			t.Errorf("another app: got %v", got)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir)
	}
}

func TestAddNeverWaits(t *testing.T) {
	l := open(t, t.TempDir())
	for n := range 1100 {
		l.Add(decision(chat, n))
	}
	if got := l.Dropped(); got != 1100-1024 {
		t.Errorf("dropped %d of 1100, want those that the queue of 1024 has no room for", got)
	}
	if got := read(t, l, decisions.Query{App: chat}); len(got) != 1024 || got[1023].To != 1023 {
		t.Errorf("got %d decisions, want the first 1024", len(got))
	}
}

func TestBytesAreBounded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	d := decision(chat, 1)
	for n := range 60_000 {
		d.To = n
		l.Add(d)
		if n%1000 == 0 {
			read(t, l, decisions.Query{App: chat, Since: time.Now().Add(time.Hour)})
		}
	}
	var total int64
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	got := read(t, l, decisions.Query{App: chat, Limit: 10_000})
	if total > 16<<20 || l.Dropped() > 0 || len(got) != 10_000 || got[9_999].To != 59_999 {
		t.Errorf("%d bytes, %d dropped, %d read; want up to 16 MiB with the newest", total, l.Dropped(), len(got))
	}
}

func TestRunWritesWithinASecond(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		l.Add(decision(chat, 1))
		time.Sleep(1001 * time.Millisecond)
		synctest.Wait()
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("after a second: got %v, %v; want a segment", files, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// FuzzRead reads a segment with arbitrary content and expects no error.
func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	l := open(f, dir)
	l.Add(decision(chat, 1))
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		f.Fatalf("got %v, %v, want one segment", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(files[0])), content, 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir)
		before := len(read(t, l, decisions.Query{App: chat}))
		l.Add(decision(chat, 2))
		if got := read(t, l, decisions.Query{App: chat}); len(got) != before+1 {
			t.Errorf("got %d decisions, want %d and one", len(got), before)
		}
	})
}
