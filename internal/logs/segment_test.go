package logs_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"penstock/internal/logs"
)

// segment makes a log of one app with two lines, and returns the path of its only segment.
func segment(t testing.TB, dir string) string {
	t.Helper()
	c, err := logs.OpenConsole(dir, logs.Limits{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, source("chat"), "one\n")
	write(t, c, source("chat"), "two\n")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.seg"))
	if err != nil || len(files) != 1 {
		t.Fatalf("segments: %v, %v; want one", files, err)
	}
	return files[0]
}

func TestDamagedSegments(t *testing.T) {
	tests := map[string]struct {
		harm func(whole []byte) []byte
		want []string // and then what is written next
	}{
		"sound":                      {func(b []byte) []byte { return b }, []string{"one", "two"}},
		"the last block torn":        {func(b []byte) []byte { return b[:len(b)-5] }, []string{"one"}},
		"half a block after a crash": {func(b []byte) []byte { return append(b, "\xb1PSB\x01"...) }, []string{"one", "two"}},
		"zeros at the end":           {func(b []byte) []byte { return append(b, make([]byte, 200_000)...) }, []string{"one", "two"}},
		"a line changed":             {func(b []byte) []byte { return bytes.Replace(b, []byte("one"), []byte("eno"), 1) }, []string{"two"}},
		"a line cut out":             {func(b []byte) []byte { i := bytes.Index(b, []byte("one")); return slices.Delete(b, i, i+7) }, nil},
		"the header torn":            {func(b []byte) []byte { return b[:10] }, nil},
		"empty":                      {func([]byte) []byte { return nil }, nil},
		"the header of another log":  {func(b []byte) []byte { return bytes.Replace(b, []byte("console"), []byte("systems"), 1) }, nil},
		"a newer version":            {func(b []byte) []byte { return bytes.Replace(b, []byte("PENSEG1"), []byte("PENSEG2"), 1) }, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := segment(t, dir)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, test.harm(whole), 0o600); err != nil {
				t.Fatal(err)
			}
			c := openConsole(t, dir, logs.Limits{})
			if got := texts(lines(t, c, logs.Query{App: app("chat")})); !slices.Equal(got, test.want) {
				t.Errorf("after the damage: got %q, want %q", got, test.want)
			}
			write(t, c, source("chat"), "three\n")
			if got, want := texts(lines(t, c, logs.Query{App: app("chat")})), append(test.want, "three"); !slices.Equal(got, want) {
				t.Errorf("after the next line: got %q, want %q", got, want)
			}
		})
	}
}

func TestFilesOfOthersAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := segment(t, dir)
	for _, other := range []string{filepath.Join(dir, "README"), filepath.Join(filepath.Dir(path), "1.seg"), filepath.Join(filepath.Dir(path), "notes.txt")} {
		if err := os.WriteFile(other, []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := openConsole(t, dir, logs.Limits{})
		if got := texts(lines(t, c, logs.Query{App: app("chat")})); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("beside %s: got %q", other, got)
		}
		if b, err := os.ReadFile(other); string(b) != "kept" {
			t.Errorf("%s: got %q, %v", other, b, err)
		}
	}
}

