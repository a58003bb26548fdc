package reconcile_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// The ports of a TCP app lead where its host would, and it has no host.
func TestPortsOfATCPApp(t *testing.T) {
	w := newWorld(t)
	app := w.put(func(a *resource.App) {
		in := a.Configuration.Ingress
		in.Transport, in.TargetPort, in.External, in.AllowInsecure = resource.TransportTCP, 6379, true, false
		in.Additional = []resource.PortMapping{{TargetPort: 9000, ExposedPort: 9001}}
		in.IPRules = []resource.IPRule{{Name: "office", Range: "192.0.2.0/24", Allow: true}}
	})
	table := w.routes.last()
	if len(table.Routes) > 0 {
		t.Errorf("routes: got %+v, want none", table.Routes)
	}
	policy := &link.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	main := link.TCPRoute{
		Port: 6379, External: true, Environment: environment.String(), Name: "chat", App: chat.String(), Policy: policy,
		Targets: []link.Target{{Revision: chat.Child("revisions", app.LatestRevision).String(), Weight: 100}},
	}
	more := main
	more.Port, more.TargetPort, more.External = 9001, 9000, false
	want := []link.TCPRoute{main, more}
	if diff := cmp.Diff(want, table.TCP, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("routes of ports (-want +got):\n%s", diff)
	}
	gateway := netip.MustParseAddr("10.9.0.1")
	exposes := func(ports ...uint16) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		var want []netip.AddrPort
		for _, port := range ports {
			want = append(want, netip.AddrPortFrom(gateway, port))
		}
		return slices.Equal(w.exposed, want)
	}
	if !exposes(6379, 9001) {
		t.Errorf("exposed: got %v, want both ports", w.exposed)
	}

	// Rules that cannot be changed now are changed later.
	w.mu.Lock()
	w.deaf = true
	w.mu.Unlock()
	w.write(func(a *resource.App) {
		a.Configuration.Ingress.Transport, a.Configuration.Ingress.External = resource.TransportAuto, true
	})
	w.until("the routes are there without the rules", func() bool { return len(w.routes.last().Routes) > 0 })
	w.mu.Lock()
	w.deaf = false
	w.mu.Unlock()
	w.until("the rules follow", func() bool { return exposes(9001) })
	if table := w.routes.last(); len(table.TCP) != 1 || table.TCP[0].Port != 9001 {
		t.Errorf("got %+v, want the additional port beside the host", table.TCP)
	}
	w.settled()

	w.put(func(a *resource.App) { a.Stopped = true })
	if table := w.routes.last(); len(table.TCP) > 0 || !exposes() {
		t.Errorf("a stopped app: got %+v, exposed %v", table.TCP, w.exposed)
	}
}
