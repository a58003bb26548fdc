package ingress

import (
	"cmp"
	"crypto/tls"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// table routes requests. It never changes.
type table struct {
	hosts          map[string]*route     // of external apps
	ports          map[int]*route        // of external TCP apps
	own            map[int]*route        // of ports of loopback that lead to one app over HTTP
	neighbourhoods []neighbourhood       // in the order of the table that control sent
	beforeFirst    *route                // of every host, until there has been a table
	unrouted       map[*guardedRoom]bool // the rooms of apps without a revision
	maxHeaders     int                   // that any host's requests may have
	// By name; wildcards by the name without "*.".
	exact, wildcard map[string]*tls.Certificate
	// ask has the hosts whose clients are asked for a certificate in the TLS handshake.
	ask    map[string]tls.ClientAuthType
	parsed map[string]*tls.Certificate // by PEM, so that the next table need not parse them again
}

// neighbourhood is an environment as its replicas see it.
type neighbourhood struct {
	addresses netip.Prefix
	hosts     map[string]*route // its apps, external or not, by all the names that neighbours can use
	ports     map[int]*route    // likewise, of TCP apps
}

type route struct {
	app           string
	allowInsecure bool
	http2         bool // requests are sent to replicas over HTTP/2
	detect        bool // over HTTP/2 if the request needs it (gRPC)
	policy        *policy
	maxHeaders    int
	targets       []target
	hopID         uint64       // of the app, in entries of hopsField
	firstHop      string       // the field of a request that comes to the app for the first time
	total         int          // sum of the weights
	unrouted      *guardedRoom // the app's, when there is no target

	name       string // of a TCP app
	targetPort int    // of a TCP app's replicas; 0: the revision's
}

type target struct {
	room   *guardedRoom
	weight int
}

// build makes a table of t and opens the rooms of its revisions. It is called with mu held.
func (in *Ingress) build(t link.Table) *table {
	next := &table{
		hosts:    make(map[string]*route, len(t.Routes)),
		ports:    make(map[int]*route, len(t.TCP)),
		own:      map[int]*route{},
		unrouted: map[*guardedRoom]bool{},

		maxHeaders: in.cfg.MaxHeaders,
		exact:      map[string]*tls.Certificate{},
		wildcard:   map[string]*tls.Certificate{},
		parsed:     map[string]*tls.Certificate{},
		ask:        map[string]tls.ClientAuthType{},
	}
	for _, e := range t.Environments {
		next.neighbourhoods = append(next.neighbourhoods, neighbourhood{e.Addresses, map[string]*route{}, map[int]*route{}})
	}
	known := map[string]bool{}
	for _, rev := range t.Revisions {
		known[rev.ID] = true
		rm := in.rooms[rev.ID]
		if rm == nil {
			rm = newRoom(rev.ID, in)
			in.rooms[rev.ID] = rm
		}
		rm.open()
	}
	for _, r := range t.Routes {
		rt := &route{
			app: r.App, allowInsecure: r.AllowInsecure, maxHeaders: cmp.Or(r.MaxHeaders, in.cfg.MaxHeaders),
			policy: newPolicy(r.Policy), http2: r.Transport == resource.TransportHTTP2, detect: r.Transport == resource.TransportAuto,
		}
		rt.hopID = in.hops.id(r.App)
		rt.firstHop = in.hops.entry(rt.hopID, 1)
		next.maxHeaders = max(next.maxHeaders, rt.maxHeaders)
		next.aim(rt, r.Targets, known, in)
		if r.External {
			next.hosts[hostname(r.Host)] = rt
		}
		if r.HostPort != 0 {
			own := *rt
			own.allowInsecure = true // the request does not leave the machine, and no certificate has its host
			next.own[r.HostPort] = &own
		}
		next.askFor(r.Host, rt)
		next.addNeighbour(t.Environments, r, rt)
	}
	for _, r := range t.TCP {
		rt := &route{app: r.App, name: r.Name, policy: newPolicy(r.Policy), targetPort: r.TargetPort}
		next.aim(rt, r.Targets, known, in)
		if r.External {
			next.ports[r.Port] = rt
		}
		if i := slices.IndexFunc(t.Environments, func(e link.Environment) bool { return e.ID == r.Environment }); i >= 0 {
			next.neighbourhoods[i].ports[r.Port] = rt
		}
	}
	last := in.table.Load()
	for _, c := range t.Certificates {
		next.addCertificate(c, last, in)
	}
	return next
}

// aim sets the targets of a route, or the room of requests without a revision if none of them is known.
func (t *table) aim(rt *route, targets []link.Target, known map[string]bool, in *Ingress) {
	for _, to := range targets {
		if to.Weight <= 0 || !known[to.Revision] {
			continue
		}
		rt.targets = append(rt.targets, target{in.rooms[to.Revision], to.Weight})
		rt.total += to.Weight
	}
	if rt.total == 0 {
		rt.unrouted = in.unroutedRoom(rt.app)
		t.unrouted[rt.unrouted] = true
	}
}

// addNeighbour adds a route to its environment.
func (t *table) addNeighbour(environments []link.Environment, r link.Route, rt *route) {
	i := slices.IndexFunc(environments, func(e link.Environment) bool { return e.ID == r.Environment })
	if i < 0 {
		return
	}
	if r.Name == "" { // a custom domain: the same for everybody
		t.neighbourhoods[i].hosts[hostname(r.Host)] = rt
		return
	}
	short := *rt
	// No certificate can be issued for a name without a domain, and the request does not leave the machine.
	short.allowInsecure = true
	for _, name := range environments[i].Names(r.Name) {
		t.neighbourhoods[i].hosts[hostname(name)] = rt
		t.askFor(name, rt)
	}
	t.neighbourhoods[i].hosts[hostname(r.Name)] = &short
}

// askFor makes the handshake ask clients of a host for a certificate if its app wants one.
func (t *table) askFor(host string, rt *route) {
	if rt.policy != nil && rt.policy.certificate != tls.NoClientCert {
		t.ask[hostname(host)] = rt.policy.certificate
	}
}

func (t *table) addCertificate(c link.Certificate, last *table, in *Ingress) {
	pem := string(c.Cert) + string(c.Key)
	cert := last.parsed[pem]
	if cert == nil {
		pair, err := tls.X509KeyPair(c.Cert, c.Key)
		if err != nil {
			in.cfg.Log.Error("a certificate cannot be used; its names are refused", "names", c.Names, "err", err)
			return
		}
		cert = &pair
	}
	t.parsed[pem] = cert
	for _, name := range c.Names {
		name = hostname(name)
		if parent, ok := strings.CutPrefix(name, "*."); ok {
			t.wildcard[parent] = cert
		} else {
			t.exact[name] = cert
		}
	}
}

// certificate returns the certificate for a name, or nil.
func (t *table) certificate(name string) *tls.Certificate {
	name = hostname(name)
	if cert := t.exact[name]; cert != nil {
		return cert
	}
	_, parent, ok := strings.Cut(name, ".")
	if !ok {
		return nil
	}
	return t.wildcard[parent]
}

// route returns the route of a host, in the form that hostname returns, for requests from an address; nil if there is none.
func (t *table) route(host string, from netip.Addr) *route {
	if t.beforeFirst != nil {
		return t.beforeFirst
	}
	if n := t.neighbourhood(from); n != nil && n.hosts[host] != nil {
		return n.hosts[host]
	}
	return t.hosts[host]
}

// neighbourhood returns the neighbourhood of a replica's address, or nil.
func (t *table) neighbourhood(a netip.Addr) *neighbourhood {
	for i := range t.neighbourhoods {
		if n := &t.neighbourhoods[i]; n.addresses.Contains(a) { // never one without addresses
			return n
		}
	}
	return nil
}

// port returns the route of a port for connections from an address, or nil. A replica reaches the ports of its own
// environment and no others.
func (t *table) port(number int, from netip.Addr) *route {
	if t.beforeFirst != nil {
		return t.beforeFirst
	}
	if n := t.neighbourhood(from); n != nil {
		return n.ports[number]
	}
	return t.ports[number]
}

// leads says whether the table can route a waiting ticket to rm.
func (t *table) leads(w *ticket, rm *guardedRoom) bool {
	var rt *route
	switch {
	case w.port != 0:
		rt = t.port(w.port, w.from)
	case w.door != 0:
		rt = t.ownRoute(w.door, w.host)
	default:
		rt = t.route(w.host, w.from)
	}
	if rt == nil {
		return false
	}
	for _, to := range rt.targets {
		if to.room == rm {
			return true
		}
	}
	return rt.unrouted == rm
}

// choose picks a target at random by weight, so that several ingresses need not agree on an order.
func (rt *route) choose() *guardedRoom {
	switch len(rt.targets) {
	case 0:
		return rt.unrouted
	case 1:
		return rt.targets[0].room
	}
	n := rand.IntN(rt.total)
	for _, to := range rt.targets {
		if n -= to.weight; n < 0 {
			return to.room
		}
	}
	return rt.targets[0].room
}

// hostname returns the host of a Host header in the form that routes are keyed by: in lower case, without a port and
// without a final dot.
func hostname(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	for i := range len(host) {
		if 'A' <= host[i] && host[i] <= 'Z' {
			return lower(host)
		}
	}
	return host
}

// lower changes ASCII letters only. Other names are not host names, but their lower case may be ("K", the kelvin sign).
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}
