package reconcile

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// parts holds the parts of one kind, by key.
type parts[T any] struct {
	keys  []string // of by, in their order
	by    map[string]T
	stale map[string]bool // keys of parts that must be rebuilt
}

func newParts[T any]() parts[T] { return parts[T]{by: map[string]T{}, stale: map[string]bool{}} }

// set replaces a part, or removes it.
func (p *parts[T]) set(key string, part T, exists bool) {
	at, found := slices.BinarySearch(p.keys, key)
	switch {
	case !exists && found:
		p.keys = slices.Delete(p.keys, at, at+1)
		delete(p.by, key)
		return
	case !exists:
		return
	case !found:
		p.keys = slices.Insert(p.keys, at, key)
	}
	p.by[key] = part
}

// join concatenates one list of all parts, in the order of their keys.
func join[T, E any](p parts[T], list func(T) []E) (all []E) {
	n := 0
	for _, part := range p.by {
		n += len(list(part))
	}
	all = slices.Grow(all, n)
	for _, key := range p.keys {
		all = append(all, list(p.by[key])...)
	}
	return all
}

// keep sets is to was if they are equal, so that the slice is shared; otherwise it sets changed.
func keep[E any](is *[]E, was []E, changed *bool) {
	if reflect.DeepEqual(*is, was) {
		*is = was
	} else {
		*changed = true
	}
}

// appPart is an app's part of the table.
type appPart struct {
	environment  string   // key
	uploaded     []string // keys of the certificates that it was made from, whether they exist or not
	routes       []link.Route
	tcp          []link.TCPRoute
	revisions    []link.Revision
	certificates []link.Certificate
}

// environmentPart is an environment's part of the table.
type environmentPart struct {
	entry       link.Environment // without a domain there is none yet
	domain      string
	certificate link.Certificate
	renew       time.Time // when to fetch the next certificate
}

func (p *environmentPart) certificates() []link.Certificate {
	if p.domain == "" {
		return nil
	}
	return []link.Certificate{p.certificate}
}

// environmentPart builds the part of an environment, or returns a function that fetches what it needs. The caller holds
// the table's mu.
func (r *Reconciler) environmentPart(env resource.Environment) (part *environmentPart, get func(context.Context) error) {
	t, key := &r.table, env.ID.Key()
	part = &environmentPart{domain: env.DefaultDomain}
	if part.domain == "" {
		return part, nil
	}
	part.entry = link.Environment{ID: env.ID.String(), Domain: strings.ToLower(part.domain)}
	if issued, ok := t.issued[key]; ok && issued.domain == part.domain {
		part.certificate, part.renew = issued.certificate, issued.renew
	} else if was := t.environments.by[key]; was != nil && was.domain == part.domain && time.Now().Before(was.renew) {
		part.certificate, part.renew = was.certificate, was.renew
	} else {
		return nil, func(context.Context) error { return r.issue(env) }
	}
	if t.inhabitants[key] == 0 {
		return part, nil
	}
	at := t.addresses[key]
	if at == nil {
		at = &addresses{}
		t.addresses[key] = at
	}
	if !at.known {
		return nil, func(context.Context) error { r.address(env, at); return nil }
	}
	part.entry.Addresses, part.entry.Gateway = at.prefix, at.gateway
	return part, nil
}

// issue fetches the certificate of an environment's domain.
func (r *Reconciler) issue(env resource.Environment) error {
	domain := env.DefaultDomain
	cert, renew, err := r.cfg.Certificate([]string{"*." + domain, "*.internal." + domain, domain})
	if err != nil {
		return fmt.Errorf("certificate of environment %s: %w", env.ID.Base(), err)
	}
	r.table.mu.Lock()
	defer r.table.mu.Unlock()
	r.table.issued[env.ID.Key()] = issuedCertificate{domain, cert, renew}
	return nil
}

// address fetches the addresses of an environment. They are discarded if the environment has changed in the meantime,
// because the table has then forgotten at. An environment without addresses is in the table without them.
func (r *Reconciler) address(env resource.Environment, at *addresses) {
	prefix, gateway, err := r.cfg.Addresses(env.ID)
	if err != nil {
		r.cfg.Log.Warn("an environment has no addresses; its apps cannot start", "environment", env.ID.Base(), "err", err)
	}
	r.table.mu.Lock()
	defer r.table.mu.Unlock()
	*at = addresses{known: true, failed: err != nil, prefix: prefix, gateway: gateway}
}

