package arm

import (
	"encoding/base64"
	"net/http"
	"sort"
	"strconv"
	"strings"

	"penstock/internal/resource"
)

// page is the JSON of a list, or of a part of one with the address of the next part.
type page[T any] struct {
	Value    []T    `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

func pageOf[T any](all []T) page[T] {
	if all == nil {
		all = []T{}
	}
	return page[T]{Value: all}
}

// pageQuery returns the query parameters of lists that clients can read in parts.
func pageQuery() []string { return []string{"$top", "$skipToken"} }

// paged returns which of n entries, in the order of their keys, a request asks for, and the address of the next part. A
// part begins after the last key of the one before, so that no entry is repeated or left out when others are added or
// removed between two requests.
func (c *call) paged(n int, key func(int) string) (from, to int, next string, err error) {
	query := c.r.URL.Query()
	top := ""
	for name, values := range query {
		switch {
		case strings.EqualFold(name, "$top"):
			top = values[0]
		case strings.EqualFold(name, "$skipToken"):
			last, err := base64.RawURLEncoding.DecodeString(values[0])
			if _, bad := resource.ParseID(string(last)); err != nil || bad != nil {
				return 0, 0, "", refuse(http.StatusBadRequest, "InvalidSkipToken", "$skipToken: want the value in a nextLink, got '%s'.", values[0])
			}
			from = sort.Search(n, func(i int) bool { return key(i) > string(last) })
		}
	}
	if to = n; top == "" {
		return from, to, "", nil
	}
	size, err := strconv.Atoi(top)
	if err != nil || size < 1 {
		return 0, 0, "", refuse(http.StatusBadRequest, "InvalidQueryParameterValue", "$top: want a number from 1, got '%s'.", top)
	}
	if size >= n-from {
		return from, to, "", nil
	}
	to = from + size
	for name := range query {
		if strings.EqualFold(name, "$skipToken") {
			query.Del(name)
		}
	}
	query.Set("$skipToken", base64.RawURLEncoding.EncodeToString([]byte(key(to-1))))
	return from, to, c.endpoint() + c.r.URL.EscapedPath() + "?" + query.Encode(), nil
}
