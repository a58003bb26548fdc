package app

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"penstock/internal/resource"
)

// condition is one of a $filter: "properties/status eq 'Running'", "startTime ge 2026-11-24T00:00:00Z".
var condition = regexp.MustCompile(`(?i)^\s*(?:properties/)?(name|status|startTime|endTime)\s+(eq|ne|gt|ge|lt|le)\s+(?:datetime)?('[^']*'|[0-9A-Za-z:.+-]+)\s*$`)

// ParseExecutionFilter reads the $filter of a list of executions: conditions on name, status, startTime and endTime with
// "and" between them, as OData writes them. "" takes all.
func ParseExecutionFilter(filter string) (func(resource.Execution) bool, error) {
	if strings.TrimSpace(filter) == "" {
		return func(resource.Execution) bool { return true }, nil
	}
	var all []func(resource.Execution) bool
	for _, text := range regexp.MustCompile(`(?i)\s+and\s+`).Split(filter, -1) {
		one, err := executionCondition(text)
		if err != nil {
			return nil, &resource.InvalidError{Faults: []resource.Fault{{Code: "InvalidFilter", Field: "$filter", Message: err.Error()}}}
		}
		all = append(all, one)
	}
	return func(e resource.Execution) bool {
		for _, one := range all {
			if !one(e) {
				return false
			}
		}
		return true
	}, nil
}

func executionCondition(text string) (func(resource.Execution) bool, error) {
	parts := condition.FindStringSubmatch(text)
	if parts == nil {
		return nil, fmt.Errorf("want conditions such as status eq 'Running' or startTime ge 2026-11-24T00:00:00Z with 'and' between them, got %q", text)
	}
	field, op, want := strings.ToLower(parts[1]), strings.ToLower(parts[2]), strings.Trim(parts[3], "'")
	if field == "name" || field == "status" {
		if op != "eq" && op != "ne" {
			return nil, fmt.Errorf("%s: want eq or ne, got %q", parts[1], parts[2])
		}
		return func(e resource.Execution) bool {
			got := e.Name()
			if field == "status" {
				got = string(e.State)
			}
			return strings.EqualFold(got, want) == (op == "eq")
		}, nil
	}
	at, err := time.Parse(time.RFC3339, want)
	if err != nil {
		return nil, fmt.Errorf("%s: want a time such as 2026-11-24T00:00:00Z, got %q", parts[1], want)
	}
	return func(e resource.Execution) bool {
		got := e.Created
		if field == "endtime" {
			got = e.Ended
			if got.IsZero() {
				return op == "ne" // it has none
			}
		}
		return compares(op, got.Compare(at))
	}, nil
}

func compares(op string, order int) bool {
	switch op {
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
