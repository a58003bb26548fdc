// Package weights reads the headers of model files: the number, types and bytes of their parameters. It recognises
// safetensors, GGUF, ONNX and PyTorch's zip files, and reads only what it needs: a few kilobytes of a file of 24 GiB.
//
// The files are not trusted. Nothing in them is executed (a pickle is read as a list of instructions, but not run), and every
// count in them is checked against a limit before it is used.
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

// File is the information in the header of a model file.
type File struct {
	// Path is the file's path in the image.
	Path   string `json:"path"`
	Format Format `json:"format"`
	// Size is the file's own size in bytes.
	Size int64 `json:"size"`
	// Parts are the file's numbers by type, largest first.
	Parts []Part `json:"parts"`
	// Problem is the reason why the header could not be read. The file then has no parts.
	Problem string `json:"problem,omitempty"`
}

// Part counts a file's numbers of one type.
type Part struct {
	// Type is the format's name of the type, in lower case: f32, bf16, q4_k.
	Type string `json:"type"`
	// Parameters is the number of values, and Bytes their size including their scales.
	Parameters int64 `json:"parameters"`
	Bytes      int64 `json:"bytes"`
}

// Parameters returns the number of parameters in the file.
func (f File) Parameters() (n int64) {
	for _, p := range f.Parts {
		n = addUpTo(n, p.Parameters)
	}
	return n
}

// Bytes returns the memory that the parameters take in the type in which they are stored.
func (f File) Bytes() (n int64) {
	for _, p := range f.Parts {
		n = addUpTo(n, p.Bytes)
	}
	return n
}

const (
	// maxHeader limits the size of a header. The safetensors library rejects headers above 100 MB. The largest real ones
	// (a mixture of experts with 100,000 tensors) have less than 20 MB.
	maxHeader = 64 << 20
	// maxTensors limits the number of tensors in a header.
	maxTensors = 1 << 20
	// least is the size of the smallest file that is checked. Smaller files cannot be models.
	least = 64
	// surelyAModel is the size from which a file without a parameter is reported instead of counted as an empty model.
	surelyAModel = 1 << 20
)

var errTooLarge = errors.New("the header says more than any model has")

// Read reads the header of the file of size bytes at r, whose path is name. It returns false if the format is unknown. If the
// header of a known format cannot be read, the File has a Problem.
func Read(name string, r io.ReaderAt, size int64) (File, bool) {
	if size < least {
		return File{}, false
	}
	return read(name, io.NewSectionReader(r, 0, size), size, r)
}

// readStream is Read for a file that can be read only once from the start. A PyTorch file whose pickle is not at the start
// cannot be read this way and gets a Problem.
func readStream(name string, r io.Reader, size int64) (File, bool) {
	if size < least {
		return File{}, false
	}
	return read(name, r, size, nil)
}

// read reads from r. at gives random access to the same file, or is nil if there is only the stream.
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
	case path.Ext(name) == ".onnx": // a plain protocol buffer, which only its name identifies
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
	if f.Bytes() == 0 && size >= surelyAModel {
		f.Parts, f.Problem = nil, fmt.Sprintf("no parameters were found in %s, so what the model needs is not known", GiB(size))
	}
	return f, true
}

// errNotOurs is returned by a reader if the file only looks like its format.
var errNotOurs = errors.New("not a model")

// tally counts parameters and bytes by type.
type tally map[string]*Part

// add counts a tensor of the given shape, whose type stores each block of numbers in size bytes.
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

// addUpTo adds with saturation: the sum stays at the largest number instead of overflowing.
func addUpTo(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// clip shortens text from a file and puts it on one line.
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
