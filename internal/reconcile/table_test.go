package reconcile_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
)

// Whatever is written, by whomever and at once, the next look at any app publishes the table that a platform would make
// that has just started.
func TestNoPartOfTheTableIsStale(t *testing.T) {
	w := newWorld(t)
	w.put(func(*resource.App) {})
	second := resource.EnvironmentID("s", "g", "second")
	certificates := []resource.ID{environment.Child("certificates", "a"), environment.Child("certificates", "b"), second.Child("certificates", "a")}
	app := func(n int) resource.ID { return resource.AppID("s", "g", fmt.Sprintf("app-%d", n)) }
	pattern := w.app()

	// write does one random thing, and asks for a look at what it has written only when told to.
	write := func(r *rand.Rand, tell bool) error {
		id := app(r.IntN(6))
		at, in := environment, r.IntN(2) == 0
		if in {
			at = second
		}
		told := id
		var err error
		switch r.IntN(13) {
		case 0, 1: // an app that a user writes
			_, err = w.store.Apps().Put(t.Context(), id, func(a *resource.App, exists bool) error {
				if !a.Deleted.IsZero() {
					return nil
				}
				if !exists {
					a.Template, a.Environment = pattern.Template, at
				}
				a.Configuration.Ingress = &resource.Ingress{External: in, TargetPort: 8080, Transport: resource.TransportAuto}
				a.Configuration.Mode = resource.Single
				if r.IntN(3) == 0 {
					a.Configuration.Mode = resource.Multiple
				}
				if r.IntN(3) == 0 {
					a.Configuration.Ingress.Transport, a.Configuration.Ingress.ExposedPort = resource.TransportTCP, 6000+r.IntN(9)
				}
				if r.IntN(2) == 0 {
					c := certificates[r.IntN(len(certificates))]
					a.Configuration.Ingress.Domains = []resource.CustomDomain{{Name: id.Base() + ".example.com", Certificate: c}, {Name: "plain.example.com"}}
				}
				a.Template.Scale.Min = 1 + r.IntN(2)
				a.Template.Containers = []resource.Container{{Name: "chat", Image: fake.Echo, Env: []resource.EnvVar{{Name: "N", Value: fmt.Sprint(r.IntN(3))}}, Resources: resource.Resources{MilliCPU: 250, Memory: 1 << 20}}}
				a.Stopped = r.IntN(5) == 0
				a.Generation++
				a.Modified = time.Now()
				return nil
			})
		case 2: // its ingress only
			_, err = w.store.Apps().Put(t.Context(), id, func(a *resource.App, exists bool) error {
				if !exists {
					return errSkip
				}
				if r.IntN(4) == 0 {
					a.Configuration.Ingress = nil
				} else if a.Configuration.Ingress != nil {
					a.Configuration.Ingress.AllowInsecure, a.Configuration.Ingress.Sticky = in, r.IntN(2) == 0
				}
				return nil
			})
		case 3: // its end
			_, err = w.store.Apps().Put(t.Context(), id, func(a *resource.App, exists bool) error {
				if !exists {
					return errSkip
				}
				a.Deleted = time.Now()
				return nil
			})
		case 4, 5: // a revision
			var a resource.App
			if a, err = w.store.Apps().Get(t.Context(), id); err == nil {
				revision := id.Child("revisions", a.LatestRevision)
				if r.IntN(3) == 0 {
					_, err = w.store.Revisions().Observe(t.Context(), revision, func(_ resource.Revision, status *resource.RevisionStatus) error {
						status.Reason = fmt.Sprint("reason ", r.IntN(9))
						return nil
					})
					break
				}
				_, err = w.store.Revisions().Put(t.Context(), revision, func(rev *resource.Revision, exists bool) error {
					if !exists {
						return errSkip
					}
					if r.IntN(2) == 0 {
						rev.Restarted = time.Now()
						return nil
					}
					rev.Off = !in
					if in {
						rev.Activations++
					}
					return nil
				})
			}
		case 6, 7: // an environment
			told = at
			_, err = w.store.Environments().Put(t.Context(), at, func(e *resource.Environment, exists bool) error {
				if !e.Deleted.IsZero() {
					return nil
				}
				e.Ingress.MaxHeaders = 100 + r.IntN(3)
				e.Tags = map[string]string{"penstock:max-concurrency": fmt.Sprint(1 + r.IntN(9))}
				e.Generation++
				return nil
			})
			if err == nil && r.IntN(3) == 0 {
				_, err = w.store.Environments().Observe(t.Context(), at, func(_ resource.Environment, status *resource.EnvironmentStatus) error {
					status.DefaultDomain = fmt.Sprintf("d%d.localhost", r.IntN(5))
					return nil
				})
			}
		case 8: // its end
			told = second
			_, err = w.store.Environments().Put(t.Context(), second, func(e *resource.Environment, exists bool) error {
				if !exists {
					return errSkip
				}
				e.Deleted = time.Now()
				return nil
			})
		case 9, 10: // a certificate
			c := certificates[r.IntN(len(certificates))]
			told = c.Parent()
			_, err = w.store.Certificates().Put(t.Context(), c, func(c *resource.Certificate, _ bool) error {
				c.Chain, c.Sealed = fmt.Append(nil, "chain ", r.IntN(5)), fmt.Append(nil, "key ", r.IntN(5))
				return nil
			})
		case 11: // its end
			c := certificates[r.IntN(len(certificates))]
			told = c.Parent()
			err = w.store.Certificates().Delete(t.Context(), c)
		case 12: // another environment of the same name, with other addresses
			told = at
			w.mu.Lock()
			delete(w.places, at.Key())
			w.mu.Unlock()
			if err = w.store.Environments().Delete(t.Context(), at); err == nil {
				_, _, err = w.store.Environments().Create(t.Context(), resource.Environment{
					Meta:              resource.Meta{ID: at},
					EnvironmentStatus: resource.EnvironmentStatus{DefaultDomain: "example.localhost"},
				}, nil)
			}
		}
		if errors.Is(err, errSkip) || errors.Is(err, resource.ErrNotFound) {
			return nil
		}
		if err == nil && tell {
			w.reconciler.Touch(told)
		}
		return err
	}
	r := rand.New(rand.NewPCG(3, uint64(time.Now().UnixNano())))
	some := func(tell bool) {
		var wg sync.WaitGroup
		for range 3 {
			own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
			wg.Go(func() {
				for range 1 + own.IntN(3) {
					if err := write(own, tell); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	fresh := func(batch int) {
		t.Helper()
		var got, want link.Table
		same := func() bool {
			if err := w.reconciler.Look(t.Context(), chat); err != nil {
				t.Fatal(err)
			}
			var err error
			if want, err = w.reconciler.FromScratch(t.Context()); err != nil {
				t.Fatal(err)
			}
			got = w.routes.last()
			got.Version = 0
			return reflect.DeepEqual(got, want)
		}
		// What goes on meanwhile is in the table of a later look.
		for deadline := time.Now().Add(10 * time.Second); !same(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("batch %d:\ngot  %+v\nwant %+v", batch, got, want)
			}
		}
	}
	tried := func() bool {
		calls := w.outside()
		return len(w.routes.last().Routes) > 0 && calls["Key"] > 0 && calls["Certificate"] >= 3
	}
	// What is in the table at a time depends on who is quicker, so that it may take more to have seen all of it.
	for batch := 0; batch < 60 || batch < 600 && !tried(); batch++ {
		some(true)
		fresh(batch)
		some(false)
		fresh(batch)
	}
	if calls := w.outside(); !tried() {
		t.Errorf("nothing was tried: %v", calls)
	}
}

var errSkip = errors.New("there is nothing to change")

// A look at what has not changed asks for nothing outside memory, and publishes nothing.
func TestALookAtNothingNewStaysInMemory(t *testing.T) {
	w := newWorld(t)
	site := environment.Child("certificates", "site")
	_, err := w.store.Certificates().Put(t.Context(), site, func(c *resource.Certificate, _ bool) error {
		c.Chain, c.Sealed = []byte("chain"), []byte("key")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.put(func(a *resource.App) {
		a.Configuration.Ingress.Transport = resource.TransportTCP
		a.Configuration.Ingress.Domains = []resource.CustomDomain{{Name: "chat.example.com", Certificate: site}}
	})
	look := func() {
		t.Helper()
		if err := w.reconciler.Look(t.Context(), chat); err != nil {
			t.Fatal(err)
		}
	}
	look()
	before, version := w.outside(), w.routes.last().Version
	for _, what := range []string{"Certificate", "Addresses", "Key", "Expose"} {
		if before[what] == 0 {
			t.Errorf("%s was never asked for: %v", what, before)
		}
	}
	for range 10 {
		look()
	}
	if after := w.outside(); !maps.Equal(before, after) {
		t.Errorf("got calls %v, want %v", after, before)
	}
	if got := w.routes.last().Version; got != version {
		t.Errorf("got version %d, want %d", got, version)
	}
}

// An environment gets its next certificate in time, though nobody writes anything. While there is none it keeps the one it has.
func TestCertificatesAreRenewed(t *testing.T) {
	w := newWorld(t)
	w.stop()
	n := 0
	w.issue = func(names []string) (link.Certificate, time.Time, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		n++
		if n == 2 {
			return link.Certificate{}, time.Time{}, errors.New("the disk is full")
		}
		renew := time.Now().Add(20 * time.Millisecond)
		if n == 3 {
			renew = renew.Add(time.Hour)
		}
		return link.Certificate{Names: names, Cert: fmt.Append(nil, "certificate ", n)}, renew, nil
	}
	w.start()
	w.put(func(*resource.App) {})
	shown := func() string {
		all := w.routes.last().Certificates
		if len(all) != 1 {
			t.Fatalf("got %d certificates, want 1", len(all))
		}
		return string(all[0].Cert)
	}
	w.until("the next certificate is shown", func() bool {
		got := shown()
		if got != "certificate 1" && got != "certificate 3" {
			t.Fatalf("got %q", got)
		}
		return got == "certificate 3"
	})
}

// An environment whose certificate cannot be made keeps the routes of others from nobody.
func TestAnEnvironmentWithoutACertificate(t *testing.T) {
	w := newWorld(t)
	w.put(func(*resource.App) {})
	var mended bool
	w.mu.Lock()
	w.issue = func(names []string) (link.Certificate, time.Time, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !mended {
			return link.Certificate{}, time.Time{}, errors.New("the disk is full")
		}
		return link.Certificate{Names: names}, time.Now().Add(time.Hour), nil
	}
	w.mu.Unlock()
	second := resource.EnvironmentID("s", "g", "second")
	_, err := w.store.Environments().Put(t.Context(), second, func(e *resource.Environment, _ bool) error {
		e.Generation++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reconciler.Touch(second)
	w.until("its certificate is asked for", func() bool { return w.outside()["Certificate"] > 1 })
	if got := w.put(func(a *resource.App) { a.Configuration.Ingress.AllowInsecure = true }); got.Provisioning() != resource.Succeeded {
		t.Errorf("an app of another environment: %s: %s", got.Provisioning(), got.ProvisioningError())
	}
	if routes := w.routes.last().Routes; len(routes) == 0 || !routes[0].AllowInsecure {
		t.Errorf("got %+v, want the routes as they were written", routes)
	}
	w.mu.Lock()
	mended = true
	w.mu.Unlock()
	w.until("it has its certificate", func() bool { return len(w.routes.last().Certificates) == 2 })
}
