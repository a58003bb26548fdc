package resource

import "strings"

// Fault is one error in what a user sent.
type Fault struct {
	Code    string // Azure's error code, "ContainerAppInvalidResourceTotal"
	Field   string // "template.containers[0].resources.cpu"
	Message string // what was found and what would be right
}

func (f Fault) String() string {
	if f.Field == "" {
		return f.Message
	}
	return f.Field + ": " + f.Message
}

// InvalidError lists all faults of a resource, not only the first.
type InvalidError struct{ Faults []Fault }

func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "; ")
}
