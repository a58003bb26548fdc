package segment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Config configures a folder of segments.
type Config struct {
	// Schema is the name and version of the payloads' format, such as "penstock-console 2".
	Schema string
	// Meta is additional text in the header of each segment, such as the owner of the records.
	Meta string
	// SegmentBytes is the size from which a segment is not extended. Default: 4 MiB.
	SegmentBytes int64
	// TotalBytes is the limit for all segments together. The oldest are removed first. 0 means no limit.
	TotalBytes int64
	// Age is how long a segment is kept after its last block. 0 means no limit.
	Age time.Duration
	// Keyed makes an append a no-op if its key is in the folder already. Open reads all keys and keeps them in memory.
	Keyed bool
	// Old is the previous format, or nil.
	Old *Old
}

// Folder appends blocks to the segments of a folder. It is safe for concurrent use.
type Folder struct {
	dir string
	cfg Config

	// writing is held during writes, so that they happen one after the other. Readers never take it.
	writing sync.Mutex
	file    *os.File // the last segment, if this Folder has appended to it
	salt    uint32
	sealed  bool // the last segment must not grow any more
	scratch []byte
	keys    map[string]struct{}

	mu      sync.Mutex
	files   []File // oldest first; after New only those of this writer
	meta    string
	changed chan struct{} // closed at the next change; nil if nobody waits
	closed  bool
}

// New returns a writer that begins its own segments, whatever other writers have left or are writing in dir. It does
// not create the folder or a file yet.
func New(dir string, cfg Config) *Folder {
	cfg.SegmentBytes = cmp.Or(cfg.SegmentBytes, 4<<20)
	return &Folder{dir: dir, cfg: cfg, sealed: true, meta: cfg.Meta, keys: map[string]struct{}{}}
}

// Open returns the only writer of dir. It finds existing segments, cuts off a block that a crash left incomplete, and
// continues the newest segment.
func Open(dir string, cfg Config) (*Folder, error) {
	f := New(dir, cfg)
	var err error
	if f.files, err = List(dir, cfg.Old); err != nil {
		return nil, err
	}
	if err := f.recover(); err != nil {
		return nil, fmt.Errorf("segments %s: %w", dir, err)
	}
	return f, nil
}

// recover prepares the newest segment for appends, removes segments that a crash left empty, and reads the keys.
func (f *Folder) recover() error {
	for _, file := range f.files {
		if file.Size == 0 {
			if err := os.Remove(filepath.Join(f.dir, file.Name)); err != nil {
				return err
			}
		}
	}
	f.files = slices.DeleteFunc(f.files, func(file File) bool { return file.Size == 0 })
	if f.cfg.Keyed {
		r := NewReader(f.dir, f.cfg.Schema, f.cfg.Old)
		defer r.Close()
		for _, file := range f.files {
			_, err := r.Scan(context.Background(), file, 0, false, func(b Found) bool {
				if b.Key != "" {
					f.keys[b.Key] = struct{}{}
				}
				return true
			})
			if err != nil {
				return err
			}
		}
	}
	if len(f.files) == 0 {
		return nil
	}
	last := &f.files[len(f.files)-1]
	if fileName.MatchString(last.Name) {
		size, salt, err := f.repair(*last)
		if err != nil {
			return err
		}
		f.sealed, f.salt = size == 0, salt
		if size > 0 {
			last.Size = size
		}
	}
	return nil
}

// repair cuts off what follows the last good block of a segment. size is 0 if the segment must not be extended because
// its header is incomplete or has another schema.
func (f *Folder) repair(file File) (size int64, salt uint32, err error) {
	p := make([]byte, startSize)
	o, err := os.OpenFile(filepath.Join(f.dir, file.Name), os.O_RDWR, 0)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	n, _ := o.ReadAt(p, 0)
	s, first, err := readStart(p[:n])
	if err != nil || s.schema != f.cfg.Schema {
		return 0, 0, nil
	}
	r := NewReader(f.dir, f.cfg.Schema, nil)
	defer r.Close()
	if size, err = r.End(context.Background(), file); err != nil {
		return 0, 0, err
	}
	size = max(size, int64(first))
	if size < file.Size {
		err = o.Truncate(size)
	}
	return size, s.salt, err
}

