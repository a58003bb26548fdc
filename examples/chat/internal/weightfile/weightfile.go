// Package weightfile reads and writes the simulator's weights. The format is safetensors
// (github.com/huggingface/safetensors) with one tensor of 16-bit numbers that do not compress.
//
//	offset  bytes
//	0       8      length of the JSON, always 4088, little endian
//	8       4088   JSON: {"__metadata__":{"name":"simulated-llm"},"weights":{"dtype":"F16","shape":[n],"data_offsets":[0,2n]}},
//	               padded with spaces
//	4096    2n     the weights
//
// The header has the end of the tensor, so a truncated file can be detected.
package weightfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
)

const (
	// HeaderSize is one page, so that the weights begin at a page boundary.
	HeaderSize = 4096

	lengthBytes = 8
	nameBytes   = 64
	dtype       = "F16"
	dtypeBytes  = 2
)

// Header describes a weights file.
type Header struct {
	Name string // name of the model, as in requests
	Size int64  // size of the whole file in bytes
}

// layout is the JSON of the header.
type layout struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"__metadata__"`
	Weights struct {
		Type    string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	} `json:"weights"`
}

// Validate returns what is wrong with h.
func (h Header) Validate() error {
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`).MatchString(h.Name) || len(h.Name) > nameBytes {
		return fmt.Errorf("name: want 1 to %d of a-z, 0-9, '.', '_' and '-', the first a letter or a digit, got %q", nameBytes, h.Name)
	}
	if h.Size < HeaderSize {
		return fmt.Errorf("size: want at least the header's %d bytes, got %d", HeaderSize, h.Size)
	}
	if h.Size%dtypeBytes != 0 {
		return fmt.Errorf("size: want an even number of bytes, as a weight has %d, got %d", dtypeBytes, h.Size)
	}
	return nil
}

// Write writes a file of h.Size bytes. The same seed gives the same weights.
func Write(w io.Writer, h Header, seed uint64) error {
	if err := h.Validate(); err != nil {
		return err
	}
	var l layout
	l.Metadata.Name = h.Name
	l.Weights.Type = dtype
	l.Weights.Shape = []int64{(h.Size - HeaderSize) / dtypeBytes}
	l.Weights.Offsets = [2]int64{0, h.Size - HeaderSize}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	page := bytes.Repeat([]byte{' '}, HeaderSize)
	binary.LittleEndian.PutUint64(page, HeaderSize-lengthBytes)
	copy(page[lengthBytes:], text)
	if _, err := w.Write(page); err != nil {
		return err
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	_, err = io.CopyN(w, rand.NewChaCha8(key), h.Size-HeaderSize)
	return err
}

// ParseHeader parses the first page of a file.
func ParseHeader(page []byte) (Header, error) {
	if len(page) < HeaderSize {
		return Header{}, fmt.Errorf("not a weights file: want a header of %d bytes, found %d", HeaderSize, len(page))
	}
	if found := binary.LittleEndian.Uint64(page); found != HeaderSize-lengthBytes {
		return Header{}, fmt.Errorf("not a weights file of this simulator: want safetensors with %d bytes of JSON, found %d", HeaderSize-lengthBytes, found)
	}
	var l layout
	if err := json.Unmarshal(page[lengthBytes:HeaderSize], &l); err != nil {
		return Header{}, fmt.Errorf("not a weights file of this simulator: %w", err)
	}
	t := l.Weights
	if t.Type != dtype || len(t.Shape) != 1 || t.Offsets[0] != 0 || t.Shape[0] > 1<<60 || t.Offsets[1] != t.Shape[0]*dtypeBytes {
		return Header{}, fmt.Errorf("not a weights file of this simulator: want one tensor \"weights\" of %s, found %s %v at %v", dtype, t.Type, t.Shape, t.Offsets)
	}
	h := Header{Name: l.Metadata.Name, Size: HeaderSize + t.Offsets[1]}
	if err := h.Validate(); err != nil {
		return Header{}, fmt.Errorf("damaged weights file: %w", err)
	}
	return h, nil
}
