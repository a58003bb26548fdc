// Package link is what the two roles say to each other over a unix socket: control sends tables down, each ingress
// sends reports up.
//
//	control                                     ingress
//	   │ ◄──────────── connects ─────────────────── │
//	   │ ── {"table": Table} ─────────────────────► │   now, and again after every change
//	   │ ── {"change": Change} ───────────────────► │   instead, when only revisions differ from what went before
//	   │ ◄───────────────── {"report": Report} ──── │   after every table and change of load, and at least each second
//
// The protocol: one JSON object a line, at most MaxFrame bytes, in both directions. A table is complete: the newest one
// is all that an ingress needs, so those in between are skipped, and it may go on with its last one while control is away.
// A change is to the table or change before it on the same connection, for ingresses that say that they take changes:
// replicas come and go all the time, and with a thousand apps a table takes ten times as long to read as to use. A report
// is complete. Fields that one side does not know are ignored, so that an old ingress drains under a new control.
package link

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"penstock/internal/resource"
)

// MaxFrame bounds one line of the protocol: some 50,000 routes.
const MaxFrame = 32 << 20

// Table is all that an ingress routes by.
type Table struct {
	// Epoch names the process that made the table; Version grows with each change within it.
	Epoch   string `json:"epoch"`
	Version uint64 `json:"version"`

	Environments []Environment `json:"environments"`
	Routes       []Route       `json:"routes"`
	TCP          []TCPRoute    `json:"tcp,omitempty"`
	Revisions    []Revision    `json:"revisions"`
	Certificates []Certificate `json:"certificates"`
}

// Environment is where requests of neighbours come from.
type Environment struct {
	ID     string `json:"id"`     // resource ID
	Domain string `json:"domain"` // lower case
	// Addresses are those of its replicas; the zero value means that none has an address of its own.
	Addresses netip.Prefix `json:"addresses,omitzero"`
	// Gateway is where its replicas reach the ingress and the resolver.
	Gateway netip.Addr `json:"gateway,omitzero"`
}

// Names are those by which neighbours call an app or revision of that name.
func (e Environment) Names(name string) []string {
	return []string{name, name + "." + e.Domain, name + ".internal." + e.Domain}
}

// Route leads the requests of one host to revisions.
type Route struct {
	Host string `json:"host"` // lower case, without a port
	// Environment is the ID of the app's, and Name what Environment.Names makes the names of neighbours of; "" for a
	// domain of the app's own.
	Environment   string `json:"environment"`
	Name          string `json:"name"`
	App           string `json:"app"` // resource ID
	External      bool   `json:"external"`
	AllowInsecure bool   `json:"allowInsecure"` // false: plain http is redirected to https
	// Transport is what replicas are spoken to in. Auto: HTTP/1.1, and HTTP/2 for gRPC.
	Transport resource.Transport `json:"transport,omitempty"`
	Policy    *Policy            `json:"policy,omitempty"`
	// MaxHeaders bounds the fields of a request's head; 0: the ingress's own limit.
	MaxHeaders int      `json:"maxHeaders,omitempty"`
	Targets    []Target `json:"targets"` // empty: the app has never had a revision to send to yet
}

// TCPRoute leads the connections of one port to revisions. Of a port there is one route an environment, and one in all
// that is external.
type TCPRoute struct {
	Port        int    `json:"port"`        // that clients connect to, outside and inside
	Environment string `json:"environment"` // ID of the app's
	Name        string `json:"name"`        // of the app; Environment.Names makes the names of neighbours of it
	App         string `json:"app"`         // resource ID
	External    bool   `json:"external"`
	// TargetPort is the replicas' port; 0: that of the revision.
	TargetPort int      `json:"targetPort,omitempty"`
	Policy     *Policy  `json:"policy,omitempty"` // addresses only
	Targets    []Target `json:"targets"`          // as in Route
}

// Change makes a table of what it is sent after.
type Change struct {
	Version uint64 `json:"version"`
	// Revisions are those that differ. The table has each of them already.
	Revisions []Revision `json:"revisions,omitempty"`
}

