package reconcile_test

import (
	"context"
	"slices"
	"testing"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// unopened hands out what is sent to it. A second value is taken only when the first has been reported.
type unopened chan []link.Unopened

func (u unopened) Unopened(ctx context.Context, _ []link.Unopened) ([]link.Unopened, error) {
	select {
	case now := <-u:
		return now, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func TestReportPorts(t *testing.T) {
	w := newWorld(t)
	w.put(func(a *resource.App) {
		a.Configuration.Ingress.Transport, a.Configuration.Ingress.TargetPort = resource.TransportTCP, 6379
	})
	ports, ended := make(unopened), make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		defer close(ended)
		w.reconciler.ReportPorts(ctx, ports)
	}()
	say := func(now ...link.Unopened) {
		t.Helper()
		select {
		case ports <- now:
		case <-ended:
			t.Fatal("ReportPorts has returned")
		}
	}
	redis := link.Unopened{Port: 6379, App: chat.String(), Reason: "already in use by redis-server (pid 7)"}
	nginx := link.Unopened{Port: 6379, App: chat.String(), Reason: "already in use by nginx (pid 8)"}
	other := link.Unopened{Port: 9000, App: chat.String(), Reason: "already in use"}
	bad := link.Unopened{Port: 1, App: "no resource ID", Reason: "already in use"}

	say(redis, bad)
	say(redis, other) // redis is old, and bad has no app that could hear of its end
	say(nginx)        // another reason is news and not the port's opening; the app does not expose 9000
	say()
	say(redis)
	w.put(func(a *resource.App) { a.Configuration.Ingress = nil })
	say() // the port is not wanted any more, so nothing is open
	stop()
	<-ended

	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for _, e := range w.events {
		if e.Source != "Ingress" {
			continue
		}
		if e.App != chat || e.At.IsZero() || e.Warning != (e.Reason == "ExposedPortUnavailable") {
			t.Errorf("got %+v; want a warning of the app while a port cannot be opened", e)
		}
		got = append(got, e.Reason+": "+e.Message)
	}
	want := []string{
		"ExposedPortUnavailable: Nobody can connect to port 6379 of this machine: already in use by redis-server (pid 7)",
		"ExposedPortUnavailable: Nobody can connect to port 9000 of this machine: already in use",
		"ExposedPortUnavailable: Nobody can connect to port 6379 of this machine: already in use by nginx (pid 8)",
		"ExposedPortOpened: Port 6379 is open",
		"ExposedPortUnavailable: Nobody can connect to port 6379 of this machine: already in use by redis-server (pid 7)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
