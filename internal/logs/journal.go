package logs

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"sync"

	"penstock/internal/resource"
)

// journal is the log of one app: segments of which the last is written.
type journal struct {
	dir    string
	format string

	// writing puts appends in a row: it is the queue to one file, so it is held over the write. Readers never take it.
	writing sync.Mutex
	file    *os.File // the last segment, once something has been appended to it
	sealed  bool     // the last segment must not grow any more

	mu       sync.Mutex
	segments []segment     // oldest first
	changed  chan struct{} // closed at the next change; nil while nobody waits for one
	ended    bool          // forgotten or closed
}

// segment is one file, of which size bytes are whole lines.
type segment struct {
	number int
	size   int64
}

// state returns what there is to read now, and a channel that is closed when there is more.
func (j *journal) state() (segments []segment, changed <-chan struct{}, ended bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.changed == nil {
		j.changed = make(chan struct{})
	}
	return slices.Clone(j.segments), j.changed, j.ended
}

// update changes what readers see and wakes them.
func (j *journal) update(change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change()
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
}

// append adds whole records and returns how much the journal grew on the disk. app is for the header of a new segment.
func (j *journal) append(app resource.ID, records []byte, segmentBytes int64) (grown int64, err error) {
	j.writing.Lock()
	defer j.writing.Unlock()
	segments, ended := j.peek()
	if ended {
		return 0, os.ErrClosed
	}
	last := segment{}
	if len(segments) > 0 {
		last = segments[len(segments)-1]
	}
	if last.size+int64(len(records)) > segmentBytes {
		j.sealed = true
	}
	if last.number == 0 || j.sealed {
		var b bytes.Buffer
		if err := encodeHeader(&b, j.format, app); err != nil {
			return 0, err
		}
		if err := j.begin(last.number + 1); err != nil {
			return 0, err
		}
		records = append(b.Bytes(), records...)
		last = segment{number: last.number + 1}
		if err := j.write(records, last); err != nil {
			err = errors.Join(err, j.file.Close(), os.Remove(j.file.Name()))
			j.file, j.sealed = nil, true
			return 0, err
		}
		j.update(func() {
			j.segments = slices.DeleteFunc(slices.Clone(j.segments), func(s segment) bool { return s.size == 0 })
			j.segments = append(j.segments, segment{last.number, int64(len(records))})
		})
		return int64(len(records)), nil
	}
	if j.file == nil {
		if j.file, err = os.OpenFile(segmentPath(j.dir, last.number), os.O_WRONLY|os.O_APPEND, 0); err != nil {
			j.sealed = true
			return 0, err
		}
	}
	if err := j.write(records, last); err != nil {
		return 0, err
	}
	j.update(func() { j.segments[len(j.segments)-1].size += int64(len(records)) })
	return int64(len(records)), nil
}

// peek is state for the writer, who alone changes the segments and waits for nothing.
func (j *journal) peek() (segments []segment, ended bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.segments, j.ended
}

// begin makes the file of a new segment; the old one grows no more.
func (j *journal) begin(number int) error {
	if j.file != nil {
		_ = j.file.Close() // nothing is buffered in it
		j.file = nil
	}
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(segmentPath(j.dir, number), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	j.file, j.sealed = f, false
	return nil
}

// write appends to the file of a segment or leaves it as it was.
func (j *journal) write(records []byte, to segment) error {
	_, err := j.file.Write(records)
	if err == nil {
		return nil
	}
	if undo := j.file.Truncate(to.size); undo != nil {
		j.sealed = true // what is after the last whole line stays unread
		return errors.Join(err, undo)
	}
	return err
}

// dropOldest removes the oldest segment, be it the one that is written, and returns how much smaller the journal is.
func (j *journal) dropOldest() (freed int64, err error) {
	j.writing.Lock()
	defer j.writing.Unlock()
	segments, ended := j.peek()
	if ended || len(segments) == 0 {
		return 0, nil
	}
	oldest := segments[0]
	if len(segments) == 1 {
		// The next segment must have a higher number: readers know where they are by it.
		if j.file != nil {
			_ = j.file.Close()
			j.file = nil
		}
		j.sealed = true
	}
	if err := os.Remove(segmentPath(j.dir, oldest.number)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	j.update(func() {
		if len(j.segments) == 1 {
			j.segments[0].size = 0 // stays until the next one has come, for its number
		} else {
			j.segments = slices.Delete(slices.Clone(j.segments), 0, 1)
		}
	})
	return oldest.size, nil
}

// end stops appends and the readers that follow.
func (j *journal) end() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	var err error
	if j.file != nil {
		err = j.file.Close()
		j.file = nil
	}
	j.update(func() { j.ended = true })
	return err
}

// extent is how many segments the journal has and what they take on the disk.
func (j *journal) extent() (segments int, bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.segments {
		bytes += s.size
	}
	return len(j.segments), bytes
}
