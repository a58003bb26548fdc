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

// table is what one request is routed by. It never changes.
type table struct {
	hosts          map[string]*route // that anybody may ask for
	ports          map[int]*route    // that anybody may connect to
	neighbourhoods []neighbourhood   // in the order of the table that control sent
	limbo          *route            // of every host, while there has been no table
	lobbies        map[*room]bool
	maxHeaders     int // that any host's requests may have
	// By the name, or by the parent of names below a wildcard.
	exact, wildcard map[string]*tls.Certificate
	// ask has the hosts whose clients are asked for a certificate in the handshake.
	ask    map[string]tls.ClientAuthType
	parsed map[string]*tls.Certificate // by PEM, for the next table
}

// neighbourhood is an environment as its replicas see it.
type neighbourhood struct {
	addresses netip.Prefix
	hosts     map[string]*route // its apps, external or not, by all names that neighbours have for them
	ports     map[int]*route    // likewise, of TCP apps
}

type route struct {
	app           string
	allowInsecure bool
	http2         bool // replicas are spoken to in HTTP/2
	detect        bool // in HTTP/2 when the request cannot do without
	policy        *policy
	maxHeaders    int
	targets       []target
	total         int   // of the weights
	lobby         *room // when there is no target

	name       string // of a TCP app
	targetPort int    // of a TCP app's replicas; 0: the revision's
}

type target struct {
	room   *room
	weight int
}

// build makes t into a table and opens the rooms that it names. It is called with mu held.
func (in *Ingress) build(t link.Table) *table {
	next := &table{
		hosts:   make(map[string]*route, len(t.Routes)),
		ports:   make(map[int]*route, len(t.TCP)),
		lobbies: map[*room]bool{},

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
		rm.reopen()
	}
	for _, r := range t.Routes {
		rt := &route{
			app: r.App, allowInsecure: r.AllowInsecure, maxHeaders: cmp.Or(r.MaxHeaders, in.cfg.MaxHeaders),
			policy: newPolicy(r.Policy), http2: r.Transport == resource.TransportHTTP2, detect: r.Transport == resource.TransportAuto,
		}
		next.maxHeaders = max(next.maxHeaders, rt.maxHeaders)
		next.aim(rt, r.Targets, known, in)
		if r.External {
			next.hosts[hostname(r.Host)] = rt
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

// aim gives a route its targets, or the lobby of its app when none of them is known.
func (t *table) aim(rt *route, targets []link.Target, known map[string]bool, in *Ingress) {
	for _, to := range targets {
		if to.Weight <= 0 || !known[to.Revision] {
			continue
		}
		rt.targets = append(rt.targets, target{in.rooms[to.Revision], to.Weight})
		rt.total += to.Weight
	}
	if rt.total == 0 {
		rt.lobby = in.lobby(rt.app)
		t.lobbies[rt.lobby] = true
	}
}

// addNeighbour makes a route one of its environment's.
func (t *table) addNeighbour(environments []link.Environment, r link.Route, rt *route) {
	i := slices.IndexFunc(environments, func(e link.Environment) bool { return e.ID == r.Environment })
	if i < 0 {
		return
	}
	if r.Name == "" { // a domain of the app's own: the same for everybody
		t.neighbourhoods[i].hosts[hostname(r.Host)] = rt
		return
	}
	short := *rt
	// No certificate can be made out for a name without a domain, and the way does not leave the machine.
	short.allowInsecure = true
	for _, name := range environments[i].Names(r.Name) {
		t.neighbourhoods[i].hosts[hostname(name)] = rt
		t.askFor(name, rt)
	}
	t.neighbourhoods[i].hosts[hostname(r.Name)] = &short
}

// askFor has the clients of a host asked for a certificate if its app wants one.
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

// certificate is the one for that name, or nil.
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

// route is that of a host as hostname returns it for requests that come from there, or nil.
func (t *table) route(host string, from netip.Addr) *route {
	if t.limbo != nil {
		return t.limbo
	}
	if n := t.neighbourhood(from); n != nil && n.hosts[host] != nil {
		return n.hosts[host]
	}
	return t.hosts[host]
}

// neighbourhood is that of a replica's address, or nil.
func (t *table) neighbourhood(a netip.Addr) *neighbourhood {
	for i := range t.neighbourhoods {
		if n := &t.neighbourhoods[i]; n.addresses.Contains(a) { // never one without addresses
			return n
		}
	}
	return nil
}

// port is the route of a port for connections that come from there, or nil. A replica reaches the ports of its own
// environment, and no others.
func (t *table) port(number int, from netip.Addr) *route {
	if t.limbo != nil {
		return t.limbo
	}
	if n := t.neighbourhood(from); n != nil {
		return n.ports[number]
	}
	return t.ports[number]
}

// leads says whether one that waits may be led to rm.
func (t *table) leads(w *ticket, rm *room) bool {
	var rt *route
	if w.port != 0 {
		rt = t.port(w.port, w.from)
	} else {
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
	return rt.lobby == rm
}

// choose throws the dice among the targets, so that ingresses and hand-overs need not agree on whose turn it is.
func (rt *route) choose() *room {
	switch len(rt.targets) {
	case 0:
		return rt.lobby
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

// hostname is the host of a Host header as routes are keyed: without a port, in lower case, without the dot that a
// fully qualified name may end in.
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

// lower is for ASCII only: names beyond it are not host names, and their lower case may be one ("K", the kelvin sign).
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}
