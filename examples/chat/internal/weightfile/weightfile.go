// Package weightfile is the format of the simulator's weights: a page of header, then bytes that do not compress.
//
//	offset  bytes
//	0       16     "PENSTOCK-WEIGHTS"
//	16      4      version, 1
//	20      4      length of the name
//	24      8      size of the whole file, header included
//	32      64     name of the model, filled up with zeros
//	96      4      CRC-32 (IEEE) of the 96 bytes before
//	100            zeros up to 4096, then the weights
//
// Numbers are little endian. The size in the header is what tells a file that was cut short from a whole one.
package weightfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"regexp"
)

const (
	// HeaderSize is one page, so that the weights begin on a page of their own.
	HeaderSize = 4096

	magic     = "PENSTOCK-WEIGHTS"
	version   = 1
	nameBytes = 64
	crcOffset = 96
)

// Header describes a weights file.
type Header struct {
	Name string // of the model, as clients ask for it
	Size int64  // bytes of the whole file
}

// Validate says what is wrong with h.
func (h Header) Validate() error {
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`).MatchString(h.Name) || len(h.Name) > nameBytes {
		return fmt.Errorf("name: want 1 to %d of a-z, 0-9, '.', '_' and '-', the first a letter or a digit, got %q", nameBytes, h.Name)
	}
	if h.Size < HeaderSize {
		return fmt.Errorf("size: want at least the header's %d bytes, got %d", HeaderSize, h.Size)
	}
	return nil
}

// Write writes a file of h.Size bytes; seed decides which.
func Write(w io.Writer, h Header, seed uint64) error {
	if err := h.Validate(); err != nil {
		return err
	}
	page := make([]byte, HeaderSize)
	copy(page, magic)
	binary.LittleEndian.PutUint32(page[16:], version)
	binary.LittleEndian.PutUint32(page[20:], uint32(len(h.Name)))
	binary.LittleEndian.PutUint64(page[24:], uint64(h.Size))
	copy(page[32:], h.Name)
	binary.LittleEndian.PutUint32(page[crcOffset:], crc32.ChecksumIEEE(page[:crcOffset]))
	if _, err := w.Write(page); err != nil {
		return err
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	_, err := io.CopyN(w, rand.NewChaCha8(key), h.Size-HeaderSize)
	return err
}

// ParseHeader reads the first page of a file.
func ParseHeader(page []byte) (Header, error) {
	if len(page) < HeaderSize {
		return Header{}, fmt.Errorf("not a weights file: want a header of %d bytes, found %d", HeaderSize, len(page))
	}
	if found := page[:len(magic)]; !bytes.Equal(found, []byte(magic)) {
		return Header{}, fmt.Errorf("not a weights file of this simulator: want it to start with %q, found %q", magic, found)
	}
	if found := binary.LittleEndian.Uint32(page[16:]); found != version {
		return Header{}, fmt.Errorf("weights file of another version: want %d, found %d", version, found)
	}
	if want, found := crc32.ChecksumIEEE(page[:crcOffset]), binary.LittleEndian.Uint32(page[crcOffset:]); want != found {
		return Header{}, fmt.Errorf("damaged weights file: the header's checksum is %08x, its bytes give %08x", found, want)
	}
	length := binary.LittleEndian.Uint32(page[20:])
	size := binary.LittleEndian.Uint64(page[24:])
	if length > nameBytes || size > 1<<62 {
		return Header{}, fmt.Errorf("damaged weights file: a name of %d bytes, a size of %d", length, size)
	}
	h := Header{Name: string(page[32 : 32+length]), Size: int64(size)}
	if err := h.Validate(); err != nil {
		return Header{}, fmt.Errorf("damaged weights file: %w", err)
	}
	return h, nil
}
