package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseYAML turns the YAML of `az containerapp create --yaml` into the body of a PUT, with the name that is in it, if
// one is. A field that no app has, a field that is given twice and a value of a wrong kind are errors that name the
// line. What az fills in (environmentId, location) may be missing.
func ParseYAML(data []byte) (name string, body []byte, err error) {
	w, body, err := parseYAML[ContainerApp](data, "the fields of a container app", appFields())
	return w.Name, body, err
}

// ParseJobYAML does the same with the YAML of `az containerapp job create --yaml`.
func ParseJobYAML(data []byte) (name string, body []byte, err error) {
	w, body, err := parseYAML[Job](data, "the fields of a job", jobFields())
	return w.Name, body, err
}

// ParseExecutionYAML turns the YAML of `az containerapp job start --yaml` into the body of a start.
func ParseExecutionYAML(data []byte) (body []byte, err error) {
	_, body, err = parseYAML[ExecutionTemplate](data, "containers and initContainers", nil)
	return body, err
}

func parseYAML[T any](data []byte, what string, fields []Field) (w T, body []byte, err error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return w, nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if doc.Kind != yaml.DocumentNode || doc.Content[0].Kind != yaml.MappingNode {
		return w, nil, fmt.Errorf("want %s, got something else", what)
	}
	lines := map[string]int{}
	t := translation{lines: lines, into: reflect.TypeFor[T]()}
	tree := t.value(doc.Content[0], "", 0)
	if len(t.errs) > 0 {
		return w, nil, errors.Join(t.errs...)
	}
	if body, err = json.Marshal(tree); err != nil {
		return w, nil, err
	}
	r, _ := decodeBody(body, fields, codeSchema, &w)
	var errs []error
	for _, f := range r.faults {
		errs = append(errs, fmt.Errorf("line %d: %s", line(lines, f.Field), f))
	}
	return w, body, errors.Join(errs...)
}

// line finds where a field is written; of one that is not there, where its nearest parent is.
func line(lines map[string]int, field string) int {
	for path := field; path != ""; path = path[:max(0, strings.LastIndexAny(path, ".["))] {
		for _, full := range []string{path, "properties." + path} {
			if n, ok := lines[strings.ToLower(full)]; ok {
				return n
			}
		}
	}
	return 1
}

// translation turns YAML into what JSON can say.
type translation struct {
	lines map[string]int
	into  reflect.Type
	errs  []error
	nodes int
}

// mostNodes bounds what aliases can blow a small document up to.
const mostNodes = 100_000

func (t *translation) value(n *yaml.Node, path string, depth int) any {
	if t.nodes++; t.nodes > mostNodes || depth > deepest {
		if len(t.errs) == 0 {
			t.errs = append(t.errs, fmt.Errorf("line %d: the document is nested too deep or too large", n.Line))
		}
		return nil
	}
	switch n.Kind {
	case yaml.AliasNode:
		return t.value(n.Alias, path, depth+1)
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Tag == "!!merge" || key.Kind != yaml.ScalarNode {
				t.errs = append(t.errs, fmt.Errorf("line %d: want the name of a field", key.Line))
				continue
			}
			if _, twice := m[key.Value]; twice {
				t.errs = append(t.errs, fmt.Errorf("line %d: %s is given twice", key.Line, join(path, key.Value)))
			}
			at := join(path, key.Value)
			t.lines[strings.ToLower(at)] = key.Line
			m[key.Value] = t.value(n.Content[i+1], at, depth+1)
		}
		return m
	case yaml.SequenceNode:
		s := []any{}
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			t.lines[strings.ToLower(at)] = item.Line
			s = append(s, t.value(item, at, depth+1))
		}
		return s
	}
	return t.scalar(n, path)
}

var yamlNumber = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)

// scalar reads a plain 1 or true as text where the field wants text, as in the value of a variable.
func (t *translation) scalar(n *yaml.Node, path string) any {
	switch {
	case n.Tag == "!!null":
		return nil
	case wantsText(t.into, path):
		return n.Value
	case n.Tag == "!!bool":
		if b, err := strconv.ParseBool(strings.ToLower(n.Value)); err == nil {
			return b
		}
	case n.Tag == "!!int" || n.Tag == "!!float":
		if yamlNumber.MatchString(n.Value) {
			if f, err := strconv.ParseFloat(n.Value, 64); err == nil {
				return f
			}
		}
	}
	return n.Value
}

var index = regexp.MustCompile(`\[[0-9]+\]`)

// wantsText says whether the field at path is text.
func wantsText(at reflect.Type, path string) bool {
	for name := range strings.SplitSeq(index.ReplaceAllString(path, ".[]"), ".") {
		for at.Kind() == reflect.Pointer {
			at = at.Elem()
		}
		switch at.Kind() {
		case reflect.Slice, reflect.Map:
			at = at.Elem()
		case reflect.Struct:
			fields := reflect.VisibleFields(at)
			i := slices.IndexFunc(fields, func(f reflect.StructField) bool { return !f.Anonymous && strings.EqualFold(wireName(f), name) })
			if i < 0 {
				return false
			}
			at = fields[i].Type
		default: // a tag's name may have dots in it
			return at.Kind() == reflect.String
		}
	}
	for at.Kind() == reflect.Pointer {
		at = at.Elem()
	}
	return at.Kind() == reflect.String
}
