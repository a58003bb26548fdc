package resolver

import (
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"penstock/internal/link"
)

// view is the name data of a table. It is immutable.
type view struct {
	neighbourhoods []neighbourhood
	zones          []string        // our domains
	public         map[string]bool // hosts of external apps, of all environments
}

// neighbourhood holds the names that replicas of an environment can use.
type neighbourhood struct {
	environment link.Environment
	names       map[string]bool
	forwards    chan struct{}
}

func newView(t link.Table, forwards map[string]chan struct{}) *view {
	v := &view{public: map[string]bool{}}
	at := map[string]int{}
	for i, e := range t.Environments {
		at[e.ID] = i
		v.neighbourhoods = append(v.neighbourhoods, neighbourhood{e, map[string]bool{}, forwards[e.ID]})
		v.zones = append(v.zones, strings.ToLower(e.Domain))
	}
	for _, r := range t.Routes {
		if r.External {
			v.public[strings.ToLower(r.Host)] = true
		}
		if i, ok := at[r.Environment]; ok && r.Name != "" {
			v.neighbourhoods[i].know(r.Name)
		}
	}
	for _, r := range t.TCP {
		if i, ok := at[r.Environment]; ok {
			v.neighbourhoods[i].know(r.Name)
		}
	}
	return v
}

// know adds the names under which other replicas of the environment reach an app or revision.
func (n *neighbourhood) know(name string) {
	for _, name := range n.environment.Names(name) {
		n.names[strings.ToLower(name)] = true
	}
}

// neighbourhood returns the environment of a replica's address, or nil.
func (v *view) neighbourhood(a netip.Addr) *neighbourhood {
	if v == nil {
		return nil
	}
	for i := range v.neighbourhoods {
		if n := &v.neighbourhoods[i]; n.environment.Addresses.Contains(a) { // never matches an environment without addresses
			return n
		}
	}
	return nil
}

// answer returns the response to a query, or nil if the name is not in one of our domains.
func (v *view) answer(n *neighbourhood, q *dns.Msg) *dns.Msg {
	question := q.Question[0]
	if question.Qclass != dns.ClassINET {
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	zone, ours := v.zone(name)
	exists := n.names[name] || v.public[name]
	if !ours && !exists {
		return nil
	}
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable, m.Compress = true, true, true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(dns.DefaultMsgSize, opt.Do())
	}
	switch {
	case exists && (question.Qtype == dns.TypeA || question.Qtype == dns.TypeANY):
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl},
			A:   net.IP(n.environment.Gateway.AsSlice()),
		}}
		return m
	case exists, name == zone, name == "internal."+zone:
		// The name exists but has no record of that type. After NXDOMAIN for AAAA, clients would not use the A record.
	default:
		m.Rcode = dns.RcodeNameError
	}
	if ours {
		m.Ns = []dns.RR{soa(zone)}
	}
	return m
}

// zone returns the longest of our domains that contains the name.
func (v *view) zone(name string) (zone string, ok bool) {
	for _, z := range v.zones {
		if (name == z || strings.HasSuffix(name, "."+z)) && len(z) > len(zone) {
			zone, ok = z, true
		}
	}
	return zone, ok
}

// soa returns the record that says how long a client may cache a negative response (RFC 2308).
func soa(zone string) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: dns.Fqdn(zone), Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  dns.Fqdn("ns." + zone), Mbox: dns.Fqdn("hostmaster." + zone),
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl, // only Minttl matters, as there are no secondary servers
	}
}
