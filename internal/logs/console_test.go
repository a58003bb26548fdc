package logs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/logs"
	"penstock/internal/resource"
)

func logger(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func openConsole(t testing.TB, dir string, lim logs.Limits) *logs.Console {
	t.Helper()
	c, err := logs.OpenConsole(dir, lim, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func app(name string) resource.ID { return resource.AppID("s", "default", name) }

func source(name string) logs.Source {
	return logs.Source{App: app(name), Revision: name + "--1", Replica: name + "--1-x", Container: name, Stream: "stdout"}
}

func write(t testing.TB, c *logs.Console, src logs.Source, text string) {
	t.Helper()
	w := c.Writer(src)
	if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("write: took %d of %d, %v", n, len(text), err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func lines(t testing.TB, c *logs.Console, q logs.Query) (all []logs.Line) {
	t.Helper()
	for l, err := range c.Read(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

func texts(all []logs.Line) (got []string) {
	for _, l := range all {
		got = append(got, l.Text)
	}
	return got
}

func TestWriterSplitsLines(t *testing.T) {
	type piece struct {
		text    string
		partial bool
	}
	tests := map[string]struct {
		writes []string
		want   []piece
	}{
		"whole lines":                {[]string{"a\nb\n"}, []piece{{"a", false}, {"b", false}}},
		"a line in three writes":     {[]string{"on", "e li", "ne\n"}, []piece{{"one line", false}}},
		"a last line without an end": {[]string{"a\nb"}, []piece{{"a", false}, {"b", false}}},
		"empty lines":                {[]string{"\n\na\n"}, []piece{{"", false}, {"", false}, {"a", false}}},
		"nothing":                    {[]string{"", ""}, nil},
		"exactly the limit":          {[]string{"0123456789abcdef\n"}, []piece{{"0123456789abcdef", false}}},
		"the limit, then its end":    {[]string{"0123456789abcdef", "\n"}, []piece{{"0123456789abcdef", false}}},
		"more than twice the limit": {[]string{"0123456789abcdef0123456789", "abcdefg\n"},
			[]piece{{"0123456789abcdef", true}, {"0123456789abcdef", true}, {"g", false}}},
		"a character on the limit":  {[]string{"0123456789abcd모델\n"}, []piece{{"0123456789abcd", true}, {"모델", false}}},
		"bytes that are no UTF-8":   {[]string{"a\xff\xfe\x00b\n"}, []piece{{"a\xff\xfe\x00b", false}}},
		"no UTF-8 beyond the limit": {[]string{strings.Repeat("\x80", 17) + "\n"}, []piece{{strings.Repeat("\x80", 16), true}, {"\x80", false}}},
		"what JSON escapes":         {[]string{"\"a\"\\b\t\x01\u2028\x7f\n"}, []piece{{"\"a\"\\b\t\x01\u2028\x7f", false}}},
		"markup and terminal codes": {[]string{"<b>&\x1b[31m\r\n"}, []piece{{"<b>&\x1b[31m\r", false}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := openConsole(t, t.TempDir(), logs.Limits{LineBytes: 16})
			w := c.Writer(source("chat"))
			before := time.Now().Add(-time.Second)
			for _, p := range test.writes {
				if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
					t.Fatalf("write: took %d of %d, %v", n, len(p), err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			var got []piece
			for _, l := range lines(t, c, logs.Query{App: app("chat")}) {
				got = append(got, piece{l.Text, l.Partial})
				if l.Source != source("chat") {
					t.Errorf("got source %+v, want %+v", l.Source, source("chat"))
				}
				if l.At.Before(before) || l.At.After(time.Now()) {
					t.Errorf("got time %v, want about now", l.At)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestReadSelects(t *testing.T) {
	c := openConsole(t, t.TempDir(), logs.Limits{SegmentBytes: 1 << 10})
	one := source("chat")
	two := one
	two.Revision, two.Replica, two.Container = "chat--2", "chat--2-y", "sidecar"
	var all, ones []string
	for i := range 40 { // several segments
		all = append(all, fmt.Sprint("one ", i), fmt.Sprint("two ", i))
		ones = append(ones, fmt.Sprint("one ", i))
		write(t, c, one, fmt.Sprintln("one", i))
		write(t, c, two, fmt.Sprintln("two", i))
	}
	tests := map[string]struct {
		q    logs.Query
		want []string
	}{
		"everything":                      {logs.Query{}, all},
		"the newest three":                {logs.Query{Tail: 3}, all[77:]},
		"more than there are":             {logs.Query{Tail: 1000}, all},
		"a tail across segments":          {logs.Query{Tail: 50}, all[30:]},
		"none of the old":                 {logs.Query{Tail: -1}, nil},
		"a revision":                      {logs.Query{Revision: "CHAT--1"}, ones},
		"the tail of a revision":          {logs.Query{Revision: "chat--1", Tail: 30}, ones[10:]},
		"a replica":                       {logs.Query{Replica: "chat--1-x"}, ones},
		"a container":                     {logs.Query{Container: "chat", Tail: 1}, ones[39:]},
		"a container of another replica":  {logs.Query{Container: "chat", Replica: "chat--2-y"}, nil},
		"since a time to come":            {logs.Query{Since: time.Now().Add(time.Hour)}, nil},
		"since a time before, and a tail": {logs.Query{Since: time.Now().Add(-time.Hour), Tail: 2}, all[78:]},
	}
	for name, test := range tests {
		test.q.App = resource.AppID("S", "Default", "Chat") // another spelling
		if got := texts(lines(t, c, test.q)); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
	if got := lines(t, c, logs.Query{App: app("other")}); got != nil {
		t.Errorf("an app without lines: got %v", got)
	}
}

func TestReadSinceALine(t *testing.T) {
	c := openConsole(t, t.TempDir(), logs.Limits{})
	for i := range 5 {
		write(t, c, source("chat"), fmt.Sprintln("line", i))
	}
	all := lines(t, c, logs.Query{App: app("chat")})
	got := lines(t, c, logs.Query{App: app("chat"), Since: all[3].At})
	if diff := cmp.Diff(all[3:], got); diff != "" {
		t.Errorf("since the fourth line (-want +got):\n%s", diff)
	}
}

func TestReadThatIsCutShortSaysSo(t *testing.T) {
	c := openConsole(t, t.TempDir(), logs.Limits{})
	write(t, c, source("chat"), "a\nb\n")
	left := errors.New("the client left")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var got error
	for _, err := range c.Read(ctx, logs.Query{App: app("chat")}) {
		got = err
		cancel(left)
	}
	if got != left {
		t.Errorf("got %v, want %v", got, left)
	}
}

// follow starts a reader. The channel returns what it read when the reader has ended.
func follow(ctx context.Context, t *testing.T, c *logs.Console, q logs.Query) <-chan []string {
	q.Follow = true
	done := make(chan []string)
	go func() {
		var got []string
		for l, err := range c.Read(ctx, q) {
			if err != nil {
				t.Error(err)
			}
			got = append(got, l.Text)
		}
		done <- got
	}()
	return done
}

func TestFollow(t *testing.T) {
	chat := logs.Query{App: app("chat")}
	ends := map[string]func(c *logs.Console, cancel func()){
		"its context ends":   func(_ *logs.Console, cancel func()) { cancel() },
		"the app is deleted": func(c *logs.Console, _ func()) { _ = c.Forget(app("chat")) },
		"the log is closed":  func(c *logs.Console, _ func()) { _ = c.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := openConsole(t, t.TempDir(), logs.Limits{SegmentBytes: 1 << 10})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				early := follow(ctx, t, c, chat) // before there are any lines
				synctest.Wait()
				var all []string
				for i := range 20 {
					all = append(all, fmt.Sprint("line ", i))
					write(t, c, source("chat"), all[i]+"\n")
				}
				late := follow(ctx, t, c, logs.Query{App: app("chat"), Tail: 5})
				fresh := follow(ctx, t, c, logs.Query{App: app("chat"), Tail: -1})
				synctest.Wait()
				for i := 20; i < 40; i++ {
					all = append(all, fmt.Sprint("line ", i))
					write(t, c, source("chat"), all[i]+"\n")
				}
				synctest.Wait()
				end(c, cancel)
				if got := <-early; !slices.Equal(got, all) {
					t.Errorf("from the start: got %q, want %q", got, all)
				}
				if got := <-late; !slices.Equal(got, all[15:]) {
					t.Errorf("from the newest five: got %q, want %q", got, all[15:])
				}
				if got := <-fresh; !slices.Equal(got, all[20:]) {
					t.Errorf("from now: got %q, want %q", got, all[20:])
				}
			})
		})
	}
}

func TestWritersAndFollowersAtOnce(t *testing.T) {
	c := openConsole(t, t.TempDir(), logs.Limits{SegmentBytes: 4 << 10})
	const writers, each, followers = 4, 500, 3
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			src := source("chat")
			src.Container = fmt.Sprint("c", i)
			w := c.Writer(src)
			for n := range each {
				fmt.Fprintln(w, n)
			}
			_ = w.Close()
		})
	}
	for range followers {
		wg.Go(func() {
			next := map[string]int{}
			seen := 0
			for l, err := range c.Read(t.Context(), logs.Query{App: app("chat"), Follow: true}) {
				if err != nil {
					t.Error(err)
					return
				}
				if want := fmt.Sprint(next[l.Container]); l.Text != want {
					t.Errorf("container %s: got line %s, want %s", l.Container, l.Text, want)
					return
				}
				next[l.Container]++
				if seen++; seen == writers*each {
					return
				}
			}
		})
	}
	wg.Wait()
	if n := c.Dropped(); n != 0 {
		t.Errorf("dropped %d lines", n)
	}
}

func TestReaderThatStopsHoldsNobodyUp(t *testing.T) {
	c := openConsole(t, t.TempDir(), logs.Limits{SegmentBytes: 64 << 10, AppBytes: 256 << 10})
	write(t, c, source("chat"), "first\n")
	seen := 0
	for _, err := range c.Read(t.Context(), logs.Query{App: app("chat"), Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		// While this reader pauses, old segments are replaced several times.
		if seen++; seen == 1 {
			for i := range 200 {
				write(t, c, source("chat"), strings.Repeat("x", 10_000)+fmt.Sprintln(i))
			}
			continue
		}
		break // and continues with what is left
	}
	if seen != 2 || c.Dropped() != 0 {
		t.Errorf("got %d lines and %d dropped, want 2 and 0", seen, c.Dropped())
	}
}

func TestLinesOfADeadReplicaStay(t *testing.T) {
	dir := t.TempDir()
	c, err := logs.OpenConsole(dir, logs.Limits{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, source("chat"), "panic: no such model\n")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openConsole(t, dir, logs.Limits{})
	next := source("chat")
	next.Replica = "chat--1-next"
	write(t, c, next, "loading\n")
	if got := texts(lines(t, c, logs.Query{App: app("chat"), Replica: "chat--1-x"})); !slices.Equal(got, []string{"panic: no such model"}) {
		t.Errorf("dead replica: got %q", got)
	}
	if got := texts(lines(t, c, logs.Query{App: app("chat")})); !slices.Equal(got, []string{"panic: no such model", "loading"}) {
		t.Errorf("app: got %q", got)
	}
}

func TestForget(t *testing.T) {
	dir := t.TempDir()
	c := openConsole(t, dir, logs.Limits{})
	old := c.Writer(source("chat"))
	fmt.Fprintln(old, "old")
	write(t, c, source("other"), "other\n")
	if err := c.Forget(app("CHAT")); err != nil {
		t.Fatal(err)
	}
	if err := c.Forget(app("never")); err != nil {
		t.Errorf("an app that never was: %v", err)
	}
	fmt.Fprintln(old, "last words")
	if c.Dropped() != 1 {
		t.Errorf("got %d dropped, want the last words", c.Dropped())
	}
	if got := lines(t, c, logs.Query{App: app("chat")}); got != nil {
		t.Errorf("forgotten app: got %v", got)
	}
	write(t, c, source("chat"), "new\n")
	fmt.Fprintln(old, "more last words")
	if got := texts(lines(t, c, logs.Query{App: app("chat")})); !slices.Equal(got, []string{"new"}) {
		t.Errorf("new app of the same name: got %q", got)
	}
	if got := texts(lines(t, c, logs.Query{App: app("other")})); !slices.Equal(got, []string{"other"}) {
		t.Errorf("another app: got %q", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("folders left: %v, %v; want 2", entries, err)
	}
}

func diskBytes(t testing.TB, dir string) (sum int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	return sum
}

func TestDiskIsBounded(t *testing.T) {
	dir := t.TempDir()
	lim := logs.Limits{SegmentBytes: 4 << 10, AppBytes: 16 << 10, TotalBytes: 40 << 10}
	c := openConsole(t, dir, lim)
	write(t, c, source("quiet"), "the quiet one\n")
	for i := range 300 {
		for a := range 5 {
			write(t, c, source(fmt.Sprint("loud", a)), fmt.Sprintf("line %d of %s\n", i, strings.Repeat("x", 100)))
		}
		if i%20 == 0 {
			if got := diskBytes(t, dir); got > lim.TotalBytes {
				t.Fatalf("after %d rounds: %d bytes on disk, limit %d", i, got, lim.TotalBytes)
			}
		}
	}
	for a := range 5 {
		got := lines(t, c, logs.Query{App: app(fmt.Sprint("loud", a))})
		if len(got) == 0 || !strings.HasPrefix(got[len(got)-1].Text, "line 299 ") {
			t.Errorf("loud%d: the newest line is not there", a)
		}
		for i := 1; i < len(got); i++ {
			var before, n int
			fmt.Sscanf(got[i-1].Text, "line %d", &before)
			fmt.Sscanf(got[i].Text, "line %d", &n)
			if n != before+1 {
				t.Fatalf("loud%d: line %d after %d: a hole in what was kept", a, n, before)
			}
		}
	}
	if got := texts(lines(t, c, logs.Query{App: app("quiet")})); !slices.Equal(got, []string{"the quiet one"}) {
		t.Errorf("the app that takes least: got %q", got)
	}
	if c.Dropped() != 0 {
		t.Errorf("got %d dropped, want 0", c.Dropped())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	// A smaller limit applies from the next start on.
	lim.TotalBytes, lim.AppBytes = 8<<10, 8<<10
	openConsole(t, dir, lim)
	if got := diskBytes(t, dir); got > lim.TotalBytes {
		t.Errorf("reopened: %d bytes on disk, limit %d", got, lim.TotalBytes)
	}
}

func TestOneSegmentThatIsTheWhole(t *testing.T) {
	dir := t.TempDir()
	c := openConsole(t, dir, logs.Limits{SegmentBytes: 1 << 10, AppBytes: 1 << 10, TotalBytes: 1 << 10})
	for i := range 100 {
		name := fmt.Sprint("app", i%3)
		write(t, c, source(name), fmt.Sprintln("line", i))
		if got := diskBytes(t, dir); got > 1<<10 {
			t.Fatalf("after line %d: %d bytes on disk, limit %d", i, got, 1<<10)
		}
		if got, want := texts(lines(t, c, logs.Query{App: app(name), Tail: 1})), fmt.Sprint("line ", i); !slices.Equal(got, []string{want}) {
			t.Fatalf("got %q, want the line just written, %q", got, want)
		}
	}
	if c.Dropped() != 0 {
		t.Errorf("got %d dropped, want 0", c.Dropped())
	}
}

func TestFullDiskDropsAndGoesOn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("penstock-logs-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs the right to mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	c, err := logs.OpenConsole(filepath.Join(dir, "console"), logs.Limits{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for c.Dropped() == 0 {
		kept++
		write(t, c, source("chat"), fmt.Sprintf("%d %s\n", kept, strings.Repeat("x", 1000)))
	}
	kept--
	if got := lines(t, c, logs.Query{App: app("chat")}); len(got) != kept {
		t.Errorf("on the full disk: got %d lines, want the %d before", len(got), kept)
	}
	if err := syscall.Mount("penstock-logs-test", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	write(t, c, source("chat"), "room again\n")
	got := texts(lines(t, c, logs.Query{App: app("chat")}))
	if len(got) != kept+1 || got[kept] != "room again" {
		t.Errorf("with room again: got %d lines, want %d", len(got), kept+1)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLimitsThatContradict(t *testing.T) {
	for _, lim := range []logs.Limits{{SegmentBytes: 1 << 30}, {AppBytes: 1 << 40}, {LineBytes: 1}, {LineBytes: 1 << 30}, {SegmentBytes: -1}} {
		if _, err := logs.OpenConsole(t.TempDir(), lim, logger(t)); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%+v: got %v", lim, err)
		}
	}
}
