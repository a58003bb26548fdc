package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// Query selects records of one app. Empty names match all.
type Query struct {
	App      string // resource ID
	Revision string // name, not ID
	Replica  string
	// Tail is how many of the newest records to begin with; 0 is all that there are, -1 none.
	Tail   int
	Since  time.Time // requests that ended before it are left out; zero is none
	Follow bool      // go on with new records until the context ends
}

func (q *Query) match(r *Record) bool {
	return strings.EqualFold(r.App, q.App) &&
		(q.Revision == "" || strings.EqualFold(r.Revision[strings.LastIndexByte(r.Revision, '/')+1:], q.Revision)) &&
		(q.Replica == "" || strings.EqualFold(r.Replica, q.Replica)) &&
		(q.Since.IsZero() || !r.End().Before(q.Since))
}

// lookEvery is how often a reader that follows looks for new blocks. With flushAfter a record is seen within half a
// second.
const lookEvery = 200 * time.Millisecond

// Read returns the records in dir that q selects, in the order in which the requests ended; of records that come as
// they are written, those that become known at once are put in that order. What is damaged is passed over. The sequence
// ends with an error when reading fails or, unless it follows, when ctx ends.
func Read(ctx context.Context, dir string, q Query) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r := reader{dir: dir, query: q, offsets: map[string]int64{}}
		batch, err := r.existing(ctx)
		for {
			if err != nil {
				if !q.Follow || ctx.Err() == nil {
					yield(Record{}, fmt.Errorf("read access records: %w", err))
				}
				return
			}
			slices.SortStableFunc(batch, func(a, b Record) int { return a.End().Compare(b.End()) })
			for _, rec := range batch {
				if !yield(rec, nil) {
					return
				}
			}
			if !q.Follow {
				return
			}
			select {
			case <-time.After(lookEvery):
			case <-ctx.Done():
				return
			}
			batch, err = r.added(ctx)
		}
	}
}

// reader knows how far it has read each segment.
type reader struct {
	dir     string
	query   Query
	offsets map[string]int64 // by path
	buf     []byte
}

// existing reads what there is, the newest segments first, until there are enough records.
func (r *reader) existing(ctx context.Context) ([]Record, error) {
	all, err := segments(r.dir)
	if err != nil {
		return nil, err
	}
	enough := r.query.Tail
	if enough <= 0 {
		enough = math.MaxInt
	}
	var found []Record
	for _, s := range slices.Backward(all) {
		if r.query.Tail < 0 || len(found) >= enough || s.written.Before(r.query.Since) {
			if err := r.skip(s); err != nil {
				return nil, err
			}
			continue
		}
		// Of this segment no more than the newest are kept while it is read, as there may be a hundred thousand.
		var here []Record
		err := r.read(ctx, s, func(rec *Record) {
			here = append(here, *rec)
			if len(here) >= 2*enough && enough < math.MaxInt/2 {
				here = newest(here, enough)
			}
		})
		if err != nil {
			return nil, err
		}
		found = append(found, here...)
	}
	return newest(found, enough), nil
}

// newest keeps the last n.
func newest(all []Record, n int) []Record {
	if len(all) <= n {
		return all
	}
	slices.SortStableFunc(all, func(a, b Record) int { return a.End().Compare(b.End()) })
	return append(all[:0], all[len(all)-n:]...)
}

// added reads what has been written since.
func (r *reader) added(ctx context.Context) (found []Record, err error) {
	all, err := segments(r.dir)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.size <= r.offsets[s.path] {
			continue
		}
		if err := r.read(ctx, s, func(rec *Record) { found = append(found, *rec) }); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// skip goes to the end of the last whole block, from head to head.
func (r *reader) skip(s segment) error {
	f, err := os.Open(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, max(headSize, len(segmentHead)))
	if n, err := f.ReadAt(head[:len(segmentHead)], 0); n < len(segmentHead) && errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	if string(head[:len(segmentHead)]) != segmentHead {
		r.offsets[s.path] = math.MaxInt64
		return nil
	}
	at := int64(len(segmentHead))
	for {
		r.offsets[s.path] = at
		if _, err := f.ReadAt(head[:headSize], at); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		size, err := blockLength(head)
		if err != nil {
			r.offsets[s.path] = math.MaxInt64
			return nil
		}
		if at += int64(size); at > s.size {
			return nil
		}
	}
}

// maxSegment bounds what is read of a segment at once; writers close theirs much earlier.
const maxSegment = 64 << 20

// read reads the whole blocks of a segment behind those that it knows.
func (r *reader) read(ctx context.Context, s segment, found func(*Record)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f, err := os.Open(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // its room was needed
	}
	if err != nil {
		return err
	}
	defer f.Close()
	from := r.offsets[s.path]
	size := min(max(0, s.size-from), maxSegment)
	r.buf = slices.Grow(r.buf[:0], int(size))[:size]
	n, err := f.ReadAt(r.buf, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	p := r.buf[:n]
	if from == 0 {
		if len(p) < len(segmentHead) {
			return nil
		}
		if string(p[:len(segmentHead)]) != segmentHead {
			r.offsets[s.path] = math.MaxInt64 // of a version that this one does not know
			return nil
		}
		p = p[len(segmentHead):]
		from = int64(len(segmentHead))
	}
	for len(p) > 0 {
		b, rest, err := readBlock(p)
		if errors.Is(err, errTorn) {
			break
		}
		if err != nil {
			from = math.MaxInt64 // where the next block begins cannot be told
			break
		}
		from += int64(len(p) - len(rest))
		p = rest
		if b.last < r.query.Since.UnixNano() && !r.query.Since.IsZero() {
			continue
		}
		// A block whose sum is right and whose records are not was made by a version that this one does not know.
		_ = b.records(func(rec *Record) bool {
			if r.query.match(rec) {
				rec.Ingress = s.ingress
				found(rec)
			}
			return true
		})
	}
	r.offsets[s.path] = from
	return nil
}
