package accesslog

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"penstock/internal/segment"
)

// Query selects records of one app. Empty names match all.
type Query struct {
	App      string // resource ID
	Revision string // name, not ID
	Replica  string
	// Tail is how many of the newest records to return first. 0 means all, -1 means none.
	Tail   int
	Since  time.Time    // requests that ended earlier are left out; zero means no limit
	Follow bool         // continue with new records until the context ends
	Log    *slog.Logger // gets a warning at the end if something was damaged; nil means no warning
}

func (q *Query) match(r *Record) bool {
	return strings.EqualFold(r.App, q.App) &&
		(q.Revision == "" || strings.EqualFold(r.Revision[strings.LastIndexByte(r.Revision, '/')+1:], q.Revision)) &&
		(q.Replica == "" || strings.EqualFold(r.Replica, q.Replica)) &&
		(q.Since.IsZero() || !r.End().Before(q.Since))
}

// lookEvery is how often a reader that follows looks for new blocks. Together with flushAfter, a record is seen within
// half a second.
const lookEvery = 200 * time.Millisecond

// Read returns the records in dir that q selects, in the order in which the requests ended. New records that are found
// together are sorted in that order. Damaged records are skipped. The sequence ends with an error if reading fails or,
// unless q follows, if ctx ends.
func Read(ctx context.Context, dir string, q Query) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r := reader{Reader: segment.NewReader(dir, schema, oldSegments), dir: dir, query: q, offsets: map[string]int64{}}
		defer r.Close()
		defer func() {
			if n := r.Damaged(); n > 0 && q.Log != nil {
				q.Log.Warn("parts of the access records are damaged and were passed over", "dir", dir, "parts", n)
			}
		}()
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

// reader remembers how far it has read each segment.
type reader struct {
	*segment.Reader
	dir     string
	query   Query
	offsets map[string]int64 // by segment name
}

// existing reads existing records, the newest segments first, until there are enough.
func (r *reader) existing(ctx context.Context) ([]Record, error) {
	all, err := segment.List(r.dir, oldSegments)
	if err != nil {
		return nil, err
	}
	enough := r.query.Tail
	if enough <= 0 {
		enough = math.MaxInt
	}
	var found []Record
	for _, s := range slices.Backward(all) {
		if r.query.Tail < 0 || len(found) >= enough || s.Modified.Before(r.query.Since) {
			if r.offsets[s.Name], err = r.End(ctx, s); err != nil {
				return nil, err
			}
			continue
		}
		// Keep only the newest records while reading this segment, because it may have a hundred thousand.
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

// newest returns the last n records.
func newest(all []Record, n int) []Record {
	if len(all) <= n {
		return all
	}
	slices.SortStableFunc(all, func(a, b Record) int { return a.End().Compare(b.End()) })
	return append(all[:0], all[len(all)-n:]...)
}

// added reads the records that were written since the last call.
func (r *reader) added(ctx context.Context) (found []Record, err error) {
	all, err := segment.List(r.dir, oldSegments)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Size <= r.offsets[s.Name] {
			continue
		}
		if err := r.read(ctx, s, func(rec *Record) { found = append(found, *rec) }); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// read reads the new complete blocks of a segment.
func (r *reader) read(ctx context.Context, s segment.File, found func(*Record)) (err error) {
	r.offsets[s.Name], err = r.Scan(ctx, s, r.offsets[s.Name], false, func(b segment.Found) bool {
		if !r.query.Since.IsZero() && b.Last.Before(r.query.Since) {
			return true
		}
		// A block with a valid checksum and invalid records was written by an unknown version.
		_ = records(&b.Block, func(rec *Record) bool {
			if r.query.match(rec) {
				rec.Ingress = "ingress-" + s.Writer
				found(rec)
			}
			return true
		})
		return true
	})
	return err
}
