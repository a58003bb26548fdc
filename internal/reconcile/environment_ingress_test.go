package reconcile_test

import (
	"testing"
	"time"

	"penstock/internal/resource"
)

// What an environment asks of the ingress holds for its apps at once, and makes no revision.
func TestTheIngressOfAnEnvironment(t *testing.T) {
	w := newWorld(t)
	first := w.put(func(*resource.App) {}).LatestRevision
	_, err := w.store.Environments().Put(t.Context(), environment, func(e *resource.Environment, _ bool) error {
		e.Ingress = resource.EnvironmentIngress{IdleTimeout: 30 * time.Minute, MaxHeaders: 200}
		e.Generation++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reconciler.Touch(environment)
	w.until("the table has it", func() bool {
		table := w.routes.last()
		return len(table.Routes) > 0 && table.Routes[0].MaxHeaders == 200 && w.routes.revision(first).Settings.IdleTimeout == 30*time.Minute
	})
	for _, route := range w.routes.last().Routes {
		if route.MaxHeaders != 200 {
			t.Errorf("route of %s: got %d fields, want 200", route.Host, route.MaxHeaders)
		}
	}
	if got := w.app().LatestRevision; got != first {
		t.Errorf("it made revision %s", got)
	}
}
