package app

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"penstock/internal/resource"
)

// The codes of faults in the shape of a document, not in its values.
const (
	codeSchema = "ContainerAppInvalidSchema"
	codeBody   = "InvalidRequestContent"
	codeValue  = "ContainerAppInvalidValue"

	codeEnvironmentValue = "ManagedEnvironmentInvalidValue"
)

// decoder fills structs from a document. It collects the faults, and the fields that have no effect.
//
// Field names match in any case, as in Azure. null, [] and {} are accepted for every field that is known, and null
// for every other: clients write all fields that they have read. A field with the tag arm:"ro" is set by the server. Clients send such fields
// back because they have read them, and their values are ignored. The value of a field with arm:"secret" is accepted and
// never stored. The value of a field with arm:"hidden" is used, but no fault shows it.
type decoder struct {
	fields []Field
	schema string // the code of faults in the shape of the document
	faults []resource.Fault
	notes  []string
	root   reflect.Type // of the whole document
}

func (d *decoder) fault(code, path, format string, args ...any) {
	d.faults = append(d.faults, resource.Fault{Code: code, Field: path, Message: fmt.Sprintf(format, args...)})
}

// decode fills into from v. pattern is path with [] in place of every [n].
func (d *decoder) decode(v value, into reflect.Value, path, pattern string) {
	if v.kind == null || v.isBare() && !holds(into.Type(), v.kind) {
		return
	}
	wrong := func(want kind) { d.fault(d.schema, show(path), "want %s, got %s", want, v) }
	v = v.as(into.Kind())
	switch t := into.Type(); t.Kind() {
	case reflect.Pointer:
		p := reflect.New(t.Elem())
		d.decode(v, p.Elem(), path, pattern)
		into.Set(p)
	case reflect.String:
		if v.kind != text {
			wrong(text)
			return
		}
		into.SetString(v.scalar.(string))
	case reflect.Bool:
		if v.kind != boolean {
			wrong(boolean)
			return
		}
		into.SetBool(v.scalar.(bool))
	case reflect.Int, reflect.Int64:
		if v.kind != number {
			wrong("a whole number")
			return
		}
		n, ok := wholeNumber(v.scalar.(json.Number))
		if !ok {
			wrong("a whole number")
			return
		}
		into.SetInt(n)
	case reflect.Float64:
		f, err := 0.0, error(nil)
		if v.kind == number {
			f, err = strconv.ParseFloat(string(v.scalar.(json.Number)), 64)
		}
		if v.kind != number || err != nil {
			wrong(number)
			return
		}
		into.SetFloat(f)
	case reflect.Slice:
		if v.kind != list {
			wrong(list)
			return
		}
		s := reflect.MakeSlice(t, len(v.items), len(v.items))
		for i, item := range v.items {
			at := fmt.Sprintf("%s[%d]", path, i)
			if item.kind == null {
				d.fault(d.schema, show(at), "want a value, got null")
				continue
			}
			d.decode(item, s.Index(i), at, pattern+"[]")
		}
		into.Set(s)
	case reflect.Map:
		if v.kind != object {
			wrong(object)
			return
		}
		m := reflect.MakeMap(t)
		for _, f := range v.members {
			if m.MapIndex(reflect.ValueOf(f.name)).IsValid() {
				d.fault(d.schema, show(path+"."+f.name), "is given twice")
			}
			if f.value.kind == null {
				continue
			}
			e := reflect.New(t.Elem()).Elem()
			d.decode(f.value, e, path+"."+f.name, pattern+".*")
			m.SetMapIndex(reflect.ValueOf(f.name), e)
		}
		into.Set(m)
	case reflect.Struct:
		if v.kind != object {
			wrong(object)
			return
		}
		d.object(v, into, path, pattern)
	}
}