// appPart builds the part of an app, or returns functions that fetch what it needs. known is false if documents are not
// in memory. The caller holds the table's mu.
func (r *Reconciler) appPart(app resource.App) (part *appPart, gets []func(context.Context) error, known bool) {
	s := r.cfg.Store
	part = &appPart{environment: app.Environment.Key()}
	env, _, known := s.Environments().Memory().Get(part.environment)
	if !known {
		return nil, nil, false
	}
	in, domain := app.Configuration.Ingress, env.DefaultDomain
	if in == nil || domain == "" || app.Stopped || app.Provisioning() == resource.Deleting {
		return part, nil, true
	}
	active, known := s.Revisions().Memory().List(store.Scope{Parent: app.ID})
	if !known {
		return nil, nil, false
	}
	active = slices.DeleteFunc(active, func(rev resource.Revision) bool { return !rev.Active() })
	running, ok := r.engine.last(app.ID.Key())
	if !ok {
		return nil, []func(context.Context) error{func(ctx context.Context) error {
			_, err := r.engine.look(ctx, r.cfg.Runtime, app.ID)
			return err
		}}, true
	}
	if gets, known = r.domains(part, in.Domains); !known || len(gets) > 0 {
		return nil, gets, known
	}

	route := link.Route{
		App: app.ID.String(), Name: strings.ToLower(app.ID.Base()), Environment: env.ID.String(),
		External: in.External, AllowInsecure: in.AllowInsecure, Transport: in.Transport, Policy: policy(in.Policy),
		MaxHeaders: env.Ingress.MaxHeaders,
	}
	for _, rev := range active {
		part.revisions = append(part.revisions, r.upstream(rev, running[rev.ID.Key()]))
		if in.Transport == resource.TransportTCP {
			continue // a connection does not name a revision
		}
		own := route
		own.Host, own.Name = host(rev.Name(), domain, in.External), strings.ToLower(rev.Name())
		own.Targets = []link.Target{{Revision: rev.ID.String(), Weight: 100}}
		part.routes = append(part.routes, own)
	}
	route.Host = host(app.ID.Base(), domain, in.External)
	shared, off := share(app, route, active, domain)
	part.revisions = append(part.revisions, off...)
	if len(shared) == 0 {
		return part, nil, true
	}
	whole := shared[len(shared)-1] // the route of the app itself
	if in.Transport != resource.TransportTCP {
		domains := ownDomains(whole, in.Domains)
		shared[len(shared)-1].HostPort = app.HostPort()
		part.routes = append(append(part.routes, shared...), domains...)
	}
	part.tcp = connections(in, whole)
	return part, nil, true
}

// domains adds the certificates of an app's domains to its part, or returns functions that decrypt their keys. If a key
// cannot be decrypted, its domain has no TLS and the rest of the table is not affected. known is false if documents are
// not in memory. The caller holds the table's mu.
func (r *Reconciler) domains(part *appPart, domains []resource.CustomDomain) (gets []func(context.Context) error, known bool) {
	for _, d := range domains {
		if d.Certificate.IsZero() {
			continue
		}
		key := d.Certificate.Key()
		part.uploaded = append(part.uploaded, key)
		found, _, known := r.cfg.Store.Certificates().Memory().Get(key)
		if !known {
			return nil, false
		}
		opened, ok := r.table.keys[key]
		switch {
		case !ok || !bytes.Equal(opened.sealed, found.Sealed):
			gets = append(gets, func(context.Context) error { r.unseal(d, found); return nil })
		case opened.err == nil:
			part.certificates = append(part.certificates, link.Certificate{Names: []string{d.Name}, Cert: found.Chain, Key: opened.key})
		}
	}
	return gets, true
}

// unseal decrypts the key of a domain's certificate. found is zero if there is no such certificate.
func (r *Reconciler) unseal(d resource.CustomDomain, found resource.Certificate) {
	opened := openedKey{sealed: found.Sealed}
	if found.ID.IsZero() {
		opened.err = resource.ErrNotFound
	} else {
		opened.key, opened.err = r.cfg.Key(found)
	}
	if opened.err != nil {
		r.cfg.Log.Error("a domain has no certificate; its TLS clients are refused", "domain", d.Name, "certificate", d.Certificate.String(), "err", opened.err)
	}
	r.table.mu.Lock()
	defer r.table.mu.Unlock()
	if now, _, _ := r.cfg.Store.Certificates().Memory().Get(d.Certificate.Key()); bytes.Equal(now.Sealed, found.Sealed) {
		r.table.keys[d.Certificate.Key()] = opened
	}
}
