package arm_test

import (
	"reflect"
	"testing"
	"time"

	"penstock/internal/resource"
)

// The ingress settings of an environment are stored for reconcile, and a client can write back what it reads.
func TestIngressOfAnEnvironmentIsWritten(t *testing.T) {
	s := start(t)
	put := func(body string) {
		t.Helper()
		s.await(s.want(201, "PUT", environmentE+version, body), "Azure-AsyncOperation")
	}
	stored := func(want resource.EnvironmentIngress) {
		t.Helper()
		e, err := s.store.Environments().Get(t.Context(), resource.EnvironmentID(subscription, "ml", "e"))
		if err != nil {
			t.Fatal(err)
		}
		if e.Ingress != want {
			t.Errorf("stored: got %+v, want %+v", e.Ingress, want)
		}
	}
	put(`{"location":"koreacentral","properties":{"ingressConfiguration":{"requestIdleTimeout":30,"headerCountLimit":200}}}`)
	stored(resource.EnvironmentIngress{IdleTimeout: 30 * time.Minute, MaxHeaders: 200})

	read := s.want(200, "GET", environmentE+version, "")
	if idle, headers := read.get(t, "properties", "ingressConfiguration", "requestIdleTimeout"), read.get(t, "properties", "ingressConfiguration", "headerCountLimit"); idle != 30.0 || headers != 200.0 {
		t.Errorf("read: got %v minutes and %v headers, want 30 and 200", idle, headers)
	}
	put(string(read.body))
	stored(resource.EnvironmentIngress{IdleTimeout: 30 * time.Minute, MaxHeaders: 200})
	again := s.want(200, "GET", environmentE+version, "")
	if !reflect.DeepEqual(again.get(t, "properties"), read.get(t, "properties")) {
		t.Errorf("writing back what was read changed it from\n%s\nto\n%s", read.body, again.body)
	}

	s.await(s.want(202, "PATCH", environmentE+version, `{"properties":{"ingressConfiguration":{"headerCountLimit":100}}}`), "Location")
	stored(resource.EnvironmentIngress{IdleTimeout: 30 * time.Minute, MaxHeaders: 100})
	put(`{"location":"koreacentral","properties":{}}`)
	stored(resource.EnvironmentIngress{})
}