func (d *decoder) object(v value, into reflect.Value, path, pattern string) {
	seen := map[int]bool{}
	for _, m := range v.members {
		at, like := join(path, m.name), join(pattern, m.name)
		i := slices.IndexFunc(reflect.VisibleFields(into.Type()), func(f reflect.StructField) bool {
			return !f.Anonymous && strings.EqualFold(wireName(f), m.name)
		})
		if i < 0 {
			if field, known := d.unbuilt(like); known {
				d.weigh(field, m.value, at)
				continue
			}
			if m.value.kind == null {
				continue // a field of a newer api-version, which az prints as null
			}
			message := "unknown field; want " + names(into.Type())
			if place := placeOf(d.root, m.name, ""); place != "" {
				message += fmt.Sprintf("; did you mean %s?", show(place))
			}
			d.fault(d.schema, show(at), "%s", message)
			continue
		}
		f := reflect.VisibleFields(into.Type())[i]
		at, like = join(path, wireName(f)), join(pattern, wireName(f))
		if seen[i] {
			d.fault(d.schema, show(at), "is given twice")
			continue
		}
		seen[i] = true
		if f.Tag.Get("arm") == "ro" {
			continue
		}
		if field, known := d.unbuilt(like); known && !d.weigh(field, m.value, at) {
			continue
		}
		if f.Tag.Get("arm") == "secret" {
			continue
		}
		if f.Tag.Get("arm") == "hidden" && m.value.kind != text && m.value.kind != null {
			d.fault(d.schema, show(at), "want text, got something else")
			continue
		}
		d.decode(m.value, into.FieldByIndex(f.Index), at, like)
	}
}

// holds says whether a field of type t can be a list or an object.
func holds(t reflect.Type, k kind) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Slice:
		return k == list
	case reflect.Map, reflect.Struct:
		return k == object
	}
	return false
}

func (d *decoder) unbuilt(pattern string) (Field, bool) {
	i := slices.IndexFunc(d.fields, func(f Field) bool { return strings.EqualFold(f.Path, show(pattern)) })
	if i < 0 {
		return Field{}, false
	}
	return d.fields[i], true
}

// weigh handles the value of a field that has no effect here. It says whether the value can be decoded.
func (d *decoder) weigh(f Field, v value, path string) bool {
	if v.isEmpty() || f.harmless != nil && f.harmless(v) {
		return true
	}
	if f.Effect == Refused {
		want := "nothing"
		if f.Except != "" {
			want = f.Except + ", or nothing"
		}
		d.fault(resource.CodeNotBuilt, show(path), "not built: %s; want %s, got %s", f.Why, want, v)
		return false
	}
	d.notes = append(d.notes, fmt.Sprintf("%s is stored and has no effect: %s", show(path), f.Why))
	return true
}

// as turns text into the number or the boolean that a field of that kind wants. Azure takes "80" and "true" and reads back
// 80 and true; az and compose write them. Text that is neither stays as it is.
func (v value) as(want reflect.Kind) value {
	s, ok := v.scalar.(string)
	if !ok {
		return v
	}
	s = strings.TrimSpace(s)
	switch want {
	case reflect.Bool:
		if strings.EqualFold(s, "true") || strings.EqualFold(s, "false") {
			return value{kind: boolean, scalar: strings.EqualFold(s, "true")}
		}
	case reflect.Int, reflect.Int64, reflect.Float64:
		if numberForm.MatchString(s) {
			return value{kind: number, scalar: json.Number(s)}
		}
	}
	return v
}

// numberForm matches JSON's numbers.
var numberForm = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

// wholeNumber accepts 3, 3.0 and 3e0, because clients write all of them.
func wholeNumber(n json.Number) (int64, bool) {
	if i, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		return i, true
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

func wireName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func names(t reflect.Type) string {
	var all []string
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous && f.Tag.Get("arm") != "ro" {
			all = append(all, wireName(f))
		}
	}
	slices.Sort(all)
	return "one of " + strings.Join(all, ", ")
}

// placeOf returns the path of a field with that name anywhere in a document, or "" when there is none. It does not look
// into lists.
func placeOf(t reflect.Type, name, path string) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return ""
	}
	var deeper []reflect.StructField
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || f.Tag.Get("arm") == "ro" {
			continue
		}
		if strings.EqualFold(wireName(f), name) {
			return join(path, wireName(f))
		}
		deeper = append(deeper, f)
	}
	for _, f := range deeper {
		if place := placeOf(f.Type, name, join(path, wireName(f))); place != "" {
			return place
		}
	}
	return ""
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// show returns a path in the form that people use: "template.scale", not "properties.template.scale".
func show(path string) string {
	for _, part := range []string{"template", "configuration"} {
		if rest, ok := strings.CutPrefix(path, "properties."); ok && (rest == part || strings.HasPrefix(rest, part+".")) {
			return rest
		}
	}
	return path
}
