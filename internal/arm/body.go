package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxBody is what Azure Resource Manager takes of a request.
const maxBody = 4 << 20

func (c *call) body() ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, refuse(http.StatusRequestEntityTooLarge, "RequestContentTooLarge", "The request content is larger than %d bytes.", tooLarge.Limit)
	}
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return data, nil
}

// patched is what the body of a PATCH makes of a resource as it is answered: a JSON merge patch (RFC 7396).
func (c *call) patched(resource any) ([]byte, error) {
	patch, err := c.body()
	if err != nil {
		return nil, err
	}
	var change any
	if err := json.Unmarshal(patch, &change); err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidRequestContent", "The request content is no JSON: %v.", err)
	}
	if _, ok := change.(map[string]any); !ok {
		return nil, refuse(http.StatusBadRequest, "InvalidRequestContent", "The request content is no JSON object; want the fields to change.")
	}
	now, err := json.Marshal(resource)
	if err != nil {
		return nil, err
	}
	var target any
	if err := json.Unmarshal(now, &target); err != nil {
		return nil, err
	}
	return json.Marshal(merge(target, change))
}

func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	fields, ok := target.(map[string]any)
	if !ok {
		fields = map[string]any{}
	}
	for name, change := range changes {
		name = spelling(fields, name)
		if change == nil {
			delete(fields, name)
			continue
		}
		fields[name] = merge(fields[name], change)
	}
	return fields
}

// spelling is the name of a field as the resource has it: names match in any case of letters.
func spelling(fields map[string]any, name string) string {
	for have := range fields {
		if strings.EqualFold(have, name) {
			return have
		}
	}
	return name
}
