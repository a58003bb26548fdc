package weights

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
)

// A pickle is a program for a small stack machine. unpickle reads its instructions (Lib/pickletools.py of Python) and keeps
// only the values that describe storages. It calls nothing that the program names. torch refers to a storage by a persistent
// ID, ("storage", class, key, place, length). The type of an untyped storage is given where a tensor is rebuilt from it.
func unpickle(h *header, sum tally) error {
	m := machine{header: h, memo: map[int64]any{}, storages: map[string]*storage{}}
	if err := m.run(); err != nil {
		return err
	}
	for key, s := range m.storages {
		kind, ok := torchStorages[s.class]
		if s.class == "UntypedStorage" || s.class == "TypedStorage" {
			kind, ok = torchTypes[s.of]
			if s.of == "" { // raw bytes, for which no tensor gives a type
				kind, ok = torchTypes["uint8"], true
			}
			s.length /= max(kind.size, 1)
		}
		if !ok {
			return fmt.Errorf("storage %q has the unknown type %q", key, s.class+" "+s.of)
		}
		if err := sum.add(kind.name, []int64{s.length}, kind.block, kind.size); err != nil {
			return err
		}
	}
	return nil
}

type (
	machine struct {
		*header
		stack    []any
		marks    []int
		memo     map[int64]any
		storages map[string]*storage
	}
	// Values on the stack are an int64, a string, a global, a tuple, a *storage, or nil for everything else.
	global  struct{ module, name string }
	tuple   []any
	storage struct {
		class  string
		length int64
		of     string
	}
)

const (
	// maxStack and maxMemo limit the memory that a pickle can use.
	maxStack = 1 << 20
	maxMemo  = 1 << 21
)

func (m *machine) push(v any) error {
	if len(m.stack) >= maxStack {
		return errTooLarge
	}
	m.stack = append(m.stack, v)
	return nil
}

var errPickle = fmt.Errorf("the pickle takes from an empty stack")

func (m *machine) pop(n int) ([]any, error) {
	if len(m.stack) < n || len(m.marks) > 0 && len(m.stack)-n < m.marks[len(m.marks)-1] {
		return nil, errPickle
	}
	top := m.stack[len(m.stack)-n:]
	m.stack = m.stack[:len(m.stack)-n]
	return top, nil
}

// popMark pops everything pushed since the last mark.
func (m *machine) popMark() ([]any, error) {
	if len(m.marks) == 0 {
		return nil, errPickle
	}
	at := m.marks[len(m.marks)-1]
	m.marks = m.marks[:len(m.marks)-1]
	top := m.stack[at:]
	m.stack = m.stack[:at]
	return top, nil
}

// replace replaces the top n values with one.
func (m *machine) replace(n int, v any) error {
	if _, err := m.pop(n); err != nil {
		return err
	}
	return m.push(v)
}

// keepTuple copies values, because the stack is overwritten.
func (m *machine) keepTuple(items []any) error { return m.push(tuple(append([]any(nil), items...))) }

func (m *machine) run() error {
	for {
		op, err := m.ReadByte()
		if err != nil {
			return err
		}
		if op == '.' {
			return nil
		}
		if err := m.step(op); err != nil {
			return err
		}
	}
}

