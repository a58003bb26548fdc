package weightfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Map is a weights file mapped into memory. A page is loaded when it is first touched, and is shared by all processes
// that map the same file.
type Map struct {
	Header
	data []byte
}

// Open checks the file at path and maps it.
func Open(path string) (*Map, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the mapping stays valid
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: want a file, found %s", path, info.Mode())
	}
	page := make([]byte, HeaderSize)
	n, err := io.ReadFull(f, page)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	h, err := ParseHeader(page[:n])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if info.Size() != h.Size {
		return nil, fmt.Errorf("%s: truncated or overlong: the header says %d bytes, the file has %d", path, h.Size, info.Size())
	}
	data, err := syscall.Mmap(int(f.Fd()), 0, int(h.Size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: map %d bytes: %w", path, h.Size, err)
	}
	return &Map{Header: h, data: data}, nil
}

// Touch reads one byte of each page from offset from up to but not including offset to, which loads the pages. It
// returns the sum of the bytes so that the compiler cannot remove the reads.
func (m *Map) Touch(from, to int64) (sum uint64) {
	page := int64(os.Getpagesize())
	for i := from; i < min(to, m.Size); i += page {
		sum += uint64(m.data[i])
	}
	return sum
}

// Close unmaps the file. Touch must not be called afterwards.
func (m *Map) Close() error {
	return syscall.Munmap(m.data)
}
