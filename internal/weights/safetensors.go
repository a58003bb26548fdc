package weights

import (
	"encoding/json"
	"fmt"
	"io"
)

// safetensors reads the format of github.com/huggingface/safetensors: eight bytes with the length of the header, the header
// (a JSON object with tensors by name), then the numbers.
func safetensors(h *header, _ io.ReaderAt, sum tally) error {
	length, err := h.uint64()
	if err != nil {
		return err
	}
	if length > maxHeader {
		return errTooLarge
	}
	raw, err := h.bytes(int64(length))
	if err != nil {
		return err
	}
	var tensors map[string]json.RawMessage
	if err := json.Unmarshal(raw, &tensors); err != nil {
		return fmt.Errorf("the header is no JSON object: %w", err)
	}
	delete(tensors, "__metadata__")
	for name, raw := range tensors {
		var tensor struct {
			Type    string   `json:"dtype"`
			Shape   []int64  `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &tensor); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		kind, ok := safetensorsTypes[tensor.Type]
		if !ok {
			return fmt.Errorf("tensor %q has the unknown type %q", name, tensor.Type)
		}
		if from, to := tensor.Offsets[0], tensor.Offsets[1]; from < 0 || to < from || to > h.left {
			return fmt.Errorf("tensor %q is at %d to %d of %d bytes", name, from, to, h.left)
		}
		if err := sum.add(kind.name, tensor.Shape, kind.block, kind.size); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	return nil
}

// kind describes how a type is stored: blocks of that many numbers, each in size bytes.
type kind struct {
	name        string
	block, size int64
}

// The types of safetensors 0.7 (safetensors/src/tensor.rs, Dtype).
var safetensorsTypes = map[string]kind{
	"BOOL": {"bool", 1, 1}, "U8": {"u8", 1, 1}, "I8": {"i8", 1, 1}, "F8_E5M2": {"f8_e5m2", 1, 1}, "F8_E4M3": {"f8_e4m3", 1, 1},
	"F8_E8M0": {"f8_e8m0", 1, 1}, "F4": {"f4", 2, 1}, "F6_E2M3": {"f6_e2m3", 4, 3}, "F6_E3M2": {"f6_e3m2", 4, 3},
	"I16": {"i16", 1, 2}, "U16": {"u16", 1, 2}, "F16": {"f16", 1, 2}, "BF16": {"bf16", 1, 2},
	"I32": {"i32", 1, 4}, "U32": {"u32", 1, 4}, "F32": {"f32", 1, 4},
	"I64": {"i64", 1, 8}, "U64": {"u64", 1, 8}, "F64": {"f64", 1, 8}, "C64": {"c64", 1, 8},
}