func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		return m.skip(1)
	case 0x95: // FRAME
		return m.skip(8)
	case '(': // MARK
		if len(m.marks) >= maxStack {
			return errTooLarge
		}
		m.marks = append(m.marks, len(m.stack))
		return nil

	case 'N', 0x88, 0x89, '}', ']', 0x8f, 0x97: // NONE, NEWTRUE, NEWFALSE, EMPTY_DICT, EMPTY_LIST, EMPTY_SET, NEXT_BUFFER
		return m.push(nil)
	case ')': // EMPTY_TUPLE
		return m.push(tuple(nil))
	case 'K': // BININT1
		return m.integer(1)
	case 'M': // BININT2
		return m.integer(2)
	case 'J': // BININT
		b, err := m.bytes(4)
		if err != nil {
			return err
		}
		return m.push(int64(int32(binary.LittleEndian.Uint32(b))))
	case 0x8a: // LONG1
		return m.long(1)
	case 0x8b: // LONG4
		return m.long(4)
	case 'I', 'L': // INT, LONG
		line, err := m.line()
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSuffix(line, []byte("L"))), 10, 64)
		if err != nil {
			return m.push(nil)
		}
		return m.push(n)
	case 'G': // BINFLOAT
		if err := m.skip(8); err != nil {
			return err
		}
		return m.push(nil)
	case 'F': // FLOAT
		if _, err := m.line(); err != nil {
			return err
		}
		return m.push(nil)
	case 'X', 'T', 'B': // BINUNICODE, BINSTRING, BINBYTES
		return m.text(4)
	case 0x8c, 'U', 'C': // SHORT_BINUNICODE, SHORT_BINSTRING, SHORT_BINBYTES
		return m.text(1)
	case 0x8d, 0x8e, 0x96: // BINUNICODE8, BINBYTES8, BYTEARRAY8
		return m.text(8)
	case 'S', 'V': // STRING, UNICODE
		line, err := m.line()
		if err != nil {
			return err
		}
		return m.push(string(bytes.Trim(line, `'"`)))

	case 't': // TUPLE
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.keepTuple(items)
	case 0x85, 0x86, 0x87: // TUPLE1 to TUPLE3
		items, err := m.pop(int(op) - 0x84)
		if err != nil {
			return err
		}
		return m.keepTuple(items)
	case 'd', 'l', 0x91, 'o': // DICT, LIST, FROZENSET, OBJ
		if _, err := m.popMark(); err != nil {
			return err
		}
		return m.push(nil)
	case 'a': // APPEND
		_, err := m.pop(1)
		return err
	case 's': // SETITEM
		_, err := m.pop(2)
		return err
	case 'u', 'e', 0x90, '1': // SETITEMS, APPENDS, ADDITEMS, POP_MARK
		_, err := m.popMark()
		return err
	case '0', 'b', 0x98: // POP, BUILD, READONLY_BUFFER
		if op == 0x98 {
			return nil
		}
		_, err := m.pop(1)
		return err
	case '2': // DUP
		if len(m.stack) == 0 {
			return errPickle
		}
		return m.push(m.stack[len(m.stack)-1])

	case 'q': // BINPUT
		return m.put(1)
	case 'r': // LONG_BINPUT
		return m.put(4)
	case 0x94: // MEMOIZE
		return m.remember(int64(len(m.memo)))
	case 'p': // PUT
		n, err := m.lineNumber()
		if err != nil {
			return err
		}
		return m.remember(n)
	case 'h': // BINGET
		return m.get(1)
	case 'j': // LONG_BINGET
		return m.get(4)
	case 'g': // GET
		n, err := m.lineNumber()
		if err != nil {
			return err
		}
		return m.recall(n)

	case 'c': // GLOBAL
		g, err := m.globalLines()
		if err != nil {
			return err
		}
		return m.push(g)
	case 'i': // INST
		if _, err := m.globalLines(); err != nil {
			return err
		}
		if _, err := m.popMark(); err != nil {
			return err
		}
		return m.push(nil)
	case 0x93: // STACK_GLOBAL
		names, err := m.pop(2)
		if err != nil {
			return err
		}
		module, _ := names[0].(string)
		name, _ := names[1].(string)
		return m.push(global{module, name})
	case 'R', 0x81: // REDUCE, NEWOBJ
		call, err := m.pop(2)
		if err != nil {
			return err
		}
		called, _ := call[0].(global)
		arguments, _ := call[1].(tuple)
		m.rebuilt(called, arguments)
		return m.push(nil)
	case 0x92: // NEWOBJ_EX
		return m.replace(3, nil)

	case 'Q': // BINPERSID
		top, err := m.pop(1)
		if err != nil {
			return err
		}
		id, _ := top[0].(tuple)
		s, err := m.storage(id)
		if err != nil {
			return err
		}
		return m.push(s)
	case 'P': // PERSID
		if _, err := m.line(); err != nil {
			return err
		}
		return m.push(nil)
	}
	return fmt.Errorf("the pickle has the unknown instruction 0x%02x", op)
}

// storage returns the storage of a persistent ID, or nil if the ID is not torch's.
func (m *machine) storage(id tuple) (any, error) {
	if len(id) < 5 {
		return nil, nil
	}
	word, _ := id[0].(string)
	class, ok := id[1].(global)
	key, _ := id[2].(string)
	length, counted := id[4].(int64)
	if word != "storage" || !ok || !counted {
		return nil, nil
	}
	if length < 0 {
		return nil, fmt.Errorf("storage %q has the length %d", key, length)
	}
	s := m.storages[key]
	if s == nil {
		if len(m.storages) >= maxTensors {
			return nil, errTooLarge
		}
		s = &storage{class: class.name, length: length}
		m.storages[key] = s
	}
	return s, nil
}

// rebuilt records the type of a tensor from the call that rebuilds it from an untyped storage (torch/_utils.py,
// _rebuild_tensor_v3).
func (m *machine) rebuilt(called global, arguments tuple) {
	if called.name != "_rebuild_tensor_v3" || len(arguments) < 7 {
		return
	}
	s, ok := arguments[0].(*storage)
	of, named := arguments[6].(global)
	if ok && named {
		s.of = of.name
	}
}

