package arm_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"penstock/internal/resource"
)

func BenchmarkPutApp(b *testing.B) {
	s := start(b)
	s.environment("e")
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		s.want(201, "PUT", chatPath, chat(nil))
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

func BenchmarkListThousandApps(b *testing.B) {
	s := start(b)
	s.environment("e")
	a := s.app("chat", chat(nil))
	if a.status != 200 {
		b.Fatal(a.status)
	}
	template, err := s.store.Apps().Get(b.Context(), chatID)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 999 {
		_, err := s.store.Apps().Put(b.Context(), resource.AppID(subscription, "ml", fmt.Sprintf("app-%03d", i)), func(a *resource.App, _ bool) error {
			*a = template
			a.AppStatus = resource.AppStatus{}
			a.ID = resource.AppID(subscription, "ml", fmt.Sprintf("app-%03d", i))
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if a := s.want(200, "GET", base+"/containerApps"+version, ""); len(a.body) < 1000*500 {
			b.Fatalf("only %d bytes", len(a.body))
		}
	}
}
