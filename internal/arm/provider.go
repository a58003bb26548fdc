package arm

import (
	"net/http"
	"slices"
	"strings"

	"penstock/internal/resource"
)

// provider is a resource provider: a namespace, and what its routes offer.
type provider struct {
	namespace string
	// types are the resource types that can be read one at a time, without the namespace, and "locations".
	types      []string
	operations []providerOperation
}

// apiVersions lists, by namespace, the api-versions that Azure documents, the oldest first. Requests in any other version
// get answers in the same form.
var apiVersions = map[string][]string{
	namespaceOf(resource.TypeApp): {
		"2022-03-01", "2022-10-01", "2023-05-01", "2024-03-01", "2025-01-01", "2025-07-01", "2026-01-01", "2026-07-01",
	},
}

// newProviders returns the providers of all routes, in the order of their namespaces.
func newProviders(rs []route) []provider {
	var all []provider
	for _, rt := range rs {
		if rt.namespace == "" || slices.ContainsFunc(all, func(p provider) bool { return p.namespace == rt.namespace }) {
			continue
		}
		of := slices.DeleteFunc(slices.Clone(rs), func(other route) bool { return other.namespace != rt.namespace || other.stream || other.unlisted })
		all = append(all, provider{namespace: rt.namespace, types: types(of), operations: catalogue(of)})
	}
	slices.SortFunc(all, func(a, b provider) int { return strings.Compare(a.namespace, b.namespace) })
	return all
}

// provider finds a provider by its namespace, in any case.
func (a *api) provider(namespace string) (provider, error) {
	var known []string
	for _, p := range a.providers {
		if strings.EqualFold(p.namespace, namespace) {
			return p, nil
		}
		known = append(known, p.namespace)
	}
	return provider{}, refuse(http.StatusNotFound, "InvalidResourceNamespace",
		"The resource namespace '%s' is invalid; want %s.", namespace, strings.Join(known, " or "))
}

// types returns the resource types that the routes of a provider read one of, and "locations" if any route has one.
func types(rs []route) []string {
	var found []string
	add := func(typ string) {
		if !slices.Contains(found, typ) {
			found = append(found, typ)
		}
	}
	for _, rt := range rs {
		below := rt.belowProviders()[1:]
		if len(below) > 0 && below[0] == "locations" {
			add("locations")
		}
		if rt.method == http.MethodGet && len(below)%2 == 0 {
			add(strings.Join(everyOther(below), "/"))
		}
	}
	slices.Sort(found)
	return found
}
