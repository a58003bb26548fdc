package reconcile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/store"
)

// table remembers what was published last.
type table struct {
	mu      sync.Mutex
	opened  bool
	last    link.Table
	version uint64
	exposed []netip.AddrPort // nil: nobody has been told yet, or not well
}

// open lets the first table out.
func (t *table) open() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opened = true
}

func (t *table) isOpen() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opened
}

// publish sends the routes as they are now, unless they are as they were, and returns their version.
func (r *Reconciler) publish(ctx context.Context) (uint64, error) {
	r.table.mu.Lock()
	defer r.table.mu.Unlock()
	if !r.table.opened {
		return 0, nil
	}
	t, err := r.routes(ctx)
	if err != nil {
		return 0, fmt.Errorf("make routes: %w", err)
	}
	if r.table.version == 0 || !reflect.DeepEqual(t, r.table.last) {
		r.table.last, r.table.version = t, r.cfg.Routes.Publish(t)
	}
	if ports := exposed(t); r.table.exposed == nil || !slices.Equal(ports, r.table.exposed) {
		r.table.exposed = nil
		if err := r.cfg.Expose(ports); err != nil {
			return r.table.version, fmt.Errorf("expose ports to replicas: %w", err)
		}
		r.table.exposed = ports
	}
	return r.table.version, nil
}

