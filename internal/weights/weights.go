// Package weights reads what a model file says of itself in its header: how many parameters it has, of which type,
// and how many bytes they take. It recognises safetensors, GGUF, ONNX and PyTorch's zip files, and reads no more of
// them than it must: a file of 24 GiB costs a few kilobytes.
//
// The files come from images of strangers. Nothing in them is executed (a pickle is read as a list of instructions,
// never run), and each count in them is checked against a bound before it is believed.
package weights

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"path"
	"slices"
	"strings"
)

// Format is a kind of model file.
type Format string

const (
	Safetensors Format = "safetensors"
	GGUF        Format = "gguf"
	ONNX        Format = "onnx"
	PyTorch     Format = "pytorch"
)

// File is what the header of one model file says.
type File struct {
	// Path is where the file is in its image.
	Path   string `json:"path"`
	Format Format `json:"format"`
	// Size is the file's own size in bytes.
	Size int64 `json:"size"`
	// Parts are the numbers in it by type, the most bytes first.
	Parts []Part `json:"parts"`
	// Problem says why the header could not be read; the file has no parts then.
	Problem string `json:"problem,omitempty"`
}

// Part is how many of a file's numbers have one type.
type Part struct {
	// Type is the format's own word in lower case: f32, bf16, q4_k.
	Type string `json:"type"`
	// Parameters is how many numbers there are, Bytes what they take, their scales included.
	Parameters int64 `json:"parameters"`
	Bytes      int64 `json:"bytes"`
}

// Parameters is the number of parameters of the file.
func (f File) Parameters() (n int64) {
	for _, p := range f.Parts {
		n = addUpTo(n, p.Parameters)
	}
	return n
}

// Bytes is what the parameters take in memory in the type they are stored in.
func (f File) Bytes() (n int64) {
	for _, p := range f.Parts {
		n = addUpTo(n, p.Bytes)
	}
	return n
}

const (
	// maxHeader bounds what is read of one file's header. The safetensors library refuses headers above 100 MB; the
	// largest real ones (a mixture of experts with 100,000 tensors) are below 20.
	maxHeader = 64 << 20
	// maxTensors bounds how many tensors one header may name.
	maxTensors = 1 << 20
	// least is the smallest file that is looked at: less than this is no model.
	least = 64
)

var errTooLarge = errors.New("the header says more than any model has")

// Read looks at the file of size bytes at r, of which name is the path. It returns false when the file is of no format
// that it knows. A file of a known format whose header cannot be read has a Problem.
func Read(name string, r io.ReaderAt, size int64) (File, bool) {
	if size < least {
		return File{}, false
	}
	return read(name, io.NewSectionReader(r, 0, size), size, r)
}

// readStream is Read of a file that can be read only once and from its start. A PyTorch file whose pickle is not in
// front cannot be read this way and says so.
func readStream(name string, r io.Reader, size int64) (File, bool) {
	if size < least {
		return File{}, false
	}
	return read(name, r, size, nil)
}

// read reads from r; at is the same file at any place, nil when there is only the stream.
func read(name string, r io.Reader, size int64, at io.ReaderAt) (File, bool) {
	head := newHeader(r, size)
	magic, err := head.r.Peek(16)
	if err != nil {
		return File{}, false
	}
	var format Format
	var count func(*header, io.ReaderAt, tally) error
	switch {
	case string(magic[:4]) == "GGUF":
		format, count = GGUF, gguf
	case string(magic[:4]) == "PK\x03\x04":
		format, count = PyTorch, pytorch
	case magic[8] == '{' && littleEndian(magic[:8]) < uint64(size):
		format, count = Safetensors, safetensors
	case path.Ext(name) == ".onnx": // a bare protocol buffer: nothing but its name tells
		format, count = ONNX, onnx
	default:
		return File{}, false
	}
	sum := tally{}
	f := File{Path: name, Format: format, Size: size}
	switch err := count(head, at, sum); {
	case errors.Is(err, errNotOurs):
		return File{}, false
	case err != nil:
		f.Problem = clip(err.Error())
		return f, true
	}
	f.Parts = sum.parts()
	return f, true
}

// errNotOurs is the answer of a reader when the file only looks like its format.
var errNotOurs = errors.New("not a model")

// tally counts parameters and bytes by type.
type tally map[string]*Part

// add counts a tensor of the given shape, whose type packs block numbers into size bytes.
func (t tally) add(kind string, shape []int64, block, size int64) error {
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return fmt.Errorf("a tensor of type %s has the size %d", kind, d)
		}
		hi, lo := bits.Mul64(uint64(n), uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return errTooLarge
		}
		n = int64(lo)
	}
	return t.count(kind, n, block, size)
}

func (t tally) count(kind string, n, block, size int64) error {
	if n > math.MaxInt64/size || n > math.MaxInt64-block {
		return errTooLarge
	}
	p := t[kind]
	if p == nil {
		p = &Part{Type: kind}
		t[kind] = p
	}
	p.Parameters = addUpTo(p.Parameters, n)
	p.Bytes = addUpTo(p.Bytes, (n+block-1)/block*size)
	return nil
}

func (t tally) parts() []Part {
	parts := make([]Part, 0, len(t))
	for _, p := range t {
		parts = append(parts, *p)
	}
	slices.SortFunc(parts, func(a, b Part) int {
		if a.Bytes != b.Bytes {
			return compare(b.Bytes, a.Bytes)
		}
		return strings.Compare(a.Type, b.Type)
	})
	return parts
}

func compare(a, b int64) int {
	if a < b {
		return -1
	}
	return 1
}

// addUpTo is a sum that stays at the largest number instead of starting again below zero.
func addUpTo(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// clip keeps words that come out of a file short and on one line.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}
