package weights

import (
	"encoding/binary"
	"fmt"
	"io"
)

// onnxNesting limits how deep graphs may lie in nodes of graphs: the branches of an If within the body of a Loop, and so on.
const onnxNesting = 16

// onnxReader counts the tensors of an ONNX model.
type onnxReader struct {
	h       *header
	sum     tally
	tensors int
}

// onnx reads the protocol buffer of github.com/onnx/onnx (onnx/onnx.proto): the tensors that initialise the model's graph, and
// those that are attributes of its nodes. Some exporters write all weights as Constant nodes. It skips the numbers, which can
// be in the file or in a separate one.
func onnx(h *header, _ io.ReaderAt, sum tally) error {
	o := &onnxReader{h: h, sum: sum}
	known := false
	err := message(h, h.left, func(field int, n int64) (bool, error) {
		switch field {
		case 1: // ir_version
			known = true
		case 7: // graph
			known = true
			return true, o.graph(n, onnxNesting)
		case 25: // functions
			return true, message(h, n, func(field int, n int64) (bool, error) {
				if field != 7 { // node
					return false, nil
				}
				return true, o.node(n, onnxNesting)
			})
		}
		return false, nil
	})
	if !known {
		return errNotOurs
	}
	return err
}

// graph reads a GraphProto of n bytes.
func (o *onnxReader) graph(n int64, nesting int) error {
	if nesting == 0 {
		return errTooLarge
	}
	return message(o.h, n, func(field int, n int64) (bool, error) {
		switch field {
		case 1: // node
			return true, o.node(n, nesting)
		case 5: // initializer
			return true, o.tensor(n)
		case 15: // sparse_initializer
			return true, o.sparse(n)
		}
		return false, nil
	})
}

// node reads the attributes of a NodeProto of n bytes.
func (o *onnxReader) node(n int64, nesting int) error {
	return message(o.h, n, func(field int, n int64) (bool, error) {
		if field != 5 { // attribute
			return false, nil
		}
		return true, message(o.h, n, func(field int, n int64) (bool, error) {
			switch field {
			case 5, 10: // t, tensors
				return true, o.tensor(n)
			case 6, 11: // g, graphs
				return true, o.graph(n, nesting-1)
			case 22, 23: // sparse_tensor, sparse_tensors
				return true, o.sparse(n)
			}
			return false, nil
		})
	})
}

// sparse reads a SparseTensorProto of n bytes. Only its values are parameters, not their positions.
func (o *onnxReader) sparse(n int64) error {
	return message(o.h, n, func(field int, n int64) (bool, error) {
		if field != 1 { // values
			return false, nil
		}
		return true, o.tensor(n)
	})
}

// tensor reads a TensorProto of n bytes.
func (o *onnxReader) tensor(n int64) error {
	if o.tensors++; o.tensors > maxTensors {
		return errTooLarge
	}
	h := o.h
	var shape []int64
	of := uint64(0)
	dimension := func() error {
		d, err := binary.ReadUvarint(h)
		if err != nil {
			return err
		}
		if len(shape) >= 64 {
			return errTooLarge
		}
		shape = append(shape, int64(d))
		return nil
	}
	err := message(h, n, func(field int, n int64) (bool, error) {
		switch {
		case field == 1 && n < 0: // dims, one by one
			return true, dimension()
		case field == 1: // dims, packed
			for end := h.left - n; h.left > end; {
				if err := dimension(); err != nil {
					return true, err
				}
			}
			return true, nil
		case field == 2 && n < 0: // data_type
			var err error
			of, err = binary.ReadUvarint(h)
			return true, err
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if of == onnxString { // strings, such as names of classes, are not parameters
		return nil
	}
	kind, ok := onnxTypes[of]
	if !ok {
		return fmt.Errorf("a tensor has the unknown type %d", of)
	}
	return o.sum.add(kind.name, shape, kind.block, kind.size)
}

// message iterates over the fields of a message of n bytes. For each it calls take with the field's number and its length, or
// -1 if it has no length. It skips what take does not read.
func message(h *header, n int64, take func(field int, n int64) (bool, error)) error {
	end := h.left - n
	if n < 0 || end < 0 {
		return fmt.Errorf("a message of %d bytes in a file that ends after %d", n, h.left)
	}
	for h.left > end {
		key, err := binary.ReadUvarint(h)
		if err != nil {
			return err
		}
		length, wire := int64(-1), key&7
		if wire == 2 {
			l, err := binary.ReadUvarint(h)
			if err != nil {
				return err
			}
			if l > uint64(h.left-end) {
				return fmt.Errorf("a field of %d bytes within a message that ends after %d", l, h.left-end)
			}
			length = int64(l)
		}
		taken, err := take(int(key>>3), length)
		if err != nil {
			return err
		}
		if taken {
			continue
		}
		switch wire {
		case 0:
			_, err = binary.ReadUvarint(h)
		case 1:
			err = h.skip(8)
		case 2:
			err = h.skip(length)
		case 5:
			err = h.skip(4)
		default:
			err = fmt.Errorf("a field has the unknown kind %d", wire)
		}
		if err != nil {
			return err
		}
	}
	if h.left < end {
		return fmt.Errorf("a message is longer than it says")
	}
	return nil
}

const onnxString = 8

// The types of TensorProto.DataType.
var onnxTypes = map[uint64]kind{
	1: {"f32", 1, 4}, 2: {"u8", 1, 1}, 3: {"i8", 1, 1}, 4: {"u16", 1, 2}, 5: {"i16", 1, 2}, 6: {"i32", 1, 4}, 7: {"i64", 1, 8},
	9: {"bool", 1, 1}, 10: {"f16", 1, 2}, 11: {"f64", 1, 8}, 12: {"u32", 1, 4}, 13: {"u64", 1, 8}, 14: {"c64", 1, 8}, 15: {"c128", 1, 16},
	16: {"bf16", 1, 2}, 17: {"f8_e4m3", 1, 1}, 18: {"f8_e4m3", 1, 1}, 19: {"f8_e5m2", 1, 1}, 20: {"f8_e5m2", 1, 1},
	21: {"u4", 2, 1}, 22: {"i4", 2, 1}, 23: {"f4", 2, 1},
}
