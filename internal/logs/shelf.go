package logs

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/resource"
	"penstock/internal/segment"
)

// shelf is a folder of journals. It enforces their limits.
type shelf struct {
	dir     string
	schema  string
	limits  Limits
	log     *slog.Logger
	dropped atomic.Int64
	total   atomic.Int64 // bytes on the disk
	warned  atomic.Int64 // when dropped lines were last reported, in Unix nanoseconds

	trimming sync.Mutex // only one trim of the whole log runs at a time

	mu       sync.Mutex
	journals map[string]*journal  // by folder name
	ended    map[string]time.Time // by folder name: when the app ended
	closed   bool
}

// gone marks folders that are being removed. A crash may leave some.
const gone = ".gone-"

func openShelf(dir, schema string, lim Limits, log *slog.Logger) (*shelf, error) {
	s := &shelf{dir: dir, schema: schema, limits: lim.withDefaults(), log: log, journals: map[string]*journal{}, ended: map[string]time.Time{}}
	if err := s.limits.validate(); err != nil {
		return nil, err
	}
	if err := s.scan(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	s.trim(nil)
	return s, nil
}

// scan finds the journals of earlier runs.
func (s *shelf) scan() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	folders, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		path := filepath.Join(s.dir, folder.Name())
		switch {
		case strings.HasPrefix(folder.Name(), gone):
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		case folder.IsDir():
			f, err := segment.Open(path, s.config())
			if err != nil {
				return err
			}
			j := &journal{Folder: f, dir: path}
			// Segments that this version cannot read are kept until their space is needed.
			for _, err := range j.PassedOver() {
				s.log.Warn("log segment is passed over", "err", err)
			}
			_, bytes := j.Extent()
			s.total.Add(bytes)
			s.journals[folder.Name()] = j
		}
	}
	return nil
}

// folderName returns a valid file name that people can recognize and that is unique for every app.
func folderName(app resource.ID) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return -1
	}, strings.ToLower(app.Base()))
	return fmt.Sprintf("%.40s-%.8x", plain, sha256.Sum256([]byte(app.Key())))
}

func (s *shelf) config() segment.Config {
	return segment.Config{Schema: s.schema, SegmentBytes: s.limits.SegmentBytes, Old: oldSegments(s.schema)}
}

// journal is the log of one app.
type journal struct {
	*segment.Folder
	dir string
}

// journal returns the journal of an app for writing or following. It does not create a file. The journal of an app that
// has ended is closed.
func (s *shelf) journal(app resource.ID) *journal {
	name := folderName(app)
	s.mu.Lock()
	defer s.mu.Unlock()
	j, ok := s.journals[name]
	if !ok {
		dir := filepath.Join(s.dir, name)
		j = &journal{Folder: segment.New(dir, s.config()), dir: dir}
		_, ended := s.ended[name]
		if s.closed || ended {
			_ = j.Close() // no file is open
		}
		if !ended {
			s.journals[name] = j
		}
	}
	j.SetMeta(app.String())
	return j
}

// find returns the journal of an app, or nil.
func (s *shelf) find(app resource.ID) *journal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journals[folderName(app)]
}

// append adds a block to a journal, or counts its records as dropped. It enforces the limits.
func (s *shelf) append(j *journal, b segment.Block) {
	grown, err := j.Append(b)
	s.total.Add(grown)
	if err != nil {
		s.drop(b.Records, err)
		return
	}
	for {
		if _, bytes := j.Extent(); bytes <= s.limits.AppBytes || !s.free(j) {
			break
		}
	}
	if s.total.Load() > s.limits.TotalBytes {
		s.trim(j)
	}
}

// trim removes the oldest segments of journals until the total is within its limit. It prefers journals with more than
// one segment, then journals other than the one just written, then the largest.
func (s *shelf) trim(written *journal) {
	s.trimming.Lock()
	defer s.trimming.Unlock()
	type candidate struct {
		*journal
		bytes        int64
		more, others bool
	}
	for s.total.Load() > s.limits.TotalBytes {
		s.mu.Lock()
		all := slices.Collect(maps.Values(s.journals))
		s.mu.Unlock()
		var first candidate
		for _, j := range all {
			segments, bytes := j.Extent()
			if bytes == 0 {
				continue
			}
			c := candidate{j, bytes, segments > 1, j != written}
			if first.journal == nil || cmp.Or(ranks(c.more, first.more), ranks(c.others, first.others), cmp.Compare(c.bytes, first.bytes)) > 0 {
				first = c
			}
		}
		if first.journal == nil || !s.free(first.journal) {
			return
		}
	}
}

// ranks compares two booleans like cmp.Compare; true is larger than false.
func ranks(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// drop counts records that could not be stored. With a full disk many appends fail per second, so it logs at most once
// a minute.
func (s *shelf) drop(count int, err error) {
	dropped := s.dropped.Add(int64(count))
	if errors.Is(err, os.ErrClosed) {
		return // the app was deleted or the log closed, so nobody will look for the line
	}
	now := time.Now()
	if last := s.warned.Load(); now.Sub(time.Unix(0, last)) < time.Minute || !s.warned.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	s.log.Warn("log lines are dropped; the next ones are tried again", "dir", s.dir, "dropped", dropped, "err", err)
}

// free removes the oldest segment of a journal and reports whether that freed space.
func (s *shelf) free(j *journal) bool {
	freed, err := j.DropOldest()
	s.total.Add(-freed)
	if err != nil {
		s.log.Warn("log is over its limit", "dir", j.dir, "err", err)
	}
	return freed > 0
}

func (s *shelf) forget(app resource.ID) error {
	trash, err := s.unlink(app)
	if err == nil && trash != "" {
		err = os.RemoveAll(trash)
	}
	if err != nil {
		return fmt.Errorf("forget log of app %q: %w", app.Base(), err)
	}
	return nil
}

// endedFor is how long records of an ended app can still arrive. They are dropped.
const endedFor = time.Hour

// end forgets an app that has been deleted. Later appends are dropped until begin is called.
func (s *shelf) end(app resource.ID) error {
	now := time.Now()
	s.mu.Lock()
	maps.DeleteFunc(s.ended, func(_ string, at time.Time) bool { return now.Sub(at) > endedFor })
	s.ended[folderName(app)] = now
	s.mu.Unlock()
	return s.forget(app)
}

// begin allows appends for an app again after end.
func (s *shelf) begin(app resource.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ended, folderName(app))
}

// unlink removes an app's journal from the shelf, moves its folder away, and returns the folder to remove.
func (s *shelf) unlink(app resource.ID) (trash string, err error) {
	name := folderName(app)
	s.mu.Lock()
	defer s.mu.Unlock() // held during the rename, because a new journal of this app must not find the old folder
	j, ok := s.journals[name]
	if !ok {
		return "", nil
	}
	err = j.Close()
	_, bytes := j.Extent()
	s.total.Add(-bytes)
	delete(s.journals, name)
	holder, makeErr := os.MkdirTemp(s.dir, gone+"*")
	if err := errors.Join(err, makeErr); err != nil {
		return "", err
	}
	if err := os.Rename(j.dir, filepath.Join(holder, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return holder, nil
}

func (s *shelf) close() error {
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Values(s.journals))
	s.mu.Unlock()
	var errs []error
	for _, j := range all {
		errs = append(errs, j.Close())
	}
	return errors.Join(errs...)
}
