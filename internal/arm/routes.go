package arm

import (
	"net/http"
	"slices"
	"strings"

	"penstock/internal/resource"
)

// route is a method and an address, with the handler that answers them. A part of the pattern in braces is a variable.
type route struct {
	method  string
	pattern []string
	handle  func(*call) error
	// namespace is that of the resource provider that answers, as in "Microsoft.App". It is empty when Azure Resource
	// Manager itself answers.
	namespace string
	// stream routes accept the token of a stream and need no api-version.
	stream bool
	// open routes need neither a token nor an api-version.
	open bool
	// unlisted routes add nothing to the types and operations of a provider.
	unlisted bool
	// query lists the query parameters beginning with $ that the route accepts.
	query []string
}

const (
	groupPath       = "subscriptions/{subscription}/resourceGroups/{group}"
	appPath         = groupPath + "/providers/" + resource.TypeApp + "/{app}"
	jobPath         = groupPath + "/providers/" + resource.TypeJob + "/{job}"
	environmentPath = groupPath + "/providers/" + resource.TypeEnvironment + "/{environment}"
)

// locationPath returns the address of a location of a resource provider.
func locationPath(namespace string) string {
	return "subscriptions/{subscription}/providers/" + namespace + "/locations/{location}"
}

// namespaceOf returns the namespace of a resource type: "Microsoft.App" of "Microsoft.App/jobs".
func namespaceOf(typ string) string {
	namespace, _, _ := strings.Cut(typ, "/")
	return namespace
}

// newRoutes returns the routes of all kinds of resource, those that only Container Apps has, and those of Azure Resource
// Manager itself.
func newRoutes(kinds []resources) []route {
	var all []route
	on := func(method, pattern string, handle func(*call) error) *route {
		r := route{method: method, pattern: strings.Split(pattern, "/"), handle: handle}
		if below := r.belowProviders(); len(below) > 0 && !strings.HasPrefix(below[0], "{") {
			r.namespace = below[0]
		}
		all = append(all, r)
		return &all[len(all)-1]
	}
	stream := func(pattern string, handle func(*call) error) {
		r := on(http.MethodGet, pattern, handle)
		r.stream = true
		// Azure leaves the provider out of the addresses of streams; people do not.
		on(http.MethodGet, strings.Replace(pattern, "/providers/"+r.namespace, "", 1), handle).stream = true
	}

	loginRoutes(func(method, pattern string, handle func(*call) error) { on(method, pattern, handle).open = true })
	on(http.MethodGet, "subscriptions", listSubscriptions)
	on(http.MethodGet, "subscriptions/{subscription}", getSubscription)
	on(http.MethodGet, "subscriptions/{subscription}/locations", listLocations)
	on(http.MethodGet, "subscriptions/{subscription}/providers", listProviders)
	on(http.MethodGet, "subscriptions/{subscription}/providers/{namespace}", getProvider)
	on(http.MethodPost, "subscriptions/{subscription}/providers/{namespace}/register", getProvider)
	on(http.MethodGet, "subscriptions/{subscription}/resourceGroups", listGroups).query = []string{"$filter"}
	on(http.MethodPut, groupPath, putGroup)
	on(http.MethodGet, groupPath, getGroup)
	on(http.MethodHead, groupPath, headGroup)
	on(http.MethodDelete, groupPath, deleteGroup)
	on(http.MethodGet, groupPath+tagsPath, getGroupTags).namespace = ""
	for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodDelete} {
		on(method, groupPath+tagsPath, changeGroupTags).namespace = ""
	}
	inventory := append(pageQuery(), "$filter", "$expand")
	on(http.MethodGet, "subscriptions/{subscription}/resources", listResources).query = inventory
	on(http.MethodGet, groupPath+"/resources", listResources).query = inventory
	on(http.MethodGet, "subscriptions/{subscription}/operationresults/{operation}", getGroupResult)

	var namespaces []string
	for _, k := range kinds {
		namespace := namespaceOf(k.typ())
		if !slices.Contains(namespaces, namespace) {
			namespaces = append(namespaces, namespace)
			on(http.MethodGet, "providers/"+namespace+"/operations", listOperations)
		}
		k.register(on)
		if name := k.operationsName(); name != "" {
			on(http.MethodGet, locationPath(namespace)+"/"+name+"OperationStatuses/{operation}", getOperationStatus)
			on(http.MethodGet, locationPath(namespace)+"/"+name+"OperationResults/{operation}", getOperationResult)
		}
	}

	containerApps := namespaceOf(resource.TypeApp)
	on(http.MethodPost, "subscriptions/{subscription}/providers/"+containerApps+"/getCustomDomainVerificationId", getVerificationID)
	on(http.MethodGet, locationPath(containerApps)+"/availableManagedEnvironmentsWorkloadProfileTypes", listProfileTypes)
	on(http.MethodGet, locationPath(containerApps)+"/usages", listUsages)
	on(http.MethodGet, environmentPath+"/usages", listEnvironmentUsages)
	on(http.MethodGet, environmentPath+"/workloadProfileStates", listProfileStates)
	on(http.MethodPost, environmentPath+"/checkNameAvailability", checkName)
	on(http.MethodPost, environmentPath+"/getAuthtoken", getAuthToken)
	on(http.MethodPost, appPath+"/getAuthtoken", getAuthToken)
	on(http.MethodPost, appPath+"/listCustomHostNameAnalysis", analyseHost)
	on(http.MethodPost, appPath+"/listSecrets", listSecrets)
	on(http.MethodPost, appPath+"/start", startApp)
	on(http.MethodPost, appPath+"/stop", stopApp)
	on(http.MethodGet, appPath+"/revisions", listRevisions).query = []string{"$filter"}
	on(http.MethodGet, appPath+"/revisions/{revision}", getRevision)
	on(http.MethodPost, appPath+"/revisions/{revision}/activate", activateRevision)
	on(http.MethodPost, appPath+"/revisions/{revision}/deactivate", deactivateRevision)
	on(http.MethodPost, appPath+"/revisions/{revision}/restart", restartRevision)
	on(http.MethodGet, appPath+"/revisions/{revision}/replicas", listReplicas)
	on(http.MethodGet, appPath+"/revisions/{revision}/replicas/{replica}", getReplica)
	on(http.MethodGet, appPath+"/scalingDecisions", listDecisions).query = append(pageQuery(), "$filter")
	on(http.MethodGet, appPath+"/scalingDecisions/{decision}", getDecision)

	on(http.MethodPost, jobPath+"/getAuthtoken", getAuthToken)
	on(http.MethodPost, jobPath+"/listSecrets", listJobSecrets)
	on(http.MethodPost, jobPath+"/start", startJob)
	on(http.MethodPost, jobPath+"/stop", stopJob)
	on(http.MethodPost, jobPath+"/suspend", suspendJob)
	on(http.MethodPost, jobPath+"/resume", resumeJob)

	stream(jobPath+"/logstream", streamConsole)
	stream(jobPath+"/executions/{execution}/replicas/{replica}/containers/{container}/logstream", streamConsole)
	stream(jobPath+"/eventstream", streamEvents)
	stream(appPath+"/logstream", streamConsole)
	stream(appPath+"/revisions/{revision}/replicas/{replica}/containers/{container}/logstream", streamConsole)
	stream(appPath+"/revisions/{revision}/replicas/{replica}/containers/{container}/exec", exec)
	stream(appPath+"/eventstream", streamEvents)
	stream(environmentPath+"/eventstream", streamEvents)
	stream(appPath+"/requeststream", streamRequests)
	absentRoutes(on)
	return all
}

