package external

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// The messages are few and small, so they are encoded and decoded here. The numbers are those of the fields in
// externalscaler.proto.

// Ref is the ScaledObjectRef that is sent with each call.
type Ref struct {
	Name, Namespace string
	Metadata        map[string]string
}

func (r Ref) encode() []byte {
	b := text(nil, 1, r.Name)
	b = text(b, 2, r.Namespace)
	for _, key := range slices.Sorted(maps.Keys(r.Metadata)) {
		b = nested(b, 3, text(text(nil, 1, key), 2, r.Metadata[key]))
	}
	return b
}

// metricsRequest is GetMetricsRequest.
type metricsRequest struct {
	ref    Ref
	metric string
}

func (m metricsRequest) encode() []byte { return text(nested(nil, 1, m.ref.encode()), 2, m.metric) }

func text(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func nested(b []byte, field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), message)
}

// activity is IsActiveResponse.
type activity struct{ active bool }

func (a *activity) decode(b []byte) error {
	*a = activity{}
	return fields(b, func(number protowire.Number, typ protowire.Type, b []byte) int {
		if number != 1 || typ != protowire.VarintType {
			return skip
		}
		v, n := protowire.ConsumeVarint(b)
		a.active = v != 0
		return n
	})
}

// maxFigures limits the metrics in one response.
const maxFigures = 100

// figures is GetMetricSpecResponse or GetMetricsResponse, which have the same form.
type figures []figure

// figure is a MetricSpec or a MetricValue: a name, a whole number, and the same with fractions.
type figure struct {
	name  string
	whole int64
	exact float64
}

// value returns the number. As in KEDA, the one with fractions counts if it is set.
func (f figure) value() float64 {
	if f.exact != 0 {
		return f.exact
	}
	return float64(f.whole)
}

func (f *figures) decode(b []byte) error {
	*f = nil
	var bad error
	err := fields(b, func(number protowire.Number, typ protowire.Type, b []byte) int {
		if number != 1 || typ != protowire.BytesType {
			return skip
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return n
		}
		var one figure
		if err := one.decode(v); err != nil {
			bad = err
		}
		if *f = append(*f, one); len(*f) > maxFigures {
			bad = fmt.Errorf("want at most %d metrics, got more", maxFigures)
			return failed
		}
		return n
	})
	if bad != nil {
		return bad
	}
	return err
}

func (f *figure) decode(b []byte) error {
	err := fields(b, func(number protowire.Number, typ protowire.Type, b []byte) int {
		switch {
		case number == 1 && typ == protowire.BytesType:
			v, n := protowire.ConsumeString(b)
			f.name = v
			return n
		case number == 2 && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			f.whole = int64(v)
			return n
		case number == 3 && typ == protowire.Fixed64Type:
			v, n := protowire.ConsumeFixed64(b)
			f.exact = math.Float64frombits(v)
			return n
		}
		return skip
	})
	if err == nil && !utf8.ValidString(f.name) {
		return errors.New("the name of a metric is not valid UTF-8")
	}
	return err
}

// Results of the function that fields calls, in addition to the length that was read. Negative numbers are errors, as
// in package protowire.
const (
	skip   = 0
	failed = -1000
)

// fields calls visit with each field of a message and the bytes that follow its tag. visit returns how many of them it
// has read.
func fields(b []byte, visit func(number protowire.Number, typ protowire.Type, b []byte) int) error {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("a message cannot be parsed: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if n = visit(number, typ, b); n == skip {
			n = protowire.ConsumeFieldValue(number, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("a message cannot be parsed: %w", protowire.ParseError(n))
		}
		b = b[n:]
	}
	return nil
}

// codec lets gRPC use the messages above.
type codec struct{}

// Name returns the name that servers know the format by.
func (codec) Name() string { return "proto" }

// Marshal encodes a request.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(interface{ encode() []byte })
	if !ok {
		return nil, fmt.Errorf("%T is not a request", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(m.encode())}, nil
}

// Unmarshal decodes a response.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(interface{ decode(b []byte) error })
	if !ok {
		return fmt.Errorf("%T is not a response", v)
	}
	return m.decode(data.Materialize())
}
