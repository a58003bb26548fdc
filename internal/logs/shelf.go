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
)

// shelf is a folder of journals and keeps their bounds.
type shelf struct {
	dir     string
	format  string
	limits  Limits
	log     *slog.Logger
	dropped atomic.Int64
	total   atomic.Int64 // bytes on the disk
	warned  atomic.Int64 // when somebody was last told of dropped lines, in Unix nanoseconds

	trimming sync.Mutex // one trim of the whole at a time

	mu       sync.Mutex
	journals map[string]*journal // by the name of their folder
	closed   bool
}

// gone marks folders that are on their way out; a crash may leave some.
const gone = ".gone-"

func openShelf(dir, format string, lim Limits, log *slog.Logger) (*shelf, error) {
	s := &shelf{dir: dir, format: format, limits: lim.withDefaults(), log: log, journals: map[string]*journal{}}
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
			j := &journal{dir: path, format: s.format}
			if err := s.scanJournal(j); err != nil {
				return err
			}
			s.journals[folder.Name()] = j
		}
	}
	return nil
}

func (s *shelf) scanJournal(j *journal) error {
	files, err := os.ReadDir(j.dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		number, ok := segmentNumber(file.Name())
		if !ok || !file.Type().IsRegular() {
			continue
		}
		path := segmentPath(j.dir, number)
		// A crash of Penstock tears the newest segment at most, a loss of power any.
		size, err := repair(path)
		if err != nil {
			return err
		}
		if size == 0 {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		j.segments = append(j.segments, segment{number, size})
		s.total.Add(size)
	}
	slices.SortFunc(j.segments, func(a, b segment) int { return a.number - b.number })
	for _, seg := range j.segments {
		// What this version cannot read is kept until its room is needed, and nothing is added to it.
		err := checkHeader(segmentPath(j.dir, seg.number), s.format)
		if j.sealed = err != nil; j.sealed {
			s.log.Warn("log segment is passed over", "file", segmentPath(j.dir, seg.number), "err", err)
		}
	}
	return nil
}

// folderName is a name that the file system takes, for people to find and distinct for every app.
func folderName(app resource.ID) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return -1
	}, strings.ToLower(app.Base()))
	return fmt.Sprintf("%.40s-%.8x", plain, sha256.Sum256([]byte(app.Key())))
}

// journal returns the journal of an app for writing or following; it makes no file yet.
func (s *shelf) journal(app resource.ID) *journal {
	name := folderName(app)
	s.mu.Lock()
	defer s.mu.Unlock()
	j, ok := s.journals[name]
	if !ok {
		j = &journal{dir: filepath.Join(s.dir, name), format: s.format, ended: s.closed}
		s.journals[name] = j
	}
	return j
}

// find returns the journal of an app, or nil.
func (s *shelf) find(app resource.ID) *journal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journals[folderName(app)]
}

// append adds count whole records to a journal, or counts them as dropped, and keeps the bounds.
func (s *shelf) append(j *journal, app resource.ID, records []byte, count int) {
	grown, err := j.append(app, records, s.limits.SegmentBytes)
	s.total.Add(grown)
	if err != nil {
		s.drop(count, err)
		return
	}
	for {
		if _, bytes := j.extent(); bytes <= s.limits.AppBytes || !s.free(j) {
			break
		}
	}
	if s.total.Load() > s.limits.TotalBytes {
		s.trim(j)
	}
}

// trim lets journals give up their oldest segments until the whole is within its limit: first the largest of those that
// have another one, then those that were not written just now.
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
			segments, bytes := j.extent()
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

// ranks compares as cmp.Compare does; true is the larger.
func ranks(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// drop counts records that could not be kept. A full disk fails many appends a second; one word a minute is enough.
func (s *shelf) drop(count int, err error) {
	dropped := s.dropped.Add(int64(count))
	if errors.Is(err, os.ErrClosed) {
		return // the app was deleted or the log closed: nobody will look for the line
	}
	now := time.Now()
	if last := s.warned.Load(); now.Sub(time.Unix(0, last)) < time.Minute || !s.warned.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	s.log.Warn("log lines are dropped; the next ones are tried again", "dir", s.dir, "dropped", dropped, "err", err)
}

// free removes the oldest segment of a journal and says whether that freed anything.
func (s *shelf) free(j *journal) bool {
	freed, err := j.dropOldest()
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

// unlink takes an app's journal off the shelf and its folder out of the way, and returns what is to be removed.
func (s *shelf) unlink(app resource.ID) (trash string, err error) {
	name := folderName(app)
	s.mu.Lock()
	defer s.mu.Unlock() // over the rename: a new journal of this app must find no folder of the old one
	j, ok := s.journals[name]
	if !ok {
		return "", nil
	}
	err = j.end()
	_, bytes := j.extent()
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
		errs = append(errs, j.end())
	}
	return errors.Join(errs...)
}
