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

// ParseYAML converts the YAML of `az containerapp create --yaml` to the body of a PUT. It also returns the name in it, if
// there is one. Unknown fields, fields that are given twice and values of the wrong type are errors that name the line.
// The fields that az fills in (environmentId, location) can be missing.
func ParseYAML(data []byte) (name string, body []byte, err error) {
	w, body, err := parseYAML[ContainerApp](data, "the fields of a container app", appFields())
	return w.Name, body, err
}

// ParseJobYAML does the same with the YAML of `az containerapp job create --yaml`.
func ParseJobYAML(data []byte) (name string, body []byte, err error) {
	w, body, err := parseYAML[Job](data, "the fields of a job", jobFields())
	return w.Name, body, err
}

// ParseExecutionYAML converts the YAML of `az containerapp job start --yaml` to the body of a request that starts a job.
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

// line returns the line of a field. For a field that is missing it is the line of its nearest parent.
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

// translation converts YAML to values of JSON.
type translation struct {
	lines map[string]int
	into  reflect.Type
	errs  []error
	nodes int
}

// mostNodes bounds the size of a document after its aliases are expanded.
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

// scalar returns a plain 1 or true as text where the field wants text, such as the value of an environment variable.
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
		default: // the name of a tag can contain dots
			return at.Kind() == reflect.String
		}
	}
	for at.Kind() == reflect.Pointer {
		at = at.Elem()
	}
	return at.Kind() == reflect.String
}
