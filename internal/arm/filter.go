package arm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"penstock/internal/resource"
)

// filter is the $filter of a list: comparisons of fields with values. An entry must satisfy all of them.
type filter []comparison

type comparison struct {
	path  []string // "properties", "active"
	op    string   // "eq", "ne", "gt", "ge", "lt", "le"
	value any      // string, bool, float64 or time.Time
}

// readFilter parses the part of OData's filters that is useful here, as in: properties/active eq true and startTime ge
// 2026-11-24T00:00:00Z. Only numbers and times can be compared by their order.
func readFilter(text string) (filter, error) {
	bad := func(format string, args ...any) error {
		return &resource.InvalidError{Faults: []resource.Fault{{Code: "InvalidFilter", Field: "$filter", Message: fmt.Sprintf(format, args...)}}}
	}
	words, err := split(text)
	if err != nil {
		return nil, bad("%v, got %q", err, text)
	}
	if len(words) == 0 {
		return nil, nil
	}
	var all filter
	for {
		if len(words) < 3 {
			return nil, bad("want conditions such as name eq 'a' or properties/active eq true with 'and' between them, got %q", text)
		}
		one := comparison{path: strings.Split(words[0], "/"), op: strings.ToLower(words[1])}
		if one.value, err = filterValue(words[2]); err != nil {
			return nil, bad("%s: %v", words[0], err)
		}
		_, isText := one.value.(string)
		_, isBool := one.value.(bool)
		switch one.op {
		case "eq", "ne":
		case "gt", "ge", "lt", "le":
			if isText || isBool {
				return nil, bad("%s: want eq or ne, got %q", words[0], words[1])
			}
		default:
			return nil, bad("%s: want eq, ne, gt, ge, lt or le, got %q", words[0], words[1])
		}
		all = append(all, one)
		if words = words[3:]; len(words) == 0 {
			return all, nil
		}
		if !strings.EqualFold(words[0], "and") {
			return nil, bad("want 'and' between two conditions, got %q", words[0])
		}
		words = words[1:]
	}
}

func filterValue(word string) (any, error) {
	if strings.HasPrefix(word, "'") {
		return strings.ReplaceAll(word[1:len(word)-1], "''", "'"), nil
	}
	if strings.EqualFold(word, "true") || strings.EqualFold(word, "false") {
		return strings.EqualFold(word, "true"), nil
	}
	if n, err := strconv.ParseFloat(word, 64); err == nil {
		return n, nil
	}
	at, err := time.Parse(time.RFC3339, word)
	if err != nil {
		return nil, fmt.Errorf("want 'text', a number, a time such as 2026-11-24T00:00:00Z, true or false, got %q", word)
	}
	return at, nil
}

// split cuts a filter into words. A text in quotes is one word; two quotes in it stand for one.
func split(text string) (words []string, err error) {
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		end := strings.IndexByte(text, ' ')
		if text[0] == '\'' {
			end = 1
			for {
				at := strings.IndexByte(text[end:], '\'')
				if at < 0 {
					return nil, fmt.Errorf("want text to end with '")
				}
				end += at + 1
				if end < len(text) && text[end] == '\'' {
					end++
					continue
				}
				break
			}
			if end < len(text) && text[end] != ' ' {
				return nil, fmt.Errorf("want a space after text")
			}
		} else if end < 0 {
			end = len(text)
		}
		words, text = append(words, text[:end]), text[end:]
	}
	return words, nil
}

// keep says whether the filter accepts the JSON of a resource. Names and texts match in any case.
func (f filter) keep(answer any) (bool, error) {
	if len(f) == 0 {
		return true, nil
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return false, err
	}
	var fields any
	if err := json.Unmarshal(text, &fields); err != nil {
		return false, err
	}
	for _, one := range f {
		if !one.holds(fields) {
			return false, nil
		}
	}
	return true, nil
}

// holds says whether a comparison is true. A field that the resource does not have is looked for in its properties. A
// missing field is different from every value.
func (one comparison) holds(fields any) bool {
	got := fieldAt(fields, one.path)
	if got == nil {
		got = fieldAt(fields, append([]string{"properties"}, one.path...))
	}
	order, comparable := 0, false
	switch want := one.value.(type) {
	case string:
		s, ok := got.(string)
		if comparable = ok; !strings.EqualFold(s, want) {
			order = 1
		}
	case bool:
		b, ok := got.(bool)
		if comparable = ok; b != want {
			order = 1
		}
	case float64:
		n, ok := got.(float64)
		order, comparable = cmp.Compare(n, want), ok
	case time.Time:
		s, _ := got.(string)
		at, err := time.Parse(time.RFC3339, s)
		order, comparable = at.Compare(want), err == nil
	}
	if !comparable {
		return one.op == "ne"
	}
	switch one.op {
	case "eq":
		return order == 0
	case "ne":
		return order != 0
	case "gt":
		return order > 0
	case "ge":
		return order >= 0
	case "lt":
		return order < 0
	}
	return order <= 0
}

func fieldAt(v any, path []string) any {
	for _, name := range path {
		object, _ := v.(map[string]any)
		v = object[spelling(object, name)]
	}
	return v
}
