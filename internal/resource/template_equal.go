package resource

import (
	"bytes"
	"encoding/json"
)

// Equal says whether two templates are the same, so that no new revision is needed when one replaces the other.
func (t Template) Equal(other Template) bool {
	a, errA := json.Marshal(t)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
