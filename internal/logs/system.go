package logs

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"time"

	"penstock/internal/resource"
	"penstock/internal/segment"
)

// EventQuery selects events of one app. Empty fields match all. Tail, Since and Follow work as in Query.
type EventQuery struct {
	App      resource.ID
	Revision string
	Tail     int
	Since    time.Time
	Follow   bool
}

// System keeps the platform's events.
type System struct{ shelf *shelf }

// OpenSystem opens the log in dir. It creates the folder if it does not exist, and repairs a segment that a crash has
// left incomplete.
func OpenSystem(dir string, lim Limits, log *slog.Logger) (*System, error) {
	s, err := openShelf(dir, systemSchema, lim, log)
	if err != nil {
		return nil, err
	}
	return &System{s}, nil
}

// Append stores an event. An event without a time gets the current time. Append never fails; Dropped counts the events
// that could not be stored.
func (s *System) Append(e resource.Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	var b bytes.Buffer
	if err := encodeEvent(&b, e); err != nil {
		s.shelf.drop(1, err)
		return
	}
	s.shelf.append(s.shelf.journal(e.App), segment.Block{Records: 1, First: e.At, Last: e.At, Payload: b.Bytes()})
}

// Read returns the events that q selects in the order of their arrival. The sequence ends with an error if reading
// fails or, unless q follows, if ctx ends.
func (s *System) Read(ctx context.Context, q EventQuery) iter.Seq2[resource.Event, error] {
	return read(ctx, s.shelf, selection[resource.Event]{
		app: q.App, tail: q.Tail, since: q.Since, follow: q.Follow, decode: decodeEvent,
		match: func(e resource.Event) bool { return !e.At.Before(q.Since) && same(q.Revision, e.Revision) },
	})
}

// Forget removes all events of an app that has been deleted. Later events of the app are dropped until Begin is called,
// because they are about the deleted app.
func (s *System) Forget(app resource.ID) error { return s.shelf.end(app) }

// Begin must be called when an app is created, so that its events are stored.
func (s *System) Begin(app resource.ID) { s.shelf.begin(app) }

// Dropped returns the number of events that could not be stored since Open.
func (s *System) Dropped() int64 { return s.shelf.dropped.Load() }

// Close ends all readers that follow. Later events are dropped.
func (s *System) Close() error { return s.shelf.close() }
