package logs

import (
	"bytes"
	"context"
	"iter"
	"time"

	"penstock/internal/resource"
	"penstock/internal/segment"
)

// selection says what to read from one journal.
type selection[T any] struct {
	app    resource.ID
	tail   int // 0: all; negative: no existing records
	since  time.Time
	follow bool
	decode func(record []byte, app resource.ID) (T, error)
	match  func(T) bool
}

// read yields what sel selects. It holds no lock while it reads or yields. A segment that is removed meanwhile is read
// to its end if reading it has begun, and skipped if not.
func read[T any](ctx context.Context, s *shelf, sel selection[T]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		j := s.find(sel.app)
		if j == nil {
			if !sel.follow {
				return
			}
			j = s.journal(sel.app)
		}
		r := reader[T]{Reader: segment.NewReader(j.dir, s.schema, oldSegments(s.schema)), sel: sel}
		defer r.Close()
		defer func() {
			if n := r.Damaged(); n > 0 {
				s.log.Warn("parts of a log are damaged and were passed over", "dir", j.dir, "parts", n)
			}
		}()
		err := r.read(ctx, j, yield)
		if err != nil && (!sel.follow || ctx.Err() == nil) {
			var none T
			yield(none, err)
		}
	}
}

// reader reads the records of one journal.
type reader[T any] struct {
	*segment.Reader
	sel     selection[T]
	meta    string // of the last segment that was read
	app     resource.ID
	stopped bool // yield has returned false
}

// position is a place between two records: offset is the start of a block in a segment, and skip is the number of
// selected records in it to skip.
type position struct {
	name   string
	offset int64
	skip   int
}

func (r *reader[T]) read(ctx context.Context, j *journal, yield func(T, error) bool) error {
	files, changed, closed := j.State()
	at, err := r.start(ctx, files)
	if err != nil {
		return err
	}
	for {
		for _, f := range files {
			if f.Name < at.name {
				continue
			}
			if f.Name > at.name {
				at = position{name: f.Name}
			}
			at.offset, err = r.Scan(ctx, f, at.offset, false, func(b segment.Found) bool {
				return r.records(b, func(v T) bool {
					if at.skip > 0 {
						at.skip--
						return true
					}
					r.stopped = !yield(v, nil)
					return !r.stopped
				})
			})
			if err != nil || r.stopped {
				return err
			}
		}
		if !r.sel.follow || closed {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		files, changed, closed = j.State()
	}
}

// records calls found for the selected records of a block until found returns false. It skips lines that are not
// records.
func (r *reader[T]) records(b segment.Found, found func(T) bool) bool {
	if !b.Last.IsZero() && b.Last.Before(r.sel.since) {
		return true
	}
	if b.Meta != r.meta || r.app == (resource.ID{}) {
		r.meta, r.app = b.Meta, r.sel.app
		if id, err := resource.ParseID(b.Meta); err == nil {
			r.app = id // with the spelling of the app's creator
		}
	}
	for line := range bytes.Lines(b.Payload) {
		v, err := r.sel.decode(line, r.app)
		if err == nil && r.sel.match(v) && !found(v) {
			return false
		}
	}
	return true
}

// start finds where the newest sel.tail records begin.
func (r *reader[T]) start(ctx context.Context, files []segment.File) (position, error) {
	if r.sel.tail == 0 || len(files) == 0 {
		return position{}, nil
	}
	if r.sel.tail < 0 {
		last := files[len(files)-1]
		return position{name: last.Name, offset: last.Size}, nil
	}
	for i, missing := len(files)-1, r.sel.tail; i >= 0; i-- {
		blocks, n, err := r.newest(ctx, files[i], missing)
		if err != nil {
			return position{}, err
		}
		if n < missing {
			missing -= n
			continue
		}
		for _, b := range blocks {
			// n is the number of records after this block.
			if n -= b.records; n < missing {
				return position{files[i].Name, b.offset, b.records - (missing - n)}, nil
			}
		}
	}
	return position{}, nil
}

// counted says how many records of a block are selected.
type counted struct {
	offset  int64
	records int
}

// newest finds the last blocks of a segment that contain n selected records, or all blocks if there are fewer, and
// returns the number of records in them. It looks at the end of the segment first, and at four times as much each time
// that is not enough.
func (r *reader[T]) newest(ctx context.Context, f segment.File, n int) (blocks []counted, records int, err error) {
	for part := int64(64 << 10); ; part *= 4 {
		from := max(0, f.Size-part)
		blocks, records = blocks[:0], 0
		_, err := r.Scan(ctx, f, from, true, func(b segment.Found) bool {
			c := counted{offset: b.Offset}
			r.records(b, func(T) bool { c.records++; return true })
			if c.records > 0 {
				blocks = append(blocks, c)
				records += c.records
			}
			return true
		})
		if err != nil || from == 0 || records >= n {
			return blocks, records, err
		}
	}
}