// SetMeta sets the meta of future segments. It is for callers that do not know it yet at Open.
func (f *Folder) SetMeta(meta string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meta = meta
}

// PassedOver returns an error for each segment that cannot be read because of its schema, its version or a damaged
// header. These segments are kept until their space is needed.
func (f *Folder) PassedOver() []error {
	files, _, _ := f.State()
	var errs []error
	for _, file := range files {
		o, err := open(f.dir, file.Name, f.cfg.Schema, f.cfg.Old)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(f.dir, file.Name), err))
			continue
		}
		_ = o.Close()
	}
	return errs
}

// ErrTooLarge is wrapped by the error of Append for a block that is too large for readers.
var ErrTooLarge = errors.New("block is too large")

// Append appends a block, or leaves the folder unchanged if it fails. It returns by how much the folder has grown. A
// block whose key exists already adds nothing.
func (f *Folder) Append(b Block) (grown int64, err error) {
	if len(b.Payload) > MaxPayload || len(b.Key) > MaxKey {
		return 0, fmt.Errorf("%w: want up to %d bytes and a key of %d, got %d and %d", ErrTooLarge, MaxPayload, MaxKey, len(b.Payload), len(b.Key))
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	files, closed := f.peek()
	if closed {
		return 0, os.ErrClosed
	}
	if _, repeated := f.keys[b.Key]; repeated {
		return 0, nil
	}
	last := File{}
	if len(files) > 0 {
		last = files[len(files)-1]
	}
	size := int64(headSize + len(b.Key) + len(b.Payload))
	if f.sealed || last.Size+size > f.cfg.SegmentBytes {
		grown, err = f.begin(last.Name, &b)
		// Trim will try again and report the error.
		_ = f.trim(time.Now())
	} else {
		grown, err = f.extend(last, &b)
	}
	if err == nil && f.cfg.Keyed && b.Key != "" {
		f.keys[b.Key] = struct{}{}
	}
	return grown, err
}

// extend appends to the last segment.
func (f *Folder) extend(last File, b *Block) (int64, error) {
	if f.file == nil {
		var err error
		if f.file, err = os.OpenFile(filepath.Join(f.dir, last.Name), os.O_WRONLY|os.O_APPEND, 0); err != nil {
			f.sealed = true
			return 0, err
		}
	}
	f.scratch = b.appendHead(f.scratch[:0], f.salt, last.Size)
	n, err := f.write(last.Size, b.Payload)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	f.update(func() {
		last := &f.files[len(f.files)-1]
		last.Size, last.Modified = last.Size+n, now
	})
	return n, nil
}

// begin creates a new segment with its first block. The new name sorts after the previous one even if the clock has
// gone back, because readers rely on the order of the names.
func (f *Folder) begin(before string, b *Block) (int64, error) {
	f.release()
	f.sealed = true
	f.salt = rand.Uint32()
	f.mu.Lock()
	meta := f.meta
	f.mu.Unlock()
	if n := startFixed + len(f.cfg.Schema) + len(meta); n > startSize {
		return 0, fmt.Errorf("segments %s: want a header of up to %d bytes, got %d", f.dir, startSize, n)
	}
	header := start{f.salt, f.cfg.Schema, meta}.bytes()
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return 0, err
	}
	now := time.Now().UTC()
	if t, err := time.Parse(nameStamp, before[:min(len(before), len(nameStamp))]); err == nil && !t.Before(now.Truncate(time.Microsecond)) {
		now = t.Add(time.Microsecond)
	}
	var name string
	for ; ; now = now.Add(time.Microsecond) {
		name = fmt.Sprintf("%s-%d%s", now.Format(nameStamp), os.Getpid(), suffix)
		var err error
		f.file, err = os.OpenFile(filepath.Join(f.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			f.file = nil
			return 0, err
		}
	}
	f.scratch = b.appendHead(append(f.scratch[:0], header...), f.salt, int64(len(header)))
	n, err := f.write(0, b.Payload)
	if err != nil {
		path := f.file.Name()
		f.release()
		return 0, errors.Join(err, os.Remove(path))
	}
	f.sealed = false
	f.update(func() {
		f.files = slices.DeleteFunc(slices.Clone(f.files), func(s File) bool { return s.Size == 0 })
		f.files = append(f.files, File{Name: name, Size: n, Modified: now})
	})
	return n, nil
}

// write appends scratch and the payload. If that fails it restores the size of the file.
func (f *Folder) write(size int64, payload []byte) (int64, error) {
	const copied = 16 << 10 // a larger payload is cheaper in its own write
	n := int64(len(f.scratch) + len(payload))
	var err error
	if len(payload) <= copied {
		f.scratch = append(f.scratch, payload...)
		_, err = f.file.Write(f.scratch)
	} else if _, err = f.file.Write(f.scratch); err == nil {
		_, err = f.file.Write(payload)
	}
	if err == nil {
		return n, nil
	}
	if undo := f.file.Truncate(size); undo != nil {
		f.sealed = true // readers skip what follows the last good block
		return 0, errors.Join(err, undo)
	}
	return 0, err
}

// release closes the file. It has no buffered data.
func (f *Folder) release() {
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
	}
}

