package weights

import (
	"fmt"
	"io"
)

// gguf reads the format of github.com/ggml-org/ggml (docs/gguf.md), versions 1 to 3; version 1 has 32-bit counts. A file has
// magic, version, counts, key-value pairs, then name, shape and type of each tensor.
func gguf(h *header, _ io.ReaderAt, sum tally) error {
	if err := h.skip(4); err != nil {
		return err
	}
	version, err := h.uint32()
	if err != nil {
		return err
	}
	if version < 1 || version > 3 {
		return fmt.Errorf("GGUF of version %d: want 1 to 3, little-endian", version)
	}
	g := ggufReader{header: h, narrow: version == 1}
	tensors, err := g.length()
	if err != nil {
		return err
	}
	pairs, err := g.length()
	if err != nil {
		return err
	}
	if tensors > maxTensors || pairs > maxTensors {
		return errTooLarge
	}
	for range pairs {
		if err := g.skipString(); err != nil {
			return err
		}
		of, err := g.uint32()
		if err != nil {
			return err
		}
		if err := g.skipValue(of, 0); err != nil {
			return err
		}
	}
	for range tensors {
		if err := g.tensor(sum); err != nil {
			return err
		}
	}
	return nil
}

type ggufReader struct {
	*header
	narrow bool
}

func (g ggufReader) length() (int64, error) {
	if g.narrow {
		n, err := g.uint32()
		return int64(n), err
	}
	n, err := g.uint64()
	if err == nil && n > uint64(g.left) {
		return 0, errTooLarge // each counted item takes at least a byte
	}
	return int64(n), err
}

func (g ggufReader) skipString() error {
	n, err := g.length()
	if err != nil {
		return err
	}
	return g.skip(n)
}

// The value types of gguf.md, gguf_metadata_value_type.
const (
	ggufString = 8
	ggufArray  = 9
)

var ggufWidths = map[uint32]int64{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

func (g ggufReader) skipValue(of uint32, depth int) error {
	if width, ok := ggufWidths[of]; ok {
		return g.skip(width)
	}
	switch {
	case of == ggufString:
		return g.skipString()
	case of == ggufArray && depth < 4:
		item, err := g.uint32()
		if err != nil {
			return err
		}
		n, err := g.length()
		if err != nil {
			return err
		}
		if width, ok := ggufWidths[item]; ok {
			if n > g.left/width {
				return errTooLarge
			}
			return g.skip(n * width)
		}
		for range n {
			if err := g.skipValue(item, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("a value has the unknown type %d", of)
}

func (g ggufReader) tensor(sum tally) error {
	if err := g.skipString(); err != nil {
		return err
	}
	dims, err := g.uint32()
	if err != nil {
		return err
	}
	if dims > 8 {
		return fmt.Errorf("a tensor has %d dimensions: want at most 8", dims)
	}
	shape := make([]int64, dims)
	for i := range shape {
		d, err := g.dimension()
		if err != nil {
			return err
		}
		shape[i] = d
	}
	of, err := g.uint32()
	if err != nil {
		return err
	}
	kind, ok := ggmlTypes[of]
	if !ok {
		return fmt.Errorf("a tensor has the unknown type %d", of)
	}
	if err := sum.add(kind.name, shape, kind.block, kind.size); err != nil {
		return err
	}
	return g.skip(8) // the tensor's offset
}

func (g ggufReader) dimension() (int64, error) {
	if g.narrow {
		n, err := g.uint32()
		return int64(n), err
	}
	n, err := g.uint64()
	if err == nil && n > 1<<62 {
		return 0, errTooLarge
	}
	return int64(n), err
}

// The types of ggml with the numbers and bytes of a block (ggml.h, ggml_type; ggml-common.h, the block structures).
var ggmlTypes = map[uint32]kind{
	0: {"f32", 1, 4}, 1: {"f16", 1, 2}, 2: {"q4_0", 32, 18}, 3: {"q4_1", 32, 20}, 6: {"q5_0", 32, 22}, 7: {"q5_1", 32, 24},
	8: {"q8_0", 32, 34}, 9: {"q8_1", 32, 36}, 10: {"q2_k", 256, 84}, 11: {"q3_k", 256, 110}, 12: {"q4_k", 256, 144},
	13: {"q5_k", 256, 176}, 14: {"q6_k", 256, 210}, 15: {"q8_k", 256, 292}, 16: {"iq2_xxs", 256, 66}, 17: {"iq2_xs", 256, 74},
	18: {"iq3_xxs", 256, 98}, 19: {"iq1_s", 256, 50}, 20: {"iq4_nl", 32, 18}, 21: {"iq3_s", 256, 110}, 22: {"iq2_s", 256, 82},
	23: {"iq4_xs", 256, 136}, 24: {"i8", 1, 1}, 25: {"i16", 1, 2}, 26: {"i32", 1, 4}, 27: {"i64", 1, 8}, 28: {"f64", 1, 8},
	29: {"iq1_m", 256, 56}, 30: {"bf16", 1, 2}, 34: {"tq1_0", 256, 54}, 35: {"tq2_0", 256, 66}, 39: {"mxfp4", 32, 17},
}
