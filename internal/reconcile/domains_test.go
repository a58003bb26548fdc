package reconcile_test

import (
	"slices"
	"testing"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// A domain of an app leads where the app's host does, with the certificate that it was uploaded with, and with its next one
// as soon as that is written.
func TestDomainsOfAnAppsOwn(t *testing.T) {
	w := newWorld(t)
	site := environment.Child("certificates", "site")
	upload := func(key string) {
		t.Helper()
		_, err := w.store.Certificates().Put(t.Context(), site, func(c *resource.Certificate, _ bool) error {
			c.ID, c.Chain, c.Sealed = site, []byte("chain"), []byte(key)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		w.reconciler.Touch(environment)
	}
	upload("first")
	w.put(func(a *resource.App) {
		a.Configuration.Ingress.Domains = []resource.CustomDomain{{Name: "chat.example.com", Certificate: site}, {Name: "plain.example.com"}}
	})
	find := func(host string) (found link.Route) {
		for _, r := range w.routes.last().Routes {
			if r.Host == host {
				found = r
			}
		}
		return found
	}
	app := find("chat.example.localhost")
	for _, host := range []string{"chat.example.com", "plain.example.com"} {
		if got := find(host); len(got.Targets) != 1 || got.Targets[0] != app.Targets[0] || got.App != app.App || !got.External || got.Name != "" {
			t.Errorf("%s: got %+v, want the way of %+v", host, got, app)
		}
	}
	shows := func(key string) bool {
		return slices.ContainsFunc(w.routes.last().Certificates, func(c link.Certificate) bool {
			return slices.Equal(c.Names, []string{"chat.example.com"}) && string(c.Cert) == "chain" && string(c.Key) == key
		})
	}
	if !shows("first") {
		t.Errorf("got %+v, want the certificate of chat.example.com", w.routes.last().Certificates)
	}
	upload("second")
	w.until("the next certificate is shown", func() bool { return shows("second") && !shows("first") })

	// Without it the domain has no TLS, and everything else goes on.
	if err := w.store.Certificates().Delete(t.Context(), site); err != nil {
		t.Fatal(err)
	}
	w.put(func(a *resource.App) { a.Configuration.Ingress.AllowInsecure = true })
	if got := find("chat.example.com"); len(w.routes.last().Certificates) != 1 || !got.AllowInsecure {
		t.Errorf("got %+v and %+v, want no certificate, and the route", w.routes.last().Certificates, got)
	}
}