// belowProviders returns the parts of the pattern after "providers", beginning with the namespace. It is empty without
// "providers".
func (rt route) belowProviders() []string {
	if at := slices.Index(rt.pattern, "providers"); at >= 0 {
		return rt.pattern[at+1:]
	}
	return nil
}

// match finds the route of a request. Fixed parts match in any case, and a slash at the end is ignored.
func (a *api) match(r *http.Request) (found route, vars map[string]string, err error) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	var methods []string
	for _, candidate := range a.routes {
		vars, ok := candidate.match(parts)
		if !ok {
			continue
		}
		if candidate.method == r.Method {
			return candidate, vars, nil
		}
		methods = append(methods, candidate.method)
	}
	if len(methods) > 0 {
		return route{}, nil, &apiError{
			status:  http.StatusMethodNotAllowed,
			code:    "MethodNotAllowed",
			message: "The method " + r.Method + " is not built for this address; want " + strings.Join(methods, ", ") + ".",
			allow:   methods,
		}
	}
	return route{}, nil, a.unknownAddress(parts)
}

func (rt route) match(parts []string) (map[string]string, bool) {
	if len(parts) != len(rt.pattern) {
		return nil, false
	}
	vars := map[string]string{}
	for i, want := range rt.pattern {
		switch {
		case strings.HasPrefix(want, "{"):
			if parts[i] == "" {
				return nil, false
			}
			vars[strings.Trim(want, "{}")] = parts[i]
		case !strings.EqualFold(want, parts[i]):
			return nil, false
		}
	}
	return vars, true
}

// unknownAddress says which part of an address does not exist in this API.
func (a *api) unknownAddress(parts []string) error {
	at := slices.IndexFunc(parts, func(p string) bool { return strings.EqualFold(p, "providers") })
	if at < 0 || at+1 >= len(parts) {
		return refuse(http.StatusNotFound, "NotFound", "There is nothing at this address.")
	}
	p, err := a.provider(parts[at+1])
	if err != nil {
		return err
	}
	typ := strings.Join(everyOther(parts[at+2:]), "/")
	return refuse(http.StatusNotFound, "InvalidResourceType",
		"The resource type '%s' is not built in the namespace '%s'; want one that /subscriptions/{subscription}/providers/%s lists.", typ, p.namespace, p.namespace)
}

// everyOther returns the types in an address, without the names.
func everyOther(parts []string) []string {
	var kept []string
	for i := 0; i < len(parts); i += 2 {
		kept = append(kept, parts[i])
	}
	return kept
}