func FuzzSegment(f *testing.F) {
	whole, err := os.ReadFile(segment(f, f.TempDir()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(slices.Concat(whole, whole))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(segment(t, dir), content, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := logs.OpenConsole(dir, logs.Limits{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		before := texts(lines(t, c, logs.Query{App: app("chat")}))
		write(t, c, source("chat"), "the next line\n")
		after := texts(lines(t, c, logs.Query{App: app("chat")}))
		if want := append(before, "the next line"); !slices.Equal(after, want) {
			t.Errorf("got %q, want %q", after, want)
		}
		if got := texts(lines(t, c, logs.Query{App: app("chat"), Tail: 2})); !slices.Equal(got, after[max(0, len(after)-2):]) {
			t.Errorf("tail: got %q of %q", got, after)
		}
	})
}

// old copies a log of the previous version into a folder of the test.
func old(t testing.TB, log string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "version1", log))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLinesOfTheVersionBefore(t *testing.T) {
	dir := old(t, "console")
	c := openConsole(t, dir, logs.Limits{})
	want := []string{"no UTF-8: \xff\xfe"}
	for i := range 8 {
		want = slices.Insert(want, i, fmt.Sprintf("line %d of version 1", i))
	}
	chat := logs.Query{App: app("chat")}
	got := lines(t, c, chat)
	if !slices.Equal(texts(got), want) {
		t.Errorf("got %q, want %q", texts(got), want)
	}
	for _, l := range got {
		if l.Source != source("chat") || l.At.Year() != 2026 {
			t.Errorf("got %+v", l)
		}
	}
	write(t, c, source("chat"), "a line of today\n")
	want = append(want, "a line of today")
	for tail := 1; tail <= len(want)+1; tail++ {
		chat.Tail = tail
		if got, want := texts(lines(t, c, chat)), want[max(0, len(want)-tail):]; !slices.Equal(got, want) {
			t.Errorf("the newest %d: got %q, want %q", tail, got, want)
		}
	}
	chat = logs.Query{App: app("chat"), Since: got[7].At}
	if got := texts(lines(t, c, chat)); !slices.Equal(got, want[7:]) {
		t.Errorf("since the eighth: got %q, want %q", got, want[7:])
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openConsole(t, dir, logs.Limits{}).Forget(app("chat")); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("after Forget: got %v, %v; want nothing left", left, err)
	}
}

// Old segments count towards the limits and are removed first.
func TestSegmentsOfTheVersionBeforeAgeOut(t *testing.T) {
	dir := old(t, "console")
	c := openConsole(t, dir, logs.Limits{SegmentBytes: 1 << 10, AppBytes: 2 << 10, TotalBytes: 1 << 20})
	for i := range 20 {
		write(t, c, source("chat"), fmt.Sprintln("line", i))
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", "*.log"))
	if err != nil || len(left) > 0 {
		t.Errorf("got %v, %v; want the old segments gone", left, err)
	}
	if got := texts(lines(t, c, logs.Query{App: app("chat"), Tail: 1})); !slices.Equal(got, []string{"line 19"}) {
		t.Errorf("got %q, want the newest line", got)
	}
}

func FuzzSegmentOfTheVersionBefore(f *testing.F) {
	files, err := filepath.Glob("testdata/version1/console/*/*.log")
	if err != nil || len(files) != 2 {
		f.Fatalf("got %v, %v, want two segments", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	header, rest, _ := bytes.Cut(whole, []byte("\n"))
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(bytes.ReplaceAll(whole, []byte(`"text"`), []byte(`"bytes"`)))
	f.Add(slices.Concat(header, []byte("\n\n{}\n[]\n"), rest, []byte(`{"at":"0000-01-01T00:00:00Z"}`)))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		folder := filepath.Join(dir, filepath.Base(filepath.Dir(files[0])))
		if err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(filepath.Join(folder, "00000001.log"), content, 0o600)); err != nil {
			t.Fatal(err)
		}
		c, err := logs.OpenConsole(dir, logs.Limits{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all := texts(lines(t, c, logs.Query{App: app("chat")}))
		if got := texts(lines(t, c, logs.Query{App: app("chat"), Tail: 2})); !slices.Equal(got, all[max(0, len(all)-2):]) {
			t.Errorf("tail: got %q of %q", got, all)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	c := openConsole(b, b.TempDir(), logs.Limits{})
	w := c.Writer(source("chat"))
	line := []byte(strings.Repeat("x", 119) + "\n")
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := w.Write(line); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteBatches(b *testing.B) {
	c := openConsole(b, b.TempDir(), logs.Limits{})
	w := c.Writer(source("chat"))
	lines := bytes.Repeat([]byte(strings.Repeat("x", 119)+"\n"), 256)
	b.SetBytes(int64(len(lines)))
	for b.Loop() {
		if _, err := w.Write(lines); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadTail(b *testing.B) {
	c := openConsole(b, b.TempDir(), logs.Limits{})
	for i := range 100_000 {
		write(b, c, source("chat"), fmt.Sprintln("line", i, strings.Repeat("x", 100)))
	}
	for b.Loop() {
		if got := lines(b, c, logs.Query{App: app("chat"), Tail: 20}); len(got) != 20 {
			b.Fatalf("got %d lines", len(got))
		}
	}
}

func FuzzLinesComeBackAsTheyWere(f *testing.F) {
	for _, seed := range []string{"", "a\nb", "\n\n", "\"\\\t\x00\x1f\x7f<>&\u2028모델\xff\xc0\n", strings.Repeat("\x80모", 50)} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, printed []byte, step uint8) {
		c := openConsole(t, t.TempDir(), logs.Limits{LineBytes: 16})
		w := c.Writer(source("chat"))
		for piece := range slices.Chunk(printed, int(step)+1) {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, l := range lines(t, c, logs.Query{App: app("chat")}) {
			if got = append(got, l.Text...); !l.Partial {
				got = append(got, '\n')
			}
			if len(l.Text) > 16 {
				t.Errorf("line of %d bytes, limit 16", len(l.Text))
			}
		}
		want := printed
		if len(want) > 0 && want[len(want)-1] != '\n' {
			want = append(slices.Clone(want), '\n')
		}
		if !bytes.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
