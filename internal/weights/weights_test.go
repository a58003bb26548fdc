package weights_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/weights"
)

func TestHeadersAreRead(t *testing.T) {
	// testdata/make.py says what is in the files that come from there.
	tests := map[string]struct {
		name string
		raw  []byte
		want []weights.Part
	}{
		"a checkpoint of PyTorch, its tied weights counted once": {"/m/checkpoint.pt", file(t, "checkpoint.pt"),
			[]weights.Part{{"f32", 8, 32}, {"bf16", 5, 10}, {"i64", 1, 8}}},
		"a TorchScript program": {"/m/script.pt", file(t, "script.pt"), []weights.Part{{"f32", 8, 32}}},
		"an ONNX model":         {"/m/matmul.onnx", file(t, "matmul.onnx"), []weights.Part{{"f32", 6, 24}, {"f16", 4, 8}}},
		"an ONNX model whose weights are Constant nodes, one within the branch of an If": {"/m/rec.onnx", onnx(
			node("Constant", field(1, []byte("value")), field(5, onnxTensor(1, 3, 4))),
			node("If", field(6, node("Constant", field(5, onnxTensor(10, 5))))),
			node("Constant", field(22, field(1, onnxTensor(1, 2)))),
		), []weights.Part{{"f32", 14, 56}, {"f16", 5, 10}}},
		"safetensors": {"/m/model.safetensors", safetensors(`{"__metadata__":{"format":"pt"},
			"a":{"dtype":"F16","shape":[3,4],"data_offsets":[0,24]},"b":{"dtype":"F32","shape":[],"data_offsets":[24,28]}}`, 28),
			[]weights.Part{{"f16", 12, 24}, {"f32", 1, 4}}},
		"GGUF with quantised blocks": {"/m/model.gguf", gguf(3, tensor{"t", []uint64{256, 2}, 12}, tensor{"n", []uint64{7}, 0}),
			[]weights.Part{{"q4_k", 512, 288}, {"f32", 7, 28}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := weights.Read(test.name, bytes.NewReader(test.raw), int64(len(test.raw)))
			if !ok || got.Problem != "" {
				t.Fatalf("Read(%s) = %+v, %v", test.name, got, ok)
			}
			if diff := cmp.Diff(test.want, got.Parts); diff != "" {
				t.Errorf("Read(%s), want - got +:\n%s", test.name, diff)
			}
		})
	}
}

// What is not a model is not taken for one, and one that lies is found out without the memory that it asks for.
func TestOtherFilesAreNoModels(t *testing.T) {
	tests := map[string][]byte{
		"/etc/passwd":         []byte(strings.Repeat("root:x:0:0\n", 20)),
		"/m/empty.gguf":       nil,
		"/m/short.gguf":       []byte("GGUF"),
		"/m/text.onnx":        []byte(strings.Repeat("no protocol buffer ", 9)),
		"/m/classes.jar":      append([]byte("PK\x03\x04"), make([]byte, 200)...),
		"/m/config.json":      []byte(`{"architectures":["LlamaForCausalLM"],"hidden_size":4096,"intermediate_size":11008}`),
		"/m/no_ending":        make([]byte, 4096),
		"/m/weights.bin.part": bytes.Repeat([]byte{0xff}, 4096),
	}
	for name, raw := range tests {
		if got, ok := weights.Read(name, bytes.NewReader(raw), int64(len(raw))); ok {
			t.Errorf("Read(%s) = %+v, want no model", name, got)
		}
	}
}

