package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/store"
)

func BenchmarkPut(b *testing.B) {
	s := fresh(b)
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		_, err := s.Apps().Put(b.Context(), chat().ID, func(v *resource.App, exists bool) error {
			if !exists {
				*v = chat()
			}
			v.Generation++
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

func BenchmarkListThousandApps(b *testing.B) {
	s := fresh(b)
	for i := range 1000 {
		app := chat()
		app.ID = resource.AppID("s", "g", fmt.Sprintf("app-%04d", i))
		putApp(b, s, app)
	}
	for b.Loop() {
		all, err := s.Apps().List(b.Context(), store.Scope{Subscription: "s", Group: "g"})
		if err != nil || len(all) != 1000 {
			b.Fatalf("got %d apps, %v", len(all), err)
		}
	}
}
