package logs_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"penstock/internal/logs"
)

// segment makes a log of one app with two lines and returns the path of its only segment.
func segment(t testing.TB, dir string) string {
	t.Helper()
	c, err := logs.OpenConsole(dir, logs.Limits{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, source("chat"), "one\ntwo\n")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.log"))
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
		"sound":                        {func(b []byte) []byte { return b }, []string{"one", "two"}},
		"the last line torn":           {func(b []byte) []byte { return b[:len(b)-5] }, []string{"one"}},
		"half a line after a crash":    {func(b []byte) []byte { return append(b, `{"at":"2026-`...) }, []string{"one", "two"}},
		"a block of zeros at the end":  {func(b []byte) []byte { return append(b, make([]byte, 200_000)...) }, []string{"one", "two"}},
		"noise between the lines":      {func(b []byte) []byte { return bytes.Replace(b, []byte("}\n"), []byte("}\n\x00noise}{\n"), 2) }, []string{"one", "two"}},
		"a line without an end within": {func(b []byte) []byte { i := bytes.Index(b, []byte("one")); return slices.Delete(b, i, i+7) }, nil},
		"a line of 8 MiB":              {func(b []byte) []byte { return append(append(b, make([]byte, 8<<20)...), '\n') }, []string{"one", "two"}},
		"the header torn":              {func(b []byte) []byte { return b[:10] }, nil},
		"empty":                        {func([]byte) []byte { return nil }, nil},
		"the header of another log":    {func(b []byte) []byte { return bytes.Replace(b, []byte("console"), []byte("system"), 1) }, nil},
		"a newer version":              {func(b []byte) []byte { return bytes.Replace(b, []byte(`"version":1`), []byte(`"version":2`), 1) }, nil},
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
	for _, other := range []string{filepath.Join(dir, "README"), filepath.Join(filepath.Dir(path), "1.log"), filepath.Join(filepath.Dir(path), "notes.txt")} {
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
	header, rest, _ := bytes.Cut(whole, []byte("\n"))
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(bytes.ReplaceAll(whole, []byte(`"text"`), []byte(`"bytes"`)))
	f.Add(slices.Concat(header, []byte("\n\n{}\n[]\n"), rest, []byte(`{"at":"0000-01-01T00:00:00Z"}`)))
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
