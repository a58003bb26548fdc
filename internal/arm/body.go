package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"penstock/internal/arm/app"
)

// maxBody is the largest body of a request that Azure Resource Manager accepts.
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

// mergePatch reads the body of a PATCH: a JSON merge patch (RFC 7396).
func (c *call) mergePatch() (map[string]any, error) {
	body, err := c.body()
	if err != nil {
		return nil, err
	}
	return app.ReadPatch(body)
}

// patched applies a merge patch to the JSON of a resource.
func patched(resource any, patch map[string]any) ([]byte, error) {
	now, err := json.Marshal(resource)
	if err != nil {
		return nil, err
	}
	var target any
	if err := json.Unmarshal(now, &target); err != nil {
		return nil, err
	}
	return json.Marshal(merge(target, patch))
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

// spelling returns the name of a field in the spelling of the resource. Names match in any case.
func spelling(fields map[string]any, name string) string {
	for have := range fields {
		if strings.EqualFold(have, name) {
			return have
		}
	}
	return name
}
