package logs

import (
	"bytes"
	"context"
	"io"
	"iter"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"penstock/internal/resource"
)

// Source says which process printed a line, and where.
type Source struct {
	App                          resource.ID
	Revision, Replica, Container string
	Stream                       string // "stdout" or "stderr"
}

// Line is one line that a container printed.
type Line struct {
	At time.Time // when it arrived here
	Source
	Text string // without its end of line; bytes that are no UTF-8 are kept as they came
	// Partial is set when the line was longer than the limit: it goes on in the next Line of its source.
	Partial bool
}

// Query selects lines of one app. Empty names match all.
type Query struct {
	App                          resource.ID
	Revision, Replica, Container string
	// Tail is how many of the newest lines to begin with; 0 is all that there are, -1 none.
	Tail   int
	Since  time.Time // lines before it are left out; zero is none
	Follow bool      // go on with new lines until the context ends
}

// Console keeps what containers print. Lines of a replica stay when it is gone.
type Console struct{ shelf *shelf }

// OpenConsole opens the log in dir, makes the folder when it is not there, and repairs what a crash has torn.
func OpenConsole(dir string, lim Limits, log *slog.Logger) (*Console, error) {
	s, err := openShelf(dir, consoleFormat, lim, log)
	if err != nil {
		return nil, err
	}
	return &Console{s}, nil
}

// Writer takes what a source prints, splits it into lines and keeps them. Its Write takes all that it is given and never
// fails: lines that could not be kept are counted by Dropped. A Writer is for one goroutine; Close keeps a last line
// that has no end.
func (c *Console) Writer(src Source) io.WriteCloser {
	return &lineWriter{shelf: c.shelf, journal: c.shelf.journal(src.App), app: src.App, encoder: newLineEncoder(src)}
}

// Read returns the lines that q selects in the order of their arrival. The sequence ends with an error when reading
// fails or, unless it follows, when ctx ends.
func (c *Console) Read(ctx context.Context, q Query) iter.Seq2[Line, error] {
	return read(ctx, c.shelf, selection[Line]{
		app: q.App, tail: q.Tail, since: q.Since, follow: q.Follow, decode: decodeLine,
		match: func(l Line) bool {
			return !l.At.Before(q.Since) && same(q.Revision, l.Revision) && same(q.Replica, l.Replica) && same(q.Container, l.Container)
		},
	})
}

// Forget removes all lines of an app. Readers that follow it come to their end; what its writers still take is dropped.
func (c *Console) Forget(app resource.ID) error { return c.shelf.forget(app) }

// Dropped counts the lines that could not be kept since Open.
func (c *Console) Dropped() int64 { return c.shelf.dropped.Load() }

// Close ends all readers that follow. What is written later is dropped.
func (c *Console) Close() error { return c.shelf.close() }

func same(want, got string) bool { return want == "" || strings.EqualFold(want, got) }

// batchBytes is how much a lineWriter gathers before it appends; one Write makes one append in nearly all cases.
const batchBytes = 1 << 20

type lineWriter struct {
	shelf   *shelf
	journal *journal
	app     resource.ID
	encoder lineEncoder
	line    []byte // the line that has no end yet
	batch   []byte
	lines   int // in batch
}

func (w *lineWriter) Write(p []byte) (int, error) {
	now := time.Now()
	for rest := p; len(rest) > 0; {
		chunk, after, ended := bytes.Cut(rest, []byte("\n"))
		rest = after
		w.line = append(w.line, chunk...)
		text := w.line
		for limit := w.shelf.limits.LineBytes; len(text) > limit; {
			n := cutPoint(text, limit)
			w.add(now, text[:n], true)
			text = text[n:]
		}
		if ended {
			w.add(now, text, false)
			text = nil
		}
		w.line = append(w.line[:0], text...)
	}
	w.flush()
	return len(p), nil
}

func (w *lineWriter) Close() error {
	if len(w.line) > 0 {
		w.add(time.Now(), w.line, false)
		w.line = nil
	}
	w.flush()
	return nil
}

func (w *lineWriter) add(at time.Time, text []byte, partial bool) {
	w.batch = w.encoder.append(w.batch, at, text, partial)
	w.lines++
	if len(w.batch) >= batchBytes {
		w.flush()
	}
}

func (w *lineWriter) flush() {
	if w.lines == 0 {
		return
	}
	w.shelf.append(w.journal, w.app, w.batch, w.lines)
	w.batch, w.lines = w.batch[:0], 0
}

// cutPoint is where to cut text so that the part before is at most limit bytes and no character is torn.
func cutPoint(text []byte, limit int) int {
	for n := limit; n > limit-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			return n
		}
	}
	return limit // no UTF-8
}
