package arm

import (
	"net/http"
	"slices"
	"strings"
)

// providerOperation is something that a user can be allowed to do, under the name that role assignments use for it.
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

// listOperations lists everything that can be done with the resources of a provider.
func listOperations(c *call) error {
	p, err := c.provider(c.namespace)
	if err != nil {
		return err
	}
	c.answer(http.StatusOK, pageOf(p.operations))
	return nil
}

// catalogue returns the operations that the routes of a provider offer, by name.
func catalogue(rs []route) []providerOperation {
	var all []providerOperation
	for _, rt := range rs {
		below := rt.belowProviders()[1:]
		if len(below) == 0 {
			continue
		}
		words := map[string]string{http.MethodGet: "read", http.MethodPut: "write", http.MethodPatch: "write", http.MethodDelete: "delete"}[rt.method]
		if rt.method == http.MethodPost {
			words = below[len(below)-1] + "/action"
			below = below[:len(below)-1]
		}
		typ := strings.Join(everyOther(below), "/")
		name := strings.TrimSuffix(rt.namespace+"/"+typ, "/") + "/" + words
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
