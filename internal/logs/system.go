package logs

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"time"

	"penstock/internal/resource"
)

// EventQuery selects events of one app. An empty name matches all; Tail, Since and Follow are those of Query.
type EventQuery struct {
	App      resource.ID
	Revision string
	Tail     int
	Since    time.Time
	Follow   bool
}

// System keeps what the platform did, and why.
type System struct{ shelf *shelf }

// OpenSystem opens the log in dir, makes the folder when it is not there, and repairs what a crash has torn.
func OpenSystem(dir string, lim Limits, log *slog.Logger) (*System, error) {
	s, err := openShelf(dir, systemFormat, lim, log)
	if err != nil {
		return nil, err
	}
	return &System{s}, nil
}

// Append keeps an event; one without a time gets the present. It never fails: what could not be kept is counted by
// Dropped.
func (s *System) Append(e resource.Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	var b bytes.Buffer
	if err := encodeEvent(&b, e); err != nil {
		s.shelf.drop(1, err)
		return
	}
	s.shelf.append(s.shelf.journal(e.App), e.App, b.Bytes(), 1)
}

// Read returns the events that q selects in the order of their arrival. The sequence ends with an error when reading
// fails or, unless it follows, when ctx ends.
func (s *System) Read(ctx context.Context, q EventQuery) iter.Seq2[resource.Event, error] {
	return read(ctx, s.shelf, selection[resource.Event]{
		app: q.App, tail: q.Tail, since: q.Since, follow: q.Follow, decode: decodeEvent,
		match: func(e resource.Event) bool { return !e.At.Before(q.Since) && same(q.Revision, e.Revision) },
	})
}

// Forget removes all events of an app. Readers that follow it come to their end.
func (s *System) Forget(app resource.ID) error { return s.shelf.forget(app) }

// Dropped counts the events that could not be kept since Open.
func (s *System) Dropped() int64 { return s.shelf.dropped.Load() }

// Close ends all readers that follow. What is appended later is dropped.
func (s *System) Close() error { return s.shelf.close() }
