package reconcile_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"penstock/internal/link"
	"penstock/internal/pki"
	"penstock/internal/resource"
)

// A look at one app on a machine with 1,000 apps of which 200 have a replica, and certificates of a real authority. The
// app is as it should be, or its routes have changed.
func BenchmarkLook(b *testing.B) {
	w := newWorld(b)
	authority, err := pki.LoadOrCreate(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	w.stop()
	w.issue = func(names []string) (link.Certificate, time.Time, error) {
		cert, key, renew, err := authority.Issue(names)
		return link.Certificate{Names: names, Cert: cert, Key: key}, renew, err
	}
	w.start()
	id := func(n int) resource.ID { return resource.AppID("s", "g", fmt.Sprintf("app-%04d", n)) }
	w.put(func(a *resource.App) { a.Template.Containers[0].Resources.Memory = 1 << 20 })
	pattern := w.app()
	for n := range 1000 {
		_, err := w.store.Apps().Put(b.Context(), id(n), func(a *resource.App, _ bool) error {
			*a = pattern
			a.AppStatus, a.Stopped = resource.AppStatus{}, n >= 200
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
	look := func(b *testing.B, app resource.ID) {
		if err := w.reconciler.Look(b.Context(), app); err != nil {
			b.Fatal(err)
		}
	}
	look(b, id(7))
	before := w.outside()
	b.Run("unchanged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			look(b, id(7))
		}
	})
	b.Run("changed", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			b.StopTimer()
			_, err := w.store.Apps().Put(b.Context(), id(7), func(a *resource.App, _ bool) error {
				in := *a.Configuration.Ingress
				in.AllowInsecure = !in.AllowInsecure
				a.Configuration.Ingress = &in
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			version := w.routes.last().Version
			b.StartTimer()
			look(b, id(7))
			if w.routes.last().Version == version {
				b.Fatal("the table is as it was")
			}
		}
	})
	if after := w.outside(); !maps.Equal(before, after) {
		b.Errorf("looks went outside memory: %v before, %v after", before, after)
	}
}
