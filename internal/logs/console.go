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
	"penstock/internal/segment"
)

// Source says which process printed a line, and to which stream.
type Source struct {
	App                          resource.ID
	Revision, Replica, Container string
	Stream                       string // "stdout" or "stderr"
}

// Line is one line that a container printed.
type Line struct {
	At time.Time // when it arrived here
	Source
	Text string // without its end of line; invalid UTF-8 is kept as it is
	// Partial is set if the line was longer than the limit. It continues in the next Line of its source.
	Partial bool
}

// Query selects lines of one app. Empty names match all.
type Query struct {
	App                          resource.ID
	Revision, Replica, Container string
	// Tail is how many of the newest lines to return first. 0 means all, -1 means none.
	Tail   int
	Since  time.Time // earlier lines are left out; zero means no limit
	Follow bool      // continue with new lines until the context ends
}

// Console keeps what containers print. The lines of a replica stay after it has ended.
type Console struct{ shelf *shelf }

// OpenConsole opens the log in dir. It creates the folder if it does not exist, and repairs a segment that a crash has
// left incomplete.
func OpenConsole(dir string, lim Limits, log *slog.Logger) (*Console, error) {
	s, err := openShelf(dir, consoleSchema, lim, log)
	if err != nil {
		return nil, err
	}
	return &Console{s}, nil
}

// Writer returns a writer that splits the output of a source into lines and stores them. Its Write accepts everything
// and never fails; Dropped counts the lines that could not be stored. A Writer is not safe for concurrent use. Close
// stores a last line without an end of line.
func (c *Console) Writer(src Source) io.WriteCloser {
	return &lineWriter{shelf: c.shelf, journal: c.shelf.journal(src.App), encoder: newLineEncoder(src)}
}

// Read returns the lines that q selects in the order of their arrival. The sequence ends with an error if reading fails
// or, unless q follows, if ctx ends.
func (c *Console) Read(ctx context.Context, q Query) iter.Seq2[Line, error] {
	return read(ctx, c.shelf, selection[Line]{
		app: q.App, tail: q.Tail, since: q.Since, follow: q.Follow, decode: decodeLine,
		match: func(l Line) bool {
			return !l.At.Before(q.Since) && same(q.Revision, l.Revision) && same(q.Replica, l.Replica) && same(q.Container, l.Container)
		},
	})
}

// Forget removes all lines of an app. Readers that follow it end, and what its writers still receive is dropped.
func (c *Console) Forget(app resource.ID) error { return c.shelf.forget(app) }

// Dropped returns the number of lines that could not be stored since Open.
func (c *Console) Dropped() int64 { return c.shelf.dropped.Load() }

// Close ends all readers that follow. Later writes are dropped.
func (c *Console) Close() error { return c.shelf.close() }

func same(want, got string) bool { return want == "" || strings.EqualFold(want, got) }

// batchBytes is how much a lineWriter collects before it appends. Nearly every Write makes one append.
const batchBytes = 1 << 20

type lineWriter struct {
	shelf   *shelf
	journal *journal
	encoder lineEncoder
	line    []byte // the line whose end has not come yet
	batch   []byte
	lines   int       // in batch
	first   time.Time // of the batch
	last    time.Time
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
	if w.lines == 0 {
		w.first = at
	}
	w.last = at
	w.lines++
	if len(w.batch) >= batchBytes {
		w.flush()
	}
}

func (w *lineWriter) flush() {
	if w.lines == 0 {
		return
	}
	w.shelf.append(w.journal, segment.Block{Records: w.lines, First: w.first, Last: w.last, Payload: w.batch})
	w.batch, w.lines = w.batch[:0], 0
}

// cutPoint returns where to cut text so that the first part has at most limit bytes and no character is split.
func cutPoint(text []byte, limit int) int {
	for n := limit; n > limit-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			return n
		}
	}
	return limit // not UTF-8
}
