package arm

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"penstock/internal/resource"
)

// absentTypes are Azure's types of which there is never a resource here, with the check of what they are below. Clients list
// many of them before they do something else, so their lists are empty rather than unknown.
func absentTypes() map[string]func(*call) error {
	inApp := func(c *call) error { _, err := appKind().find(c); return err }
	inJob := func(c *call) error { _, err := jobKind().find(c); return err }
	inEnvironment := func(c *call) error { _, err := environmentKind().find(c); return err }
	return map[string]func(*call) error{
		appPath + "/authConfigs":                                     inApp,
		appPath + "/detectors":                                       inApp,
		appPath + "/labelHistory":                                    inApp,
		appPath + "/resiliencyPolicies":                              inApp,
		appPath + "/sourcecontrols":                                  inApp,
		jobPath + "/detectors":                                       inJob,
		environmentPath + "/daprComponents":                          inEnvironment,
		environmentPath + "/detectors":                               inEnvironment,
		environmentPath + "/dotNetComponents":                        inEnvironment,
		environmentPath + "/httpRouteConfigs":                        inEnvironment,
		environmentPath + "/javaComponents":                          inEnvironment,
		environmentPath + "/maintenanceConfigurations":               inEnvironment,
		environmentPath + "/managedCertificates":                     inEnvironment,
		environmentPath + "/privateEndpointConnections":              inEnvironment,
		groupPath + "/providers/Microsoft.App/connectedEnvironments": nil,
		groupPath + "/providers/Microsoft.App/sessionPools":          nil,
	}
}

// absentRoutes adds the routes of absentTypes. They are not listed among the types of a provider.
func absentRoutes(on func(method, pattern string, handle func(*call) error) *route) {
	absent := func(method, pattern string, handle func(*call) error) { on(method, pattern, handle).unlisted = true }
	types := absentTypes()
	for _, list := range slices.Sorted(maps.Keys(types)) {
		parent := types[list]
		under := func(handle func(*call) error) func(*call) error {
			return func(c *call) error {
				if parent != nil {
					if err := parent(c); err != nil {
						return err
					}
				}
				return handle(c)
			}
		}
		// The variables of the pattern make up the name of what a request asks for.
		_, below, _ := strings.Cut(list, "/providers/")
		parts := strings.Split(below+"/{absent}", "/")
		of := func(c *call) resource.ID {
			id := resource.ID{Subscription: c.vars["subscription"], Group: c.vars["group"], Type: parts[0]}
			var names []string
			for i := 1; i < len(parts); i += 2 {
				id.Type += "/" + parts[i]
				names = append(names, c.vars[strings.Trim(parts[i+1], "{}")])
			}
			id.Name = strings.Join(names, "/")
			return id
		}
		missing := under(func(c *call) error { return notFound(of(c)) })
		one := list + "/{absent}"
		absent(http.MethodGet, list, under(listNothing))
		if parent == nil {
			absent(http.MethodGet, "subscriptions/{subscription}/providers/"+below, listNothing)
		}
		absent(http.MethodGet, one, missing)
		absent(http.MethodPatch, one, missing)
		absent(http.MethodPost, one+"/{action}", missing)
		absent(http.MethodDelete, one, under(func(c *call) error {
			c.w.WriteHeader(http.StatusNoContent)
			return nil
		}))
		absent(http.MethodPut, one, under(func(c *call) error {
			return refuse(http.StatusBadRequest, resource.CodeNotBuilt, "Resources of the type '%s' are not built here; docs/compatibility.md lists what is.", of(c).Type)
		}))
	}
	environment := groupPath + "/providers/Microsoft.App/connectedEnvironments/{environment}"
	noParent := func(c *call) error {
		return refuse(http.StatusNotFound, "ParentResourceNotFound",
			"Failed to perform '%s' on resource(s) of type 'connectedEnvironments/%s', because the parent resource '%s' could not be found.",
			strings.ToLower(c.r.Method), c.vars["type"], "Microsoft.App/connectedEnvironments/"+c.vars["environment"])
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		absent(method, environment+"/{type}/{name}", noParent)
	}
	absent(http.MethodGet, environment+"/{type}", noParent)
	absent(http.MethodPost, environment+"/{type}/{name}/{action}", noParent)
	absent(http.MethodGet, locationPath("Microsoft.App")+"/billingMeters", listNothing)
}

func listNothing(c *call) error {
	c.answer(http.StatusOK, pageOf[struct{}](nil))
	return nil
}
