package arm

import (
	"net/http"
	"slices"
	"strings"
)

// providerOperation is something that a user may be allowed to do, by the name that role assignments have for it.
type providerOperation struct {
	Name         string                   `json:"name"`
	IsDataAction bool                     `json:"isDataAction"`
	Origin       string                   `json:"origin"`
	Display      providerOperationDisplay `json:"display"`
}

type providerOperationDisplay struct {
	Provider    string `json:"provider"`
	Resource    string `json:"resource"`
	Operation   string `json:"operation"`
	Description string `json:"description"`
}

// listOperations tells all that can be done with the provider's resources. It follows from the routes.
func listOperations(c *call) error {
	c.answer(http.StatusOK, pageOf(c.catalogue))
	return nil
}

func catalogue(rs []route) []providerOperation {
	var all []providerOperation
	for _, rt := range rs {
		at := slices.Index(rt.pattern, namespace)
		if at < 0 || rt.stream || at+1 >= len(rt.pattern) {
			continue
		}
		below := rt.pattern[at+1:]
		words := map[string]string{http.MethodGet: "read", http.MethodPut: "write", http.MethodPatch: "write", http.MethodDelete: "delete"}[rt.method]
		if rt.method == http.MethodPost {
			words = below[len(below)-1] + "/action"
			below = below[:len(below)-1]
		}
		typ := strings.Join(everyOther(below), "/")
		name := strings.TrimSuffix(namespace+"/"+typ, "/") + "/" + words
		if slices.ContainsFunc(all, func(o providerOperation) bool { return o.Name == name }) {
			continue
		}
		all = append(all, providerOperation{
			Name: name, Origin: "user,system",
			Display: providerOperationDisplay{Provider: "Penstock", Resource: typ, Operation: words, Description: rt.method + " " + strings.Join(rt.pattern, "/")},
		})
	}
	slices.SortFunc(all, func(a, b providerOperation) int { return strings.Compare(a.Name, b.Name) })
	return all
}
