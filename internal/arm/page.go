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
// removed between two requests. The keys are resource IDs.
func (c *call) paged(n int, key func(int) string) (from, to int, next string, err error) {
	top, last, err := c.part(func(last string) error {
		_, err := resource.ParseID(last)
		return err
	})
	if err != nil {
		return 0, 0, "", err
	}
	if last != "" {
		from = sort.Search(n, func(i int) bool { return key(i) > last })
	}
	if top == 0 || top >= n-from {
		return from, n, "", nil
	}
	to = from + top
	return from, to, c.nextPart(key(to - 1)), nil
}

// part returns the $top of a request, or 0 without one, and the key after which the part that it asks for begins, or ""
// for the first part. check returns an error if a key is none.
func (c *call) part(check func(key string) error) (top int, last string, err error) {
	for name, values := range c.r.URL.Query() {
		switch {
		case strings.EqualFold(name, "$top"):
			if top, err = strconv.Atoi(values[0]); err != nil || top < 1 {
				return 0, "", refuse(http.StatusBadRequest, "InvalidQueryParameterValue", "$top: want a number from 1, got '%s'.", values[0])
			}
		case strings.EqualFold(name, "$skipToken"):
			key, err := base64.RawURLEncoding.DecodeString(values[0])
			if err != nil || check(string(key)) != nil {
				return 0, "", refuse(http.StatusBadRequest, "InvalidSkipToken", "$skipToken: want the value in a nextLink, got '%s'.", values[0])
			}
			last = string(key)
		}
	}
	return top, last, nil
}

// nextPart returns the address of the part of a list that begins after the key last.
func (c *call) nextPart(last string) string {
	query := c.r.URL.Query()
	for name := range query {
		if strings.EqualFold(name, "$skipToken") {
			query.Del(name)
		}
	}
	query.Set("$skipToken", base64.RawURLEncoding.EncodeToString([]byte(last)))
	return c.endpoint() + c.r.URL.EscapedPath() + "?" + query.Encode()
}
