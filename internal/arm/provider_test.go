package arm

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/store"
)

// A kind of another namespace brings its routes, its operations and its place in the lists of providers with it.
func TestSecondNamespace(t *testing.T) {
	sites := kind[resource.App]{resourceType: "Microsoft.Web/sites", vars: []string{"site"}, noun: "site", operations: "site"}
	slots := kind[resource.App]{resourceType: "Microsoft.Web/sites/slots", vars: []string{"site", "slot"}, noun: "slot"}
	a := newAPI(Config{Token: "token", Log: slog.New(slog.DiscardHandler), Reconcile: func(resource.ID) {}}, append(kinds(), sites, slots))
	get := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path+"?api-version=2025-01-01", nil)
		r.Header.Set("Authorization", "Bearer token")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w
	}
	read := func(path string, v any) {
		t.Helper()
		w := get(path)
		if err := json.Unmarshal(w.Body.Bytes(), v); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: got %d %s (%v)", path, w.Code, w.Body, err)
		}
	}

	var all struct{ Value []providerAnswer }
	read("/subscriptions/s/providers", &all)
	if len(all.Value) != 2 || all.Value[0].Namespace != "Microsoft.App" || all.Value[1].Namespace != "Microsoft.Web" {
		t.Errorf("providers: got %+v", all.Value)
	}
	var web providerAnswer
	read("/subscriptions/s/providers/microsoft.web", &web)
	var types []string
	for _, typ := range web.ResourceTypes {
		types = append(types, typ.ResourceType+": "+typ.Capabilities)
	}
	want := []string{
		"locations: None", "locations/siteOperationResults: None", "locations/siteOperationStatuses: None",
		"sites: SupportsTags, SupportsLocation", "sites/slots: None",
	}
	if web.ID != "/subscriptions/s/providers/Microsoft.Web" || !slices.Equal(types, want) {
		t.Errorf("got %s with %q; want %q", web.ID, types, want)
	}

	for namespace, want := range map[string]string{"Microsoft.App": "Microsoft.App/jobs/start/action", "Microsoft.Web": "Microsoft.Web/sites/slots/write"} {
		var operations struct{ Value []providerOperation }
		read("/providers/"+namespace+"/operations", &operations)
		if !slices.ContainsFunc(operations.Value, func(o providerOperation) bool { return o.Name == want }) {
			t.Errorf("%s: no %s in %+v", namespace, want, operations.Value)
		}
		for _, o := range operations.Value {
			if !strings.HasPrefix(o.Name, namespace+"/") {
				t.Errorf("%s has an operation %s", namespace, o.Name)
			}
		}
	}

	for path, want := range map[string]string{
		"/subscriptions/s/providers/Microsoft.Sql/servers":   "want Microsoft.App or Microsoft.Web.",
		"/subscriptions/s/providers/Microsoft.Sql":           "want Microsoft.App or Microsoft.Web.",
		"/subscriptions/s/providers/Microsoft.Web/farms/x/y": "'farms/y' is not built in the namespace 'Microsoft.Web'",
		"/subscriptions/s/providers/Microsoft.App/sites/x/y": "'sites/y' is not built in the namespace 'Microsoft.App'",
	} {
		if w := get(path); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: got %d %s; want 404 with %q", path, w.Code, w.Body, want)
		}
	}

	// An operation is polled under the namespace of its resource.
	w := httptest.NewRecorder()
	a.lastPrune.Store(time.Now().Unix())
	c := &call{api: a, w: w, r: httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/?api-version=2025-01-01", nil)}
	id := resource.ID{Subscription: "s", Group: "g", Type: "Microsoft.Web/sites", Name: "x"}
	c.begun(store.Operation{ID: "1", Resource: id, Started: time.Now(), Location: "koreacentral"}, "site")
	if got := w.Header().Get("Location"); !strings.Contains(got, "/subscriptions/s/providers/Microsoft.Web/locations/koreacentral/siteOperationResults/1?") {
		t.Errorf("the operation is polled at %s", got)
	}
}

// Every provider says which api-versions it has.
func TestProvidersHaveVersions(t *testing.T) {
	for _, p := range newProviders(newRoutes(kinds())) {
		if !slices.IsSorted(apiVersions[p.namespace]) || len(apiVersions[p.namespace]) == 0 {
			t.Errorf("%s has the api-versions %q; want at least one, the oldest first", p.namespace, apiVersions[p.namespace])
		}
	}
}
