package segment

import (
	"context"
	"errors"
	"io"
	"io/fs"
)

// Reader reads the blocks of a folder's segments. It has at most one file open. It is not safe for concurrent use.
// Close closes the file.
type Reader struct {
	dir    string
	schema string
	old    *Old

	name string // of the open segment
	file *opened
	buf  []byte

	damaged map[place]struct{}
}

// place is where a damaged part of a folder begins.
type place struct {
	name   string
	offset int64
}

// NewReader returns a reader for segments of a schema, and of the old format if old is not nil.
func NewReader(dir, schema string, old *Old) *Reader {
	return &Reader{dir: dir, schema: schema, old: old, damaged: map[place]struct{}{}}
}

// Damaged returns the number of damaged parts that were skipped. Each is counted once.
func (r *Reader) Damaged() int { return len(r.damaged) }

// Close closes the open file.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file, r.name = nil, ""
	return err
}

// Found is a block and where it was found.
type Found struct {
	Block         // the payload is valid until the next block is read
	Offset int64  // where it begins
	Meta   string // of its segment
}

// chunk is the number of bytes read at once.
const chunk = 64 << 10

// Scan calls found for the blocks of a segment, starting at offset from, until found returns false. It returns the
// offset for the next Scan, which is the end of the last block found. An offset of 0 means the first block. Any other
// offset must be the start of a block, unless near is true: then it can be anywhere, and the first block after it is
// found first. A segment has no blocks if it has been removed or if this reader does not know its header.
func (r *Reader) Scan(ctx context.Context, f File, from int64, near bool, found func(Found) bool) (int64, error) {
	if from >= f.Size {
		return from, nil
	}
	if r.name != f.Name || r.file == nil {
		if err := r.Close(); err != nil {
			return from, err
		}
		o, err := open(r.dir, f.Name, r.schema, r.old)
		_, isFile := errors.AsType[*fs.PathError](err)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrTorn):
			return from, nil // removed, or its header is not written yet
		case isFile:
			return from, err
		case err != nil:
			return f.Size, nil // a schema or version that this reader does not know
		}
		r.file, r.name = o, f.Name
	}
	if from <= r.file.first {
		from, near = r.file.first, false
	}
	w := window{file: r.file, buf: r.buf[:0], at: from, end: f.Size}
	defer func() { r.buf = w.buf }()
	lost, torn := int64(-1), false // start of a part that is not a block, and whether a block may be in the process of being written there
	for {
		if ctx.Err() != nil {
			return from, context.Cause(ctx)
		}
		if near || lost >= 0 {
			more, err := w.seek(r.file.seek)
			if err != nil {
				return from, err
			}
			if !more {
				if lost >= 0 && !torn {
					r.damaged[place{f.Name, lost}] = struct{}{}
				}
				return from, nil
			}
		}
		b, size, err := r.file.next(w.bytes(), w.at)
		for errors.Is(err, ErrTorn) {
			more, readErr := w.more()
			if readErr != nil {
				return from, readErr
			}
			if !more {
				break
			}
			b, size, err = r.file.next(w.bytes(), w.at)
		}
		if err != nil {
			// The block is damaged or incomplete. It is damaged if a good block follows.
			if lost < 0 && !near {
				lost, torn = w.at, errors.Is(err, ErrTorn)
			}
			continue
		}
		if lost >= 0 {
			r.damaged[place{f.Name, lost}] = struct{}{}
		}
		lost, near = -1, false
		at := w.at
		w.skip(size)
		from = w.at
		if !found(Found{Block: b, Offset: at, Meta: r.file.meta}) {
			return from, nil
		}
	}
}

// End returns where the last good block of a segment ends, or 0 if there is none. It looks at the end of the segment
// first, and reads the whole segment only if no block begins there.
func (r *Reader) End(ctx context.Context, f File) (int64, error) {
	for _, from := range []int64{max(0, f.Size-4*chunk), 0} {
		any := false
		end, err := r.Scan(ctx, f, from, from > 0, func(Found) bool { any = true; return true })
		if err != nil || any {
			return end, err
		}
		if from == 0 {
			break
		}
	}
	return 0, nil
}

// window is the part of a file that is in memory.
type window struct {
	file io.ReaderAt
	buf  []byte
	pos  int   // in buf
	at   int64 // of pos in the file
	end  int64 // up to which the file is read
}

func (w *window) bytes() []byte { return w.buf[w.pos:] }

func (w *window) skip(n int) {
	w.pos += n
	w.at += int64(n)
}

// seek moves to the next place where a block may begin, and reports whether there is one.
func (w *window) seek(find func([]byte) int) (bool, error) {
	for {
		if len(w.bytes()) > 1 {
			if i := find(w.bytes()[1:]); i >= 0 {
				w.skip(1 + i)
				return true, nil
			}
			w.skip(max(0, len(w.bytes())-len(mark))) // the mark may be cut at the end of the chunk
		}
		if more, err := w.more(); err != nil || !more {
			return false, err
		}
	}
}

// more reads the next bytes and reports whether there were any. It discards what was skipped, and slices returned by
// bytes become invalid.
func (w *window) more() (bool, error) {
	rest := w.bytes()
	from := w.at + int64(len(rest))
	// A block that is larger than the buffer is read in few steps.
	n := int(min(int64(max(chunk, len(rest))), w.end-from))
	if n <= 0 {
		return false, nil
	}
	have := copy(w.buf, rest)
	if cap(w.buf) < have+n {
		w.buf = append(make([]byte, 0, have+n), w.buf[:have]...)
	}
	w.buf, w.pos = w.buf[:have+n], 0
	read, err := w.file.ReadAt(w.buf[have:], from)
	w.buf = w.buf[:have+read]
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return read > 0, nil
}