func TestHeadersThatLie(t *testing.T) {
	huge := uint64(1) << 63
	tests := map[string]struct {
		name string
		raw  []byte
		want string
	}{
		"safetensors whose shape is 2^63 by 2^63": {"/m/a.safetensors",
			safetensors(`{"a":{"dtype":"F16","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,24]}}`, 24), "more than any model has"},
		"safetensors with a size above 63 bits": {"/m/a.safetensors",
			safetensors(`{"a":{"dtype":"F16","shape":[9223372036854775808],"data_offsets":[0,24]}}`, 24), "cannot unmarshal"},
		"safetensors with a size below zero": {"/m/a.safetensors",
			safetensors(`{"a":{"dtype":"F16","shape":[-1],"data_offsets":[0,24]}}`, 24), "the size -1"},
		"safetensors with numbers outside the file": {"/m/a.safetensors",
			safetensors(`{"a":{"dtype":"F16","shape":[12],"data_offsets":[0,240]}}`, 24), "at 0 to 240 of 24 bytes"},
		"safetensors of an unknown type": {"/m/a.safetensors",
			safetensors(`{"a":{"dtype":"F99","shape":[12],"data_offsets":[0,24]}}`, 24), `unknown type "F99"`},
		"GGUF with 2^63 tensors":            {"/m/a.gguf", ggufCounts(3, huge, 0), "more than any model has"},
		"GGUF with 2^63 keys":               {"/m/a.gguf", ggufCounts(3, 0, huge), "more than any model has"},
		"GGUF that ends before its keys do": {"/m/a.gguf", ggufCounts(3, 0, 50), "ends"},
		"GGUF of version 77":                {"/m/a.gguf", ggufCounts(77, 0, 0), "version 77"},
		"GGUF of an unknown type":           {"/m/a.gguf", gguf(3, tensor{"t", []uint64{256}, 4711}), "unknown type 4711"},
		"GGUF whose tensor is too large":    {"/m/a.gguf", gguf(3, tensor{"t", []uint64{1 << 40, 1 << 40}, 0}), "more than any model has"},
		"a file that ends in its header":    {"/m/a.gguf", gguf(3, tensor{"t", []uint64{256}, 12})[:70], "ends"},
		"an ONNX field that is longer than the file": {"/m/a.onnx",
			append([]byte{0x08, 0x08, 0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f}, make([]byte, 100)...), "a field of"},
		"an ONNX model of graphs in graphs":     {"/m/a.onnx", onnx(nested(40)), "more than any model has"},
		"a large ONNX file without a parameter": {"/m/a.onnx", onnx(node("Loop", field(4, make([]byte, 2<<20)))), "no parameters were found in 2.0 MiB"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := weights.Read(test.name, bytes.NewReader(test.raw), int64(len(test.raw)))
			if !ok || !strings.Contains(got.Problem, test.want) || len(got.Parts) > 0 {
				t.Errorf("Read = %+v, %v; want a problem with %q", got, ok, test.want)
			}
		})
	}
}

// A pickle may name any function to be called when it is loaded. Ours is read, never loaded.
func TestAPickleThatWouldRunCodeDoesNot(t *testing.T) {
	const trace = "/tmp/penstock-was-here"
	if _, err := os.Stat(trace); err == nil {
		t.Fatalf("%s is there already", trace)
	}
	raw := file(t, "evil.pt")
	got, ok := weights.Read("/m/evil.pt", bytes.NewReader(raw), int64(len(raw)))
	if !ok || len(got.Parts) != 0 {
		t.Errorf("Read = %+v, %v; want a model without parameters", got, ok)
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("the pickle's code ran")
	}
}

// From a file of 1 TiB only the header is read.
func TestOnlyTheHeaderIsRead(t *testing.T) {
	raw := safetensors(`{"a":{"dtype":"F16","shape":[12],"data_offsets":[0,24]}}`, 24)
	r := &sparse{front: raw, size: 1 << 40}
	if _, ok := weights.Read("/m/a.safetensors", r, r.size); !ok {
		t.Fatal("not read")
	}
	if r.read > 64<<10 {
		t.Errorf("%d bytes read of a header of %d", r.read, len(raw))
	}
}

type sparse struct {
	front      []byte
	size, read int64
}

func (s *sparse) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(s.front)) {
		copy(b, s.front[off:])
	}
	s.read += int64(len(b))
	return len(b), nil
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"checkpoint.pt", "script.pt", "matmul.onnx", "evil.pt"} {
		f.Add(file(f, name), uint8(0))
	}
	f.Add(safetensors(`{"a":{"dtype":"F16","shape":[3,4],"data_offsets":[0,24]}}`, 24), uint8(1))
	f.Add(gguf(3, tensor{"t", []uint64{256, 2}, 12}), uint8(2))
	f.Add(gguf(1, tensor{"t", []uint64{256, 2}, 12}), uint8(3))
	f.Add(onnx(nested(3)), uint8(0))
	names := []string{"/m/a.onnx", "/m/a.safetensors", "/m/a.gguf", "/m/a.pt"}
	f.Fuzz(func(t *testing.T, raw []byte, name uint8) {
		got, ok := weights.Read(names[int(name)%len(names)], bytes.NewReader(raw), int64(len(raw)))
		if !ok {
			return
		}
		if got.Problem != "" && len(got.Parts) > 0 {
			t.Errorf("a problem and parts: %+v", got)
		}
		if got.Parameters() < 0 || got.Bytes() < 0 {
			t.Errorf("less than nothing: %+v", got)
		}
	})
}

