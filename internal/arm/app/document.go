package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"penstock/internal/resource"
)

// deepest bounds how deeply values can be nested: more than any document of Azure needs, and much less than would exhaust
// a stack.
const deepest = 32

type kind string

const (
	null    kind = "null"
	boolean kind = "true or false"
	number  kind = "a number"
	text    kind = "text"
	list    kind = "a list"
	object  kind = "an object"
)

// value is a JSON value. Unlike encoding/json it keeps the order of fields, and fields that are given twice.
type value struct {
	kind    kind
	scalar  any // bool, json.Number or string
	items   []value
	members []member
}

type member struct {
	name  string
	value value
}

// parse parses text that is exactly one JSON value.
func parse(data []byte) (value, error) {
	if !utf8.Valid(data) {
		return value{}, errors.New("the body is not UTF-8 text")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := read(dec, 0)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return value{}, fmt.Errorf("the body ends in the middle of a value, after %d bytes", len(data))
		}
		return value{}, fmt.Errorf("the body is not valid JSON at byte %d: %w", dec.InputOffset(), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return value{}, fmt.Errorf("want one JSON value, got more after byte %d", dec.InputOffset())
	}
	return v, nil
}

func read(dec *json.Decoder, depth int) (value, error) {
	if depth > deepest {
		return value{}, fmt.Errorf("values are nested more than %d deep", deepest)
	}
	token, err := dec.Token()
	if err != nil {
		return value{}, err
	}
	switch t := token.(type) {
	case nil:
		return value{kind: null}, nil
	case bool:
		return value{kind: boolean, scalar: t}, nil
	case json.Number:
		return value{kind: number, scalar: t}, nil
	case string:
		return value{kind: text, scalar: t}, nil
	case json.Delim:
		v := value{kind: list}
		if t == '{' {
			v.kind = object
		}
		for dec.More() {
			var m member
			if v.kind == object {
				name, err := dec.Token()
				if err != nil {
					return value{}, err
				}
				m.name, _ = name.(string)
			}
			if m.value, err = read(dec, depth+1); err != nil {
				return value{}, err
			}
			if v.kind == object {
				v.members = append(v.members, m)
			} else {
				v.items = append(v.items, m.value)
			}
		}
		_, err := dec.Token()
		return v, err
	}
	return value{}, fmt.Errorf("unexpected %v", token)
}

// ReadPatch reads a JSON merge patch (RFC 7396). A field that is given twice is a fault, as in a whole document: which of
// the two counts would be a guess.
func ReadPatch(body []byte) (map[string]any, error) {
	d := decoder{schema: codeBody}
	v, err := parse(body)
	switch {
	case err != nil:
		d.fault(codeBody, "", "%v", err)
	case v.kind != object:
		d.fault(codeBody, "", "want the fields to change as a JSON object, got %s", v)
	default:
		d.twice(v, "")
	}
	if len(d.faults) > 0 {
		return nil, &resource.InvalidError{Faults: d.faults}
	}
	var fields map[string]any
	return fields, json.Unmarshal(body, &fields)
}

// twice adds a fault for each field that is given twice. Names match in any case.
func (d *decoder) twice(v value, path string) {
	seen := map[string]bool{}
	for _, m := range v.members {
		at, key := join(path, m.name), strings.ToLower(m.name)
		if seen[key] {
			d.fault(d.schema, show(at), "is given twice")
		}
		seen[key] = true
		d.twice(m.value, at)
	}
	for i, item := range v.items {
		d.twice(item, fmt.Sprintf("%s[%d]", path, i))
	}
}

// isBare says whether a value is [] or {}.
func (v value) isBare() bool {
	return v.kind == list && len(v.items) == 0 || v.kind == object && len(v.members) == 0
}

// isEmpty says whether a value is null, "", [], {}, or an object that has only such values.
func (v value) isEmpty() bool {
	switch v.kind {
	case null:
		return true
	case text:
		return v.scalar == ""
	case list:
		return len(v.items) == 0
	case object:
		for _, m := range v.members {
			if !m.value.isEmpty() {
				return false
			}
		}
		return true
	}
	return false
}

// member returns a field of an object. Its name matches in any case.
func (v value) member(name string) (value, bool) {
	for _, m := range v.members {
		if strings.EqualFold(m.name, name) {
			return m.value, true
		}
	}
	return value{}, false
}

func (v value) String() string {
	var s string
	switch v.kind {
	case text:
		s = fmt.Sprintf("%q", v.scalar)
	case boolean, number:
		s = fmt.Sprint(v.scalar)
	default:
		return string(v.kind)
	}
	if len(s) > 100 {
		s = strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}
