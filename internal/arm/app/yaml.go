package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Manifest is a document of a YAML file.
type Manifest struct {
	Line int    // on which it begins
	Name string // "" if it has none
	Body []byte // of a PUT
}

// mostDocuments bounds the number of documents in a file.
const mostDocuments = 100

// ParseManifests reads a YAML file with one or more apps, each in the form that ParseYAML reads.
func ParseManifests(data []byte) ([]Manifest, error) {
	documents, err := readDocuments(data)
	if err != nil {
		return nil, err
	}
	var all []Manifest
	var errs []error
	for _, doc := range documents {
		if nodeAt(doc, "properties", "configuration", "triggerType") != nil {
			errs = append(errs, fmt.Errorf("line %d: this is a job; want a container app, which has no triggerType (penstock job create -f FILE)", doc.Line))
			continue
		}
		w, body, err := translate[ContainerApp](doc, "the fields of a container app", appFields())
		all, errs = append(all, Manifest{Line: doc.Line, Name: w.Name, Body: body}), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return all, nil
}

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

// parseYAML reads a file with one document.
func parseYAML[T any](data []byte, what string, fields []Field) (w T, body []byte, err error) {
	documents, err := readDocuments(data)
	if f, ok := errors.AsType[foreign](err); ok && reflect.TypeFor[T]() != reflect.TypeFor[ContainerApp]() {
		return w, nil, fmt.Errorf("this is %s%s; want %s", f.kind, f.more, what)
	}
	if err != nil {
		return w, nil, err
	}
	if len(documents) > 1 {
		return w, nil, fmt.Errorf("line %d: want one document, got a second one", documents[1].Line)
	}
	return translate[T](documents[0], what, fields)
}

// readDocuments returns the roots of a YAML file's documents. There is at least one; empty ones are left out.
func readDocuments(data []byte) (roots []*yaml.Node, err error) {
	if err := foreignText(data); err != nil {
		return nil, err
	}
	read := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := read.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, yamlError(data, err)
		}
		root := &doc
		if doc.Kind == yaml.DocumentNode && len(doc.Content) > 0 {
			root = doc.Content[0]
		}
		if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
			continue
		}
		if err := foreignYAML(root); err != nil {
			return nil, fmt.Errorf("line %d: %w", root.Line, err)
		}
		if roots = append(roots, root); len(roots) > mostDocuments {
			return nil, fmt.Errorf("line %d: want at most %d documents", root.Line, mostDocuments)
		}
	}
	if len(roots) == 0 {
		return nil, foreign{kind: "an empty file"}
	}
	return roots, nil
}

// translate converts a document to JSON and checks it.
func translate[T any](root *yaml.Node, what string, fields []Field) (w T, body []byte, err error) {
	if root.Kind != yaml.MappingNode {
		return w, nil, fmt.Errorf("line %d: want %s, got something else", root.Line, what)
	}
	lines := map[string]int{}
	t := translation{lines: lines, into: reflect.TypeFor[T]()}
	tree := t.value(root, "", 0)
	if len(t.errs) > 0 {
		return w, nil, errors.Join(t.errs...)
	}
	if body, err = json.Marshal(tree); err != nil {
		return w, nil, err
	}
	r, _ := decodeBody(body, fields, codeSchema, &w)
	var errs []error
	for _, f := range r.faults {
		errs = append(errs, fmt.Errorf("line %d: %s", line(lines, root.Line, f.Field), f))
	}
	return w, body, errors.Join(errs...)
}

// line returns the line of a field. For a field that is missing it is the line of its nearest parent, which is root at last.
func line(lines map[string]int, root int, field string) int {
	for path := field; path != ""; path = path[:max(0, strings.LastIndexAny(path, ".["))] {
		for _, full := range []string{path, "properties." + path} {
			if n, ok := lines[strings.ToLower(full)]; ok {
				return n
			}
		}
	}
	return root
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
