package arm

import (
	"net/http"
	"slices"
	"strings"
)

// route is an address and what answers it. A part of the pattern in braces is a variable.
type route struct {
	method  string
	pattern []string
	handle  func(*call) error
	// provider says that Microsoft.App answers, and not Azure Resource Manager itself.
	provider bool
	// stream routes take the token of a stream and need no api-version.
	stream bool
	// query are the parameters with $ that it knows.
	query []string
}

const (
	groupPath       = "subscriptions/{subscription}/resourceGroups/{group}"
	namespace       = "Microsoft.App"
	providerPath    = "providers/" + namespace
	appPath         = groupPath + "/" + providerPath + "/containerApps/{app}"
	jobPath         = groupPath + "/" + providerPath + "/jobs/{job}"
	environmentPath = groupPath + "/" + providerPath + "/managedEnvironments/{environment}"
	operationPath   = "subscriptions/{subscription}/" + providerPath + "/locations/{location}"
)

func (a *api) routes() []route {
	var all []route
	on := func(method, pattern string, handle func(*call) error) *route {
		all = append(all, route{method: method, pattern: strings.Split(pattern, "/"), handle: handle, provider: strings.Contains(pattern, providerPath)})
		return &all[len(all)-1]
	}
	stream := func(pattern string, handle func(*call) error) {
		// Azure leaves the provider out of the addresses of streams; people do not.
		for _, p := range []string{pattern, strings.Replace(pattern, "/"+providerPath, "", 1)} {
			r := on(http.MethodGet, p, handle)
			r.stream, r.provider = true, false
		}
	}

	on(http.MethodGet, providerPath+"/operations", listOperations)
	on(http.MethodGet, "subscriptions", listSubscriptions)
	on(http.MethodGet, "subscriptions/{subscription}", getSubscription)
	on(http.MethodGet, "subscriptions/{subscription}/locations", listLocations)
	on(http.MethodGet, "subscriptions/{subscription}/providers", listProviders)
	on(http.MethodGet, "subscriptions/{subscription}/providers/{namespace}", getProvider)
	on(http.MethodPost, "subscriptions/{subscription}/providers/{namespace}/register", getProvider)
	on(http.MethodGet, "subscriptions/{subscription}/resourceGroups", listGroups)
	on(http.MethodPut, groupPath, putGroup)
	on(http.MethodGet, groupPath, getGroup)
	on(http.MethodHead, groupPath, headGroup)
	on(http.MethodDelete, groupPath, deleteGroup)

	for _, k := range kinds() {
		k.register(on)
		if name := k.operationsName(); name != "" {
			on(http.MethodGet, operationPath+"/"+name+"OperationStatuses/{operation}", getOperationStatus)
			on(http.MethodGet, operationPath+"/"+name+"OperationResults/{operation}", getOperationResult)
		}
	}
	on(http.MethodPost, "subscriptions/{subscription}/"+providerPath+"/getCustomDomainVerificationId", getVerificationID)
	on(http.MethodGet, operationPath+"/availableManagedEnvironmentsWorkloadProfileTypes", listProfileTypes)
	on(http.MethodGet, operationPath+"/usages", listUsages)
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
	return all
}

// match finds the route of a request. Fixed parts match in any case of letters; a slash at the end is passed over.
func match(rs []route, r *http.Request) (found route, vars map[string]string, err error) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	var methods []string
	for _, candidate := range rs {
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
	return route{}, nil, unknownAddress(parts)
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

// unknownAddress says which part of an address is none of this API's.
func unknownAddress(parts []string) error {
	at := slices.IndexFunc(parts, func(p string) bool { return strings.EqualFold(p, "providers") })
	switch {
	case at < 0 || at+1 >= len(parts):
		return refuse(http.StatusNotFound, "NotFound", "There is nothing at this address.")
	case !strings.EqualFold(parts[at+1], namespace):
		return refuse(http.StatusNotFound, "InvalidResourceNamespace", "The resource namespace '%s' is invalid; want %s.", parts[at+1], namespace)
	}
	typ := strings.Join(everyOther(parts[at+2:]), "/")
	return refuse(http.StatusNotFound, "InvalidResourceType",
		"The resource type '%s' is not built in the namespace '%s'; want one of those that /subscriptions/{subscription}/providers/%s tells.", typ, namespace, namespace)
}

// types are the types of resource that routes read one of, with the parts of a location.
func types(rs []route) []string {
	found := []string{"locations"}
	for _, rt := range rs {
		at := slices.Index(rt.pattern, namespace)
		if at < 0 || rt.method != http.MethodGet || rt.stream {
			continue
		}
		below := rt.pattern[at+1:]
		if typ := strings.Join(everyOther(below), "/"); len(below)%2 == 0 && !slices.Contains(found, typ) {
			found = append(found, typ)
		}
	}
	slices.Sort(found)
	return found
}

// everyOther keeps the types of an address and leaves the names out.
func everyOther(parts []string) []string {
	var kept []string
	for i := 0; i < len(parts); i += 2 {
		kept = append(kept, parts[i])
	}
	return kept
}
