package reconcile_test

import (
	"fmt"
	"testing"

	"penstock/internal/resource"
)

// A look at one app that is as it should be, on a machine with 1,000 apps of which 200 have a replica.
func BenchmarkLook(b *testing.B) {
	w := newWorld(b)
	id := func(n int) resource.ID { return resource.AppID("s", "g", fmt.Sprintf("app-%04d", n)) }
	w.put(func(a *resource.App) { a.Template.Containers[0].Resources.Memory = 1 << 20 })
	pattern := w.app()
	for n := range 1000 {
		_, err := w.store.Apps().Put(b.Context(), id(n), func(a *resource.App, _ bool) error {
			*a = pattern
			a.LatestRevision, a.LatestReadyRevision, a.Observed, a.Stopped = "", "", 0, n >= 200
			a.Provisioning = resource.InProgress
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		w.reconciler.Touch(id(n))
	}
	w.until("200 replicas are routed to", func() bool {
		ready := 0
		for _, rev := range w.routes.last().Revisions {
			ready += len(rev.Replicas)
		}
		return ready == 201
	})
	w.until("all apps are settled", func() bool {
		for n := range 1000 {
			if a, err := w.store.Apps().Get(b.Context(), id(n)); err != nil || a.Observed != a.Generation {
				return false
			}
		}
		return true
	})
	b.ReportAllocs()
	for b.Loop() {
		if err := w.reconciler.Look(b.Context(), id(7)); err != nil {
			b.Fatal(err)
		}
	}
}