func file(tb testing.TB, name string) []byte {
	tb.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func safetensors(header string, data int) []byte {
	raw := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(raw, header...), make([]byte, data)...)
}

// onnx returns a model whose graph has the given fields.
func onnx(fields ...[]byte) []byte {
	return append([]byte{0x08, 0x08}, field(7, append(bytes.Join(fields, nil), field(2, make([]byte, 64))...))...)
}

// node returns the field of a graph for a node with one attribute.
func node(kind string, attribute ...[]byte) []byte {
	return field(1, append(field(4, []byte(kind)), field(5, bytes.Join(attribute, nil))...))
}

// nested returns a node whose graph has a node whose graph has a node, and so on.
func nested(depth int) []byte {
	if depth == 0 {
		return node("Constant", field(5, onnxTensor(1, 1)))
	}
	return node("Loop", field(6, nested(depth-1)))
}

func onnxTensor(of byte, shape ...byte) []byte {
	var raw []byte
	for _, d := range shape {
		raw = append(raw, 0x08, d)
	}
	return append(raw, 0x10, of)
}

// field returns a field of a protocol buffer that has a length.
func field(number uint64, raw []byte) []byte {
	b := binary.AppendUvarint(nil, number<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(raw))), raw...)
}

type tensor struct {
	name  string
	shape []uint64
	of    uint32
}

func ggufCounts(version uint32, tensors, keys uint64) []byte {
	raw := binary.LittleEndian.AppendUint32([]byte("GGUF"), version)
	raw = binary.LittleEndian.AppendUint64(raw, tensors)
	raw = binary.LittleEndian.AppendUint64(raw, keys)
	return append(raw, make([]byte, 100)...)
}

// gguf is a file of the given version with a string, a list of strings and a number before its tensors.
func gguf(version uint32, tensors ...tensor) []byte {
	raw := binary.LittleEndian.AppendUint32([]byte("GGUF"), version)
	length := func(n int) {
		if version == 1 {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(n))
		} else {
			raw = binary.LittleEndian.AppendUint64(raw, uint64(n))
		}
	}
	text := func(s string) {
		length(len(s))
		raw = append(raw, s...)
	}
	number := func(n uint32) { raw = binary.LittleEndian.AppendUint32(raw, n) }
	length(len(tensors))
	length(3)
	text("general.architecture")
	number(8)
	text("llama")
	text("tokenizer.ggml.tokens")
	number(9)
	number(8)
	length(2)
	text("a")
	text("b")
	text("llama.block_count")
	number(4)
	number(32)
	for _, t := range tensors {
		text(t.name)
		number(uint32(len(t.shape)))
		for _, d := range t.shape {
			if version == 1 {
				number(uint32(min(d, math.MaxUint32)))
			} else {
				raw = binary.LittleEndian.AppendUint64(raw, d)
			}
		}
		number(t.of)
		raw = binary.LittleEndian.AppendUint64(raw, 0)
	}
	return append(raw, make([]byte, 64)...)
}

func ExampleModel_String() {
	models := weights.Models([]weights.File{
		{Path: "/models/model-00001-of-00002.safetensors", Format: weights.Safetensors, Parts: []weights.Part{{Type: "f16", Parameters: 7e9, Bytes: 14e9}}},
		{Path: "/models/model-00002-of-00002.safetensors", Format: weights.Safetensors, Parts: []weights.Part{{Type: "f16", Parameters: 6e9, Bytes: 12e9}}},
	})
	fmt.Println(models[0].Path, models[0])
	// Output: /models 13.0 B parameters in f16: 24.2 GiB of weights
}
