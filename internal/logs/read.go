package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"time"

	"penstock/internal/resource"
)

// selection says what to read of one journal and how.
type selection[T any] struct {
	app    resource.ID
	tail   int // 0: all; negative: nothing of what is there
	since  time.Time
	follow bool
	decode func(record []byte, app resource.ID) (T, error)
	match  func(T) bool
}

// read yields what sel selects. It holds no lock while it reads or yields; a segment that goes meanwhile is read to its
// end if it was begun and is passed over if not.
func read[T any](ctx context.Context, s *shelf, sel selection[T]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		j := s.find(sel.app)
		if j == nil {
			if !sel.follow {
				return
			}
			j = s.journal(sel.app)
		}
		r := reader{journal: j}
		defer r.close()
		segments, changed, ended := j.state()
		at, err := start(ctx, &r, sel, segments)
		for ; err == nil; segments, changed, ended = j.state() {
			for _, seg := range segments {
				if seg.number < at.number {
					continue
				}
				if seg.number > at.number {
					at = position{number: seg.number}
				}
				err = scan(ctx, &r, sel, seg, at.offset, func(_ int64, v T) bool { return yield(v, nil) })
				if errors.Is(err, errEnough) {
					return
				}
				if err != nil {
					break
				}
				at.offset = max(at.offset, seg.size)
			}
			if err != nil || !sel.follow || ended {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
		if err != nil && (!sel.follow || ctx.Err() == nil) {
			yield(none, err)
		}
	}
}

// position is a place between two records: the next one is at offset of segment number.
type position struct {
	number int
	offset int64
}

// errEnough ends a scan whose consumer wants no more.
var errEnough = errors.New("enough")

// start finds where the newest sel.tail records begin.
func start[T any](ctx context.Context, r *reader, sel selection[T], segments []segment) (position, error) {
	if sel.tail == 0 || len(segments) == 0 {
		return position{}, nil
	}
	if sel.tail < 0 {
		last := segments[len(segments)-1]
		return position{last.number, last.size}, nil
	}
	for i, missing := len(segments)-1, sel.tail; i >= 0; i-- {
		offsets, err := newest(ctx, r, sel, segments[i], missing)
		if err != nil {
			return position{}, err
		}
		if len(offsets) >= missing {
			return position{segments[i].number, offsets[len(offsets)-missing]}, nil
		}
		missing -= len(offsets)
	}
	return position{}, nil
}

// newest finds where the matching records of a segment are, the last n of them at least when there are so many. It looks
// at the end first, and at four times as much each time that this was too little.
func newest[T any](ctx context.Context, r *reader, sel selection[T], seg segment, n int) (offsets []int64, err error) {
	for window := int64(64 << 10); ; window *= 4 {
		from := max(0, seg.size-window)
		offsets = offsets[:0]
		err := scan(ctx, r, sel, seg, from, func(offset int64, _ T) bool {
			offsets = append(offsets, offset)
			return true
		})
		if err != nil || from == 0 || len(offsets) >= n {
			return offsets, err
		}
	}
}

// scan calls found for each record of a segment that matches, from the first that begins at an offset or after it to the
// size that the segment had when the caller looked. What is no record is passed over.
func scan[T any](ctx context.Context, r *reader, sel selection[T], seg segment, from int64, found func(offset int64, v T) bool) error {
	if from >= seg.size {
		return nil
	}
	ok, err := r.open(seg, sel.since)
	if !ok || err != nil {
		return err
	}
	for offset, line := range r.lines(from, seg.size) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		v, err := sel.decode(line, r.app)
		if err != nil || !sel.match(v) {
			continue
		}
		if !found(offset, v) {
			return errEnough
		}
	}
	return r.err
}

// reader has one segment open at a time.
type reader struct {
	journal *journal
	number  int // of the open segment; 0: none
	file    *os.File
	app     resource.ID
	header  bool // the header was read and is good
	buf     *bufio.Reader
	long    []byte
	err     error
}

func (r *reader) close() {
	if r.file != nil {
		_ = r.file.Close()
	}
	r.file, r.number = nil, 0
}

// open makes seg the open segment. It is not ok when the segment has gone, is of another format, or was last written
// before since.
func (r *reader) open(seg segment, since time.Time) (ok bool, err error) {
	if r.number != seg.number {
		r.close()
		if r.file, err = os.Open(segmentPath(r.journal.dir, seg.number)); err != nil {
			r.file = nil
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return false, err
		}
		h, err := readHeader(r.file, r.journal.format)
		r.number, r.app, r.header = seg.number, h.App, err == nil
	}
	if !r.header {
		return false, nil
	}
	info, err := r.file.Stat()
	if err != nil {
		return false, err
	}
	// A file's time is taken from a coarser clock than that of its lines.
	return !info.ModTime().Add(time.Second).Before(since), nil
}

// lines yields the lines that begin between two offsets, with the offset of each; a line is valid until the next one.
func (r *reader) lines(from, to int64) iter.Seq2[int64, []byte] {
	return func(yield func(int64, []byte) bool) {
		r.err = nil
		// The byte before from tells whether a line begins there: what is up to the first end of line is left out.
		begin := max(0, from-1)
		section := io.NewSectionReader(r.file, begin, to-begin)
		if r.buf == nil {
			r.buf = bufio.NewReaderSize(section, 64<<10)
		} else {
			r.buf.Reset(section)
		}
		for offset := begin; ; {
			line, length, err := nextLine(r.buf, &r.long)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					r.err = err
				}
				return
			}
			if line != nil && offset >= from && !yield(offset, line) {
				return
			}
			offset += length
		}
	}
}

func checkHeader(path, format string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = readHeader(f, format)
	return err
}

func readHeader(f *os.File, format string) (header, error) {
	var long []byte
	line, _, err := nextLine(bufio.NewReader(io.NewSectionReader(f, 0, maxRecord)), &long)
	if err != nil {
		return header{}, err
	}
	return decodeHeader(line, format)
}

// nextLine reads up to the end of a line, with long as the buffer of lines that do not fit that of b. A line longer than
// maxRecord is nil, with its length; a last line without an end is io.EOF.
func nextLine(b *bufio.Reader, long *[]byte) (line []byte, length int64, err error) {
	*long = (*long)[:0]
	for {
		part, err := b.ReadSlice('\n')
		length += int64(len(part))
		if err == nil && len(*long) == 0 && length == int64(len(part)) {
			return bytes.TrimSuffix(part, []byte("\n")), length, nil
		}
		if length <= maxRecord {
			*long = append(*long, part...)
		}
		switch {
		case err == nil && length > maxRecord:
			return nil, length, nil
		case err == nil:
			return bytes.TrimSuffix(*long, []byte("\n")), length, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, length, err
		}
	}
}