// exposed are the ports of gateways that a table has routes for; never nil.
func exposed(t link.Table) []netip.AddrPort {
	gateways := map[string]netip.Addr{}
	for _, e := range t.Environments {
		gateways[e.ID] = e.Gateway
	}
	all := []netip.AddrPort{}
	for _, route := range t.TCP {
		if gateway := gateways[route.Environment]; gateway.IsValid() {
			all = append(all, netip.AddrPortFrom(gateway, uint16(route.Port)))
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// routes makes the table of all apps.
func (r *Reconciler) routes(ctx context.Context) (link.Table, error) {
	environments, err := r.cfg.Store.Environments().List(ctx, store.Scope{})
	if err != nil {
		return link.Table{}, err
	}
	apps, err := r.cfg.Store.Apps().List(ctx, store.Scope{})
	if err != nil {
		return link.Table{}, err
	}
	revisions, err := r.cfg.Store.Revisions().List(ctx, store.Scope{})
	if err != nil {
		return link.Table{}, err
	}
	running, err := r.engine.last(ctx, r.cfg.Runtime)
	if err != nil {
		return link.Table{}, err
	}

	var t link.Table
	keys := map[resource.ID]string{}
	key := func(id resource.ID) string {
		k, known := keys[id]
		if !known {
			k = id.Key()
			keys[id] = k
		}
		return k
	}
	domains := map[string]string{}
	for _, env := range environments {
		if env.DefaultDomain == "" {
			continue
		}
		domains[key(env.ID)] = env.DefaultDomain
		cert, err := r.cfg.Certificate([]string{"*." + env.DefaultDomain, "*.internal." + env.DefaultDomain, env.DefaultDomain})
		if err != nil {
			return link.Table{}, fmt.Errorf("certificate of environment %s: %w", env.ID.Base(), err)
		}
		t.Certificates = append(t.Certificates, cert)
	}
	inhabited := map[string]bool{}
	for _, app := range apps {
		inhabited[key(app.Environment)] = true
	}
	ids, headers := map[string]string{}, map[string]int{}
	for _, env := range environments {
		// One without apps has no replica that calls anybody, and should not use up addresses.
		if env.DefaultDomain == "" || !inhabited[key(env.ID)] {
			continue
		}
		at := link.Environment{ID: env.ID.String(), Domain: strings.ToLower(env.DefaultDomain)}
		at.Addresses, at.Gateway = r.cfg.Addresses(env.ID)
		t.Environments = append(t.Environments, at)
		ids[key(env.ID)], headers[key(env.ID)] = at.ID, env.Ingress.MaxHeaders
	}
	active := map[string][]resource.Revision{}
	for _, rev := range revisions {
		if rev.Active {
			active[key(rev.App())] = append(active[key(rev.App())], rev)
		}
	}
	for _, app := range apps {
		in, domain := app.Configuration.Ingress, domains[key(app.Environment)]
		if in == nil || domain == "" || app.Stopped || app.Provisioning == resource.Deleting {
			continue
		}
		route := link.Route{
			App: app.ID.String(), Name: strings.ToLower(app.ID.Base()), Environment: ids[key(app.Environment)],
			External: in.External, AllowInsecure: in.AllowInsecure, Transport: in.Transport, Policy: policy(in.Policy),
			MaxHeaders: headers[key(app.Environment)],
		}
		for _, rev := range active[key(app.ID)] {
			t.Revisions = append(t.Revisions, r.upstream(rev, running[key(rev.ID)]))
			if in.Transport == resource.TransportTCP {
				continue // a connection does not name a revision
			}
			own := route
			own.Host, own.Name = Host(rev.Name(), domain, in.External), strings.ToLower(rev.Name())
			own.Targets = []link.Target{{Revision: rev.ID.String(), Weight: 100}}
			t.Routes = append(t.Routes, own)
		}
		route.Host = Host(app.ID.Base(), domain, in.External)
		shown, err := r.domains(ctx, in.Domains)
		if err != nil {
			return link.Table{}, err
		}
		t.Certificates = append(t.Certificates, shown...)
		shared, off := share(app, route, active[key(app.ID)], domain)
		t.Revisions = append(t.Revisions, off...)
		if len(shared) == 0 {
			continue
		}
		whole := shared[len(shared)-1] // the route of the app itself
		if in.Transport != resource.TransportTCP {
			t.Routes = append(append(t.Routes, shared...), ownDomains(whole, in.Domains)...)
		}
		t.TCP = append(t.TCP, connections(in, whole)...)
	}
	return t, nil
}

// connections are the routes of an app's TCP ports, which lead where its host would.
func connections(in *resource.Ingress, app link.Route) (routes []link.TCPRoute) {
	for _, p := range in.ExposedPorts() {
		route := link.TCPRoute{
			Port: p.Port, TargetPort: p.TargetPort, External: p.External,
			Environment: app.Environment, Name: app.Name, App: app.App, Targets: app.Targets,
		}
		if app.Policy != nil && len(in.IPRules) > 0 {
			route.Policy = &link.Policy{Allow: app.Policy.Allow, Deny: app.Policy.Deny}
		}
		routes = append(routes, route)
	}
	return routes
}

// ownDomains are the routes of an app's domains, which lead where its host does.
func ownDomains(app link.Route, domains []resource.CustomDomain) (routes []link.Route) {
	for _, d := range domains {
		route := app
		route.Host, route.Name = d.Name, ""
		routes = append(routes, route)
	}
	return routes
}

// domains are the certificates that an app's domains are shown for. One that cannot be opened leaves its domain without
// TLS, and the rest of the table as it is.
func (r *Reconciler) domains(ctx context.Context, domains []resource.CustomDomain) (all []link.Certificate, err error) {
	for _, d := range domains {
		if d.Certificate.IsZero() {
			continue
		}
		found, err := r.cfg.Store.Certificates().Get(ctx, d.Certificate)
		if err == nil {
			var key []byte
			if key, err = r.cfg.Key(found); err == nil {
				all = append(all, link.Certificate{Names: []string{d.Name}, Cert: found.Chain, Key: key})
				continue
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		r.cfg.Log.Error("a domain has no certificate; its TLS clients are refused", "domain", d.Name, "certificate", d.Certificate.String(), "err", err)
	}
	return all, nil
}

// policy is nil for an app that asks nothing of requests.
func policy(p resource.Policy) *link.Policy {
	at := link.Policy{CORS: p.CORS, Sticky: p.Sticky, ClientCertificates: p.ClientCertificates}
	for _, rule := range p.IPRules {
		prefix, err := rule.Prefix()
		if err != nil {
			continue // validated when it was written
		}
		if rule.Allow {
			at.Allow = append(at.Allow, prefix)
		} else {
			at.Deny = append(at.Deny, prefix)
		}
	}
	if len(p.IPRules) == 0 && at.CORS == nil && !at.Sticky && at.ClientCertificates == "" {
		return nil
	}
	return &at
}

// share makes the routes of an app and its labels, to the revisions that are active. A share of one that is not fails,
// with the reason: who divides requests has to see it, and so it is in Azure. off are those revisions. An app of which
// no revision is active has no routes.
func share(app resource.App, route link.Route, active []resource.Revision, domain string) (routes []link.Route, off []link.Revision) {
	if app.LatestRevision == "" {
		return []link.Route{route}, nil // it is about to get one
	}
	if len(active) == 0 {
		return nil, nil
	}
	for _, t := range app.Shares() {
		name := app.Target(t)
		if t.Latest && !isActive(active, name) {
			name = app.LatestRevision // it takes over from one that was deactivated
		}
		id := app.ID.Child("revisions", name).String()
		if !isActive(active, name) && !slices.ContainsFunc(off, func(r link.Revision) bool { return r.ID == id }) {
			off = append(off, link.Revision{ID: id, Settings: active[0].Settings, Failed: fmt.Sprintf("revision %q is not active; activate it, or give its share to another", name)})
		}
		if t.Weight > 0 {
			route.Targets = append(route.Targets, link.Target{Revision: id, Weight: t.Weight})
		}
		if t.Label != "" {
			labelled := route
			labelled.Name = strings.ToLower(resource.LabelHost(app.ID.Base(), t.Label))
			labelled.Host = Host(labelled.Name, domain, route.External)
			labelled.Targets = []link.Target{{Revision: id, Weight: 100}}
			routes = append(routes, labelled)
		}
	}
	return append(routes, route), off
}

func isActive(active []resource.Revision, name string) bool {
	return slices.ContainsFunc(active, func(rev resource.Revision) bool { return rev.Name() == name })
}

// upstream is a revision as an ingress sees it. Requests for one that cannot start are answered at once with the reason;
// with Azure's behaviour they are held until their time is over, which is what was measured there.
func (r *Reconciler) upstream(rev resource.Revision, replicas []resource.Replica) link.Revision {
	up := link.Revision{ID: rev.ID.String(), Port: rev.TargetPort, Settings: rev.Settings, TLS: rev.TLS, Target: rev.Template.Scale.Target()}
	for _, replica := range replicas {
		port := cmp.Or(rev.TargetPort, replica.Port)
		if replica.State == resource.ReplicaReady && port != 0 && !r.departures.has(replica.Name) {
			addr := netip.AddrPortFrom(replica.Address, uint16(port))
			up.Replicas = append(up.Replicas, link.Replica{Name: replica.Name, Addr: addr.String()})
		}
	}
	slices.SortFunc(up.Replicas, func(a, b link.Replica) int { return cmp.Compare(a.Name, b.Name) })
	switch {
	case rev.State == resource.RevisionActivationFailed && rev.Settings.Behaviour != resource.Azure:
		up.Failed = cmp.Or(rev.Reason, "the revision could not be started")
	case len(up.Replicas) == 0:
		up.Blocked = rev.Reason
	}
	return up
}

// Host is the name that requests to an app or revision carry.
func Host(name, domain string, external bool) string {
	if !external {
		name += ".internal"
	}
	return strings.ToLower(name + "." + domain)
}

// environmentDomain is the domain of an environment that was given none: the same for the same ID, another for each.
func environmentDomain(id resource.ID, parent string) string {
	sum := sha256.Sum256([]byte(id.Key()))
	return strings.ToLower(id.Base()) + "-" + hex.EncodeToString(sum[:4]) + "." + parent
}

// appEnv is what every container of a revision is told about its place
// (learn.microsoft.com/azure/container-apps/environment-variables).
func appEnv(app resource.App, env resource.Environment, rev resource.Revision) []resource.EnvVar {
	vars := []resource.EnvVar{
		{Name: "CONTAINER_APP_NAME", Value: app.ID.Base()},
		{Name: "CONTAINER_APP_REVISION", Value: rev.Name()},
		{Name: "CONTAINER_APP_ENV_DNS_SUFFIX", Value: env.DefaultDomain},
	}
	if in := app.Configuration.Ingress; in != nil {
		vars = append(vars, resource.EnvVar{Name: "CONTAINER_APP_HOSTNAME", Value: Host(rev.Name(), env.DefaultDomain, in.External)})
		if in.TargetPort != 0 { // else it is the container that says which one it is
			vars = append(vars, resource.EnvVar{Name: "CONTAINER_APP_PORT", Value: fmt.Sprint(in.TargetPort)})
		}
	}
	return vars
}
