package weights

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// header reads the beginning of a file, and never past the end.
type header struct {
	r    *bufio.Reader
	from io.Reader // what r reads from
	seek io.Seeker // the same, or nil if it cannot seek
	left int64     // bytes left in the file
	kept int64     // bytes kept in memory so far
}

func newHeader(r io.Reader, size int64) *header {
	seek, _ := r.(io.Seeker)
	return &header{r: bufio.NewReaderSize(r, 4<<10), from: r, seek: seek, left: size}
}

func littleEndian(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// bytes returns the next n bytes.
func (h *header) bytes(n int64) ([]byte, error) {
	if n < 0 || n > h.left {
		return nil, fmt.Errorf("the header goes on for %d bytes; the file ends after %d", n, h.left)
	}
	if h.kept += n; h.kept > maxHeader {
		return nil, errTooLarge
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(h.r, b); err != nil {
		return nil, cutOff(err)
	}
	h.left -= n
	return b, nil
}

// skip skips the next n bytes.
func (h *header) skip(n int64) error {
	if n < 0 || n > h.left {
		return fmt.Errorf("the header goes on for %d bytes; the file ends after %d", n, h.left)
	}
	h.left -= n
	if have := int64(h.r.Buffered()); h.seek != nil && n > have {
		if _, err := h.seek.Seek(n-have, io.SeekCurrent); err != nil {
			return err
		}
		h.r.Reset(h.from)
		return nil
	}
	_, err := io.CopyN(io.Discard, h.r, n)
	return cutOff(err)
}

func (h *header) ReadByte() (byte, error) {
	if h.left < 1 {
		return 0, cutOff(io.EOF)
	}
	b, err := h.r.ReadByte()
	if err != nil {
		return 0, cutOff(err)
	}
	h.left--
	return b, nil
}

func (h *header) uint32() (uint32, error) {
	var b [4]byte
	err := h.fill(b[:])
	return binary.LittleEndian.Uint32(b[:]), err
}

func (h *header) uint64() (uint64, error) {
	var b [8]byte
	err := h.fill(b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

func (h *header) fill(b []byte) error {
	if h.left < int64(len(b)) {
		return cutOff(io.EOF)
	}
	if _, err := io.ReadFull(h.r, b); err != nil {
		return cutOff(err)
	}
	h.left -= int64(len(b))
	return nil
}

func cutOff(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("the file ends within its header")
	}
	return err
}
