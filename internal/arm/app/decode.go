package app

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"penstock/internal/resource"
)

// Codes of faults in the shape of a document, as opposed to its values.
const (
	codeSchema = "ContainerAppInvalidSchema"
	codeBody   = "InvalidRequestContent"
	codeValue  = "ContainerAppInvalidValue"

	codeEnvironmentValue = "ManagedEnvironmentInvalidValue"
)

// decoder fills structs from a document and collects what is wrong with it and what has no effect.
//
// Field names match in any case of letters, as in Azure. A field with the tag arm:"ro" is set by the server: clients
// send it back because they read it, and its value is passed over. A field with arm:"secret" is taken and never kept;
// one with arm:"hidden" is read, and no fault tells its value.
type decoder struct {
	fields []Field
	schema string // the code of faults in the shape of a document
	faults []resource.Fault
	notes  []string
}

func (d *decoder) fault(code, path, format string, args ...any) {
	d.faults = append(d.faults, resource.Fault{Code: code, Field: path, Message: fmt.Sprintf(format, args...)})
}

// decode fills the value that into points at. pattern is path with [] for every [n].
func (d *decoder) decode(v value, into reflect.Value, path, pattern string) {
	if v.kind == null {
		return
	}
	wrong := func(want kind) { d.fault(d.schema, show(path), "want %s, got %s", want, v) }
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
			d.fault(d.schema, show(at), "unknown field; want %s", names(into.Type()))
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

func (d *decoder) unbuilt(pattern string) (Field, bool) {
	i := slices.IndexFunc(d.fields, func(f Field) bool { return strings.EqualFold(f.Path, show(pattern)) })
	if i < 0 {
		return Field{}, false
	}
	return d.fields[i], true
}

// weigh says whether the value of a field that is not built may be read on.
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

// wholeNumber takes 3, 3.0 and 3e0: clients write all of them.
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

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// show is a path as people say it: "template.scale", not "properties.template.scale".
func show(path string) string {
	for _, part := range []string{"template", "configuration"} {
		if rest, ok := strings.CutPrefix(path, "properties."); ok && (rest == part || strings.HasPrefix(rest, part+".")) {
			return rest
		}
	}
	return path
}
