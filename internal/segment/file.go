package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// File is a segment on disk.
type File struct {
	Name     string
	Writer   string    // the process that wrote it; empty in formats that do not record it
	Size     int64     // readable bytes
	Modified time.Time // when it last grew
}

// Old describes segments in a format from before this package. They are read but never written.
type Old struct {
	Name *regexp.Regexp // of the file names; the first group is the writer
	// Begin reads the start of a file and returns where its first block begins. ok is false for an unknown version.
	Begin func(start []byte) (meta string, offset int, ok bool)
	// Next decodes the block at the start of p, or fails with ErrTorn or ErrDamaged.
	Next func(p []byte) (b Block, size int, err error)
	// Seek returns where the next block may begin in p, or -1.
	Seek func(p []byte) int
}

const (
	suffix    = ".seg"
	nameStamp = "20060102T150405.000000"
	startMark = "PENSEG1\n" // includes the version of the format
	// startFixed is the length of what comes before the schema and the meta in a segment's header: mark, salt,
	// checksum, two lengths.
	startFixed = len(startMark) + 4 + 4 + 2 + 2
	// startSize is the maximum length of a header, in old formats too.
	startSize = 4 << 10
)

var fileName = regexp.MustCompile(`^\d{8}T\d{6}\.\d{6}-(\d+)\.seg$`)

// List returns the segments in dir, oldest first. If the folder does not exist it returns none.
func List(dir string, old *Old) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []File
	for _, entry := range entries {
		parts := fileName.FindStringSubmatch(entry.Name())
		if parts == nil && old != nil {
			parts = old.Name.FindStringSubmatch(entry.Name())
		}
		if parts == nil || !entry.Type().IsRegular() {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed just now
		}
		if err != nil {
			return nil, err
		}
		f := File{Name: entry.Name(), Size: info.Size(), Modified: info.ModTime()}
		if len(parts) > 1 {
			f.Writer = parts[1]
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// start is the header of a segment.
type start struct {
	salt   uint32
	schema string
	meta   string
}

func (s start) bytes() []byte {
	le := binary.LittleEndian
	p := []byte(startMark)
	p = le.AppendUint32(p, s.salt)
	p = le.AppendUint32(p, 0)
	p = le.AppendUint16(p, uint16(len(s.schema)))
	p = le.AppendUint16(p, uint16(len(s.meta)))
	p = append(append(p, s.schema...), s.meta...)
	le.PutUint32(p[len(startMark)+4:], s.sum(p))
	return p
}

// sum returns the checksum of a header, without the checksum itself.
func (start) sum(p []byte) uint32 {
	at := len(startMark) + 4
	return crc32.Update(crc32.Checksum(p[:at], castagnoli), castagnoli, p[at+4:])
}

// readStart decodes the header at the start of p. It fails with ErrTorn, ErrDamaged or an error that names the version.
func readStart(p []byte) (s start, size int, err error) {
	if len(p) < startFixed {
		return s, 0, ErrTorn
	}
	if got := string(p[:len(startMark)]); got != startMark {
		return s, 0, fmt.Errorf("segment header: want %q, got %q", startMark, got)
	}
	le := binary.LittleEndian
	at := len(startMark)
	schema, meta := int(le.Uint16(p[at+8:])), int(le.Uint16(p[at+10:]))
	size = startFixed + schema + meta
	if size > startSize {
		return s, 0, ErrDamaged
	}
	if len(p) < size {
		return s, 0, ErrTorn
	}
	s = start{salt: le.Uint32(p[at:]), schema: string(p[startFixed : startFixed+schema]), meta: string(p[startFixed+schema : size])}
	if s.sum(p[:size]) != le.Uint32(p[at+4:]) {
		return s, 0, ErrDamaged
	}
	return s, size, nil
}

// opened is a segment that is being read, in the current or the old format.
type opened struct {
	*os.File
	meta  string
	first int64 // where the first block begins
	next  func(p []byte, offset int64) (Block, int, error)
	seek  func(p []byte) int
}

// open opens a segment for reading. It returns ErrTorn if the header is incomplete.
func open(dir string, name, schema string, old *Old) (*opened, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	o, err := begin(f, name, schema, old)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return o, nil
}

func begin(f *os.File, name, schema string, old *Old) (*opened, error) {
	p := make([]byte, startSize)
	n, err := f.ReadAt(p, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	p = p[:n]
	if !strings.HasSuffix(name, suffix) {
		meta, offset, ok := old.Begin(p)
		if !ok {
			return nil, fmt.Errorf("%s: is of an unknown format", name)
		}
		return &opened{File: f, meta: meta, first: int64(offset), seek: old.Seek,
			next: func(p []byte, _ int64) (Block, int, error) { return old.Next(p) }}, nil
	}
	s, size, err := readStart(p)
	if err != nil {
		return nil, err
	}
	if s.schema != schema {
		return nil, fmt.Errorf("segment header: want schema %q, got %q", schema, s.schema)
	}
	return &opened{File: f, meta: s.meta, first: int64(size), seek: seek,
		next: func(p []byte, offset int64) (Block, int, error) { return next(p, s.salt, offset) }}, nil
}