// State returns the current segments with the size of their complete blocks, a channel that is closed when that
// changes, and whether the folder is closed.
func (f *Folder) State() (files []File, changed <-chan struct{}, closed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return slices.Clone(f.files), f.changed, f.closed
}

// peek is State without a channel, for the writer. Only the writer changes the segments.
func (f *Folder) peek() (files []File, closed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files, f.closed
}

// update changes what readers see, and wakes them.
func (f *Folder) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// Extent returns the number of segments and their size on disk.
func (f *Folder) Extent() (segments int, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.files {
		bytes += s.Size
	}
	return len(f.files), bytes
}

// DropOldest removes the oldest segment, even if it is the one being written, and returns how much space that freed.
func (f *Folder) DropOldest() (freed int64, err error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	files, closed := f.peek()
	if closed || len(files) == 0 {
		return 0, nil
	}
	oldest := files[0]
	if len(files) == 1 {
		f.release()
		f.sealed = true
	}
	if err := os.Remove(filepath.Join(f.dir, oldest.Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	f.update(func() {
		if len(f.files) == 1 {
			f.files[0].Size = 0 // kept until the next segment exists, because that one's name must sort after it
		} else {
			f.files = slices.Delete(slices.Clone(f.files), 0, 1)
		}
	})
	return oldest.Size, nil
}

// Trim removes the oldest segments of all writers until the limits are met, but not the segment that this Folder
// writes. Append does this when it begins a segment. Call Trim now and then to remove segments that are too old.
func (f *Folder) Trim(now time.Time) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.trim(now)
}

func (f *Folder) trim(now time.Time) error {
	if f.cfg.TotalBytes == 0 && f.cfg.Age == 0 {
		return nil
	}
	all, err := List(f.dir, f.cfg.Old)
	if err != nil {
		return err
	}
	own, total := "", f.cfg.SegmentBytes // the size of the segment being written, or about to be, counts in full because it may grow
	if f.file != nil {
		own = filepath.Base(f.file.Name())
	}
	for _, s := range all {
		total += s.Size
	}
	var errs []error
	gone := map[string]bool{}
	for _, s := range all {
		full := f.cfg.TotalBytes > 0 && total > f.cfg.TotalBytes
		old := f.cfg.Age > 0 && now.Sub(s.Modified) > f.cfg.Age
		if s.Name == own || !full && !old {
			continue
		}
		if err := os.Remove(filepath.Join(f.dir, s.Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		gone[s.Name] = true
		total -= s.Size
	}
	if len(gone) > 0 {
		files, _ := f.peek()
		if n := len(files); n > 0 && gone[files[n-1].Name] {
			f.sealed = true // an existing segment that this Folder has not appended to
		}
		f.update(func() {
			f.files = slices.DeleteFunc(slices.Clone(f.files), func(s File) bool { return gone[s.Name] })
		})
	}
	return errors.Join(errs...)
}

// Close ends appends. State tells readers about it.
func (f *Folder) Close() error {
	f.writing.Lock()
	defer f.writing.Unlock()
	var err error
	if f.file != nil {
		err = f.file.Close()
		f.file = nil
	}
	f.update(func() { f.closed = true })
	return err
}
