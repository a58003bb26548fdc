package reconcile

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// connections returns the routes of an app's TCP ports, with the same targets as its host.
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

// ownDomains returns the routes of an app's custom domains, with the same targets as its host.
func ownDomains(app link.Route, domains []resource.CustomDomain) (routes []link.Route) {
	for _, d := range domains {
		route := app
		route.Host, route.Name = d.Name, ""
		routes = append(routes, route)
	}
	return routes
}

// policy returns nil for an app without rules for requests.
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

// share builds the routes of an app and its labels to the active revisions. The share of an inactive revision fails
// with the reason, so that whoever splits traffic notices it, as in Azure. off are those revisions. An app without an
// active revision has no routes.
func share(app resource.App, route link.Route, active []resource.Revision, domain string) (routes []link.Route, off []link.Revision) {
	if app.LatestRevision == "" {
		return []link.Route{route}, nil // it will have one soon
	}
	if len(active) == 0 {
		return nil, nil
	}
	for _, t := range app.Shares() {
		name := app.Target(t)
		if t.Latest && !isActive(active, name) {
			name = app.LatestRevision // it takes over from a deactivated revision
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
			labelled.Host = host(labelled.Name, domain, route.External)
			labelled.Targets = []link.Target{{Revision: id, Weight: 100}}
			routes = append(routes, labelled)
		}
	}
	return append(routes, route), off
}

func isActive(active []resource.Revision, name string) bool {
	return slices.ContainsFunc(active, func(rev resource.Revision) bool { return rev.Name() == name })
}

// upstream returns a revision for the ingress. Requests for a revision that cannot start are refused at once with the
// reason. With Azure's behaviour they wait until they time out, as measured there.
func (r *Reconciler) upstream(rev resource.Revision, replicas []resource.Replica) link.Revision {
	up := link.Revision{ID: rev.ID.String(), Port: rev.TargetPort, Settings: rev.Settings, TLS: rev.TLS, Target: rev.Template.Scale.Target()}
	for _, replica := range replicas {
		port := cmp.Or(rev.TargetPort, replica.Port)
		if replica.State == resource.ReplicaReady && port != 0 && !r.departures.has(replica.Name) {
			addr := netip.AddrPortFrom(replica.Address, uint16(port))
			up.Replicas = append(up.Replicas, link.Replica{Name: replica.Name, Addr: addr.String(), Start: replica.Start, Load: replica.Load})
		}
	}
	slices.SortFunc(up.Replicas, func(a, b link.Replica) int { return cmp.Compare(a.Name, b.Name) })
	switch {
	case rev.State == resource.RevisionActivationFailed && rev.Settings.Behaviour != resource.Azure:
		up.Failed = cmp.Or(rev.Reason, "the revision could not be started")
	case len(up.Replicas) == 0:
		up.Blocked = rev.Reason
		up.Stage = stage(rev, replicas)
	}
	return up
}

// stage returns how far the start of the first replica has come, if clients can follow it.
func stage(rev resource.Revision, replicas []resource.Replica) resource.Stage {
	if !rev.Settings.Progress {
		return ""
	}
	furthest := resource.StageQueued
	for _, replica := range replicas {
		if replica.State != resource.ReplicaStopping && replica.State != resource.ReplicaUnready && replica.Stage.Compare(furthest) > 0 {
			furthest = replica.Stage
		}
	}
	return furthest
}

// host returns the host name of an app or revision, as tables have it.
func host(name, domain string, external bool) string {
	return strings.ToLower(resource.Host(name, domain, external))
}

// environmentDomain returns the default domain of an environment. It depends only on the ID and is different for each
// ID.
func environmentDomain(id resource.ID, parent string) string {
	sum := sha256.Sum256([]byte(id.Key()))
	return strings.ToLower(id.Base()) + "-" + hex.EncodeToString(sum[:4]) + "." + parent
}

// appEnv returns the environment variables that tell every container of a revision its app and environment
// (learn.microsoft.com/azure/container-apps/environment-variables).
func appEnv(app resource.App, env resource.Environment, rev resource.Revision) []resource.EnvVar {
	vars := []resource.EnvVar{
		{Name: "CONTAINER_APP_NAME", Value: app.ID.Base()},
		{Name: "CONTAINER_APP_REVISION", Value: rev.Name()},
		{Name: "CONTAINER_APP_ENV_DNS_SUFFIX", Value: env.DefaultDomain},
	}
	if in := app.Configuration.Ingress; in != nil {
		vars = append(vars, resource.EnvVar{Name: "CONTAINER_APP_HOSTNAME", Value: host(rev.Name(), env.DefaultDomain, in.External)})
		if in.TargetPort != 0 { // otherwise each container has its own
			vars = append(vars, resource.EnvVar{Name: "CONTAINER_APP_PORT", Value: fmt.Sprint(in.TargetPort)})
		}
	}
	return vars
}