// since is what makes last, of the same epoch, into t; not ok when more differs than a change can say.
func (t Table) since(last Table) (c Change, ok bool) {
	c.Version = t.Version
	if len(t.Revisions) != len(last.Revisions) {
		return c, false
	}
	for i, rev := range t.Revisions {
		if rev.ID != last.Revisions[i].ID {
			return c, false
		}
		if !reflect.DeepEqual(rev, last.Revisions[i]) {
			c.Revisions = append(c.Revisions, rev)
		}
	}
	t.Version, t.Revisions, last.Revisions = last.Version, nil, nil
	return c, reflect.DeepEqual(t, last)
}

// with is t after a change.
func (t Table) with(c Change) (Table, error) {
	at := make(map[string]int, len(c.Revisions))
	for i, rev := range c.Revisions {
		at[rev.ID] = i
	}
	t.Version = c.Version
	t.Revisions = slices.Clone(t.Revisions)
	for i, rev := range t.Revisions {
		if k, ok := at[rev.ID]; ok {
			t.Revisions[i] = c.Revisions[k]
			delete(at, rev.ID)
		}
	}
	if len(at) > 0 {
		return Table{}, fmt.Errorf("a change is about %d revisions that the table does not have", len(at))
	}
	return t, nil
}

// Policy is what an app asks of requests before they are led anywhere.
type Policy struct {
	// Allow and Deny are never both set. With Allow all other addresses are denied.
	Allow []netip.Prefix `json:"allow,omitempty"`
	Deny  []netip.Prefix `json:"deny,omitempty"`
	CORS  *resource.CORS `json:"cors,omitempty"`
	// Sticky keeps a client on one replica by a cookie.
	Sticky             bool                        `json:"sticky,omitempty"`
	ClientCertificates resource.ClientCertificates `json:"clientCertificates,omitempty"`
}

// Target is a revision and its share of a route. Weights of a route add up to 100.
type Target struct {
	Revision string `json:"revision"` // Revision.ID
	Weight   int    `json:"weight"`
}

// Revision is where requests go in the end.
type Revision struct {
	// ID is the resource's: apps of two environments may have revisions of one name.
	ID string `json:"id"`
	// Port is 0 when each replica has one of its own.
	Port     int               `json:"port"`
	Settings resource.Settings `json:"settings"`
	// TLS is set when the replicas speak it.
	TLS bool `json:"tls,omitempty"`
	// Target is how many requests the scale rule wants a replica to have at a time; 0 without such a rule.
	Target int `json:"target,omitempty"`
	// Replicas are those that may be given requests now.
	Replicas []Replica `json:"replicas"`
	// Failed is set when no replica can ever start: whoever waits is answered with it at once.
	Failed string `json:"failed,omitempty"`
	// Blocked says why none can start for now; it becomes the reason of the 503 of those that waited in vain.
	Blocked string `json:"blocked,omitempty"`
}

// Replica is one upstream.
type Replica struct {
	Name string `json:"name"`
	Addr string `json:"addr"` // "10.88.0.5:8080"
}

// Certificate serves the TLS names that it is made out for.
type Certificate struct {
	Names []string `json:"names"` // "*.penstock.localhost"
	Cert  []byte   `json:"cert"`  // PEM, leaf first
	Key   []byte   `json:"key"`   // PEM
}

// Report is what an ingress knows and control does not.
type Report struct {
	// Epoch and Version of the table that new requests are routed by.
	Epoch   string `json:"epoch"`
	Version uint64 `json:"version"`
	// InFlight counts the requests on each replica, by name, also on those that have left the table. Those with none
	// are left out.
	InFlight map[string]int `json:"inFlight"`
	// Waiting counts the requests that wait for a replica, by revision ID.
	Waiting map[string]int `json:"waiting"`
	// Unopened are external ports of the table that nobody can connect to.
	Unopened []Unopened `json:"unopened,omitempty"`
	// Changes says that the ingress takes changes between two tables.
	Changes bool `json:"changes,omitempty"`
	// Traffic comes with the reports that are due by time only, as it is long.
	Traffic *Traffic `json:"traffic,omitempty"`
}

// Unopened is a port that could not be opened.
type Unopened struct {
	Port   int    `json:"port"`
	App    string `json:"app"` // resource ID
	Reason string `json:"reason"`
}

// Covers says whether the report was made under table epoch, version or a later one of the same epoch.
func (r Report) Covers(epoch string, version uint64) bool {
	return r.Epoch == epoch && r.Version >= version
}

// reportEvery bounds how old control's picture of an ingress gets. A connection that is silent for lostAfter is dead.
const (
	reportEvery = time.Second
	lostAfter   = 10 * time.Second
)