func (m *machine) number(width int64) (int64, error) {
	b, err := m.bytes(width)
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[:], b)
	n := binary.LittleEndian.Uint64(wide[:])
	if n > 1<<62 {
		return 0, errTooLarge
	}
	return int64(n), nil
}

func (m *machine) integer(width int64) error {
	n, err := m.number(width)
	if err != nil {
		return err
	}
	return m.push(n)
}

// long pushes a number of any length, or nil if it does not fit in 64 bits.
func (m *machine) long(width int64) error {
	n, err := m.number(width)
	if err != nil {
		return err
	}
	b, err := m.bytes(n)
	if err != nil {
		return err
	}
	if len(b) > 8 {
		return m.push(nil)
	}
	var wide [8]byte
	if len(b) > 0 && b[len(b)-1]&0x80 != 0 {
		wide = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	copy(wide[:], b)
	return m.push(int64(binary.LittleEndian.Uint64(wide[:])))
}

// maxText is the longest string that can be a name. Longer strings are skipped.
const maxText = 4 << 10

func (m *machine) text(width int64) error {
	n, err := m.number(width)
	if err != nil {
		return err
	}
	if n > maxText {
		if err := m.skip(n); err != nil {
			return err
		}
		return m.push(nil)
	}
	b, err := m.bytes(n)
	if err != nil {
		return err
	}
	return m.push(string(b))
}

func (m *machine) line() ([]byte, error) {
	var line []byte
	for {
		b, err := m.ReadByte()
		if err != nil {
			return nil, err
		}
		if b == '\n' {
			return line, nil
		}
		if line = append(line, b); len(line) > maxText {
			return nil, errTooLarge
		}
	}
}

func (m *machine) lineNumber() (int64, error) {
	line, err := m.line()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(line), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the pickle has %q where a number belongs", clip(string(line)))
	}
	return n, nil
}

func (m *machine) globalLines() (global, error) {
	module, err := m.line()
	if err != nil {
		return global{}, err
	}
	name, err := m.line()
	return global{string(module), string(name)}, err
}

func (m *machine) put(width int64) error {
	n, err := m.number(width)
	if err != nil {
		return err
	}
	return m.remember(n)
}

func (m *machine) remember(n int64) error {
	if len(m.stack) == 0 {
		return errPickle
	}
	if len(m.memo) >= maxMemo {
		return errTooLarge
	}
	m.memo[n] = m.stack[len(m.stack)-1]
	return nil
}

func (m *machine) get(width int64) error {
	n, err := m.number(width)
	if err != nil {
		return err
	}
	return m.recall(n)
}

func (m *machine) recall(n int64) error {
	v, ok := m.memo[n]
	if !ok {
		return fmt.Errorf("the pickle refers to a value %d that it did not make", n)
	}
	return m.push(v)
}

// The storage classes of torch/storage.py and their types.
var torchStorages = map[string]kind{
	"FloatStorage": {"f32", 1, 4}, "DoubleStorage": {"f64", 1, 8}, "HalfStorage": {"f16", 1, 2}, "BFloat16Storage": {"bf16", 1, 2},
	"LongStorage": {"i64", 1, 8}, "IntStorage": {"i32", 1, 4}, "ShortStorage": {"i16", 1, 2}, "CharStorage": {"i8", 1, 1},
	"ByteStorage": {"u8", 1, 1}, "BoolStorage": {"bool", 1, 1}, "ComplexFloatStorage": {"c64", 1, 8},
	"ComplexDoubleStorage": {"c128", 1, 16}, "QInt8Storage": {"i8", 1, 1}, "QUInt8Storage": {"u8", 1, 1}, "QInt32Storage": {"i32", 1, 4},
}

// The torch types that untyped storages can hold (torch/_utils.py).
var torchTypes = map[string]kind{
	"float32": {"f32", 1, 4}, "float64": {"f64", 1, 8}, "float16": {"f16", 1, 2}, "bfloat16": {"bf16", 1, 2},
	"int64": {"i64", 1, 8}, "int32": {"i32", 1, 4}, "int16": {"i16", 1, 2}, "int8": {"i8", 1, 1}, "uint8": {"u8", 1, 1}, "bool": {"bool", 1, 1},
	"uint16": {"u16", 1, 2}, "uint32": {"u32", 1, 4}, "uint64": {"u64", 1, 8}, "complex32": {"c32", 1, 4},
	"float8_e4m3fn": {"f8_e4m3", 1, 1}, "float8_e4m3fnuz": {"f8_e4m3", 1, 1}, "float8_e5m2": {"f8_e5m2", 1, 1}, "float8_e5m2fnuz": {"f8_e5m2", 1, 1},
	"float8_e8m0fnu": {"f8_e8m0", 1, 1},
}
