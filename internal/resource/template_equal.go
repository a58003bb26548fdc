package resource

import (
	"bytes"
	"encoding/json"
	"slices"
)

// Equal says whether two templates ask for the same, so that no new revision is needed when one replaces the other.
func (t Template) Equal(other Template) bool {
	a, errA := json.Marshal(t.withoutSpelling())
	b, errB := json.Marshal(other.withoutSpelling())
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// withoutSpelling returns the template without what is only kept for answers: defaults that were written, as az does when
// it writes a template that it has read.
func (t Template) withoutSpelling() Template {
	t.Scale.ZeroMin = false
	for _, list := range []*[]Container{&t.Containers, &t.InitContainers} {
		*list = slices.Clone(*list)
		for i := range *list {
			(*list)[i].Stored = nil
		}
	}
	return t
}
