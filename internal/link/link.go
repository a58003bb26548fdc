// Package link is the protocol between the two roles over a unix socket: control sends tables, and each ingress sends
// reports.
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

// MaxFrame limits one line of the protocol; it allows some 50,000 routes.
const MaxFrame = 32 << 20

// Table is everything that an ingress needs for routing.
type Table struct {
	// Epoch identifies the process that made the table; Version grows with each change within it.
	Epoch   string `json:"epoch"`
	Version uint64 `json:"version"`

	Environments []Environment `json:"environments"`
	Routes       []Route       `json:"routes"`
	TCP          []TCPRoute    `json:"tcp,omitempty"`
	Revisions    []Revision    `json:"revisions"`
	Certificates []Certificate `json:"certificates"`
}

// Environment describes the environment that requests from other apps come from.
type Environment struct {
	ID     string `json:"id"`     // resource ID
	Domain string `json:"domain"` // lower case
	// Addresses are those of its replicas; the zero value means that none has its own address.
	Addresses netip.Prefix `json:"addresses,omitzero"`
	// Gateway is where its replicas reach the ingress and the resolver.
	Gateway netip.Addr `json:"gateway,omitzero"`
}

// Names returns the host names by which apps of the environment call an app or revision with this name.
func (e Environment) Names(name string) []string {
	return []string{name, name + "." + e.Domain, name + ".internal." + e.Domain}
}

// Route routes the requests for one host to revisions.
type Route struct {
	Host string `json:"host"` // lower case, without a port
	// Environment is the ID of the app's environment, and Name is what Environment.Names takes to build the internal
	// host names; it is "" for a custom domain.
	Environment   string `json:"environment"`
	Name          string `json:"name"`
	App           string `json:"app"` // resource ID
	External      bool   `json:"external"`
	AllowInsecure bool   `json:"allowInsecure"` // false: plain http is redirected to https
	// Transport is the protocol spoken to replicas. Auto means HTTP/1.1, and HTTP/2 for gRPC.
	Transport resource.Transport `json:"transport,omitempty"`
	Policy    *Policy            `json:"policy,omitempty"`
	// MaxHeaders limits the header fields of a request; 0 means the ingress's own limit.
	MaxHeaders int `json:"maxHeaders,omitempty"`
	// HostPort is a port of the machine's loopback address that leads to this route, whatever the host; 0 means none.
	HostPort int      `json:"hostPort,omitempty"`
	Targets  []Target `json:"targets"` // empty: the app has never had a revision
}

// TCPRoute routes the connections of one port to revisions. Each environment can have one route per port; only one
// route per port can be external.
type TCPRoute struct {
	Port        int    `json:"port"`        // that clients connect to, outside and inside
	Environment string `json:"environment"` // ID of the app's
	Name        string `json:"name"`        // of the app; Environment.Names builds its internal names
	App         string `json:"app"`         // resource ID
	External    bool   `json:"external"`
	// TargetPort is the replicas' port; 0 means the port of the revision.
	TargetPort int      `json:"targetPort,omitempty"`
	Policy     *Policy  `json:"policy,omitempty"` // addresses only
	Targets    []Target `json:"targets"`          // as in Route
}

// Change is the difference between two tables.
type Change struct {
	Version uint64 `json:"version"`
	// Revisions are those that differ. The previous table has all of them already.
	Revisions []Revision `json:"revisions,omitempty"`
}

// since returns the change from last, of the same epoch, to t. ok is false if a change cannot describe the difference.
// Lists that the two tables share cost nothing.
func (t Table) since(last Table) (c Change, ok bool) {
	c.Version = t.Version
	revisions, before := t.Revisions, last.Revisions
	t.Version, t.Revisions, last.Revisions = last.Version, nil, nil
	if len(revisions) != len(before) || !reflect.DeepEqual(t, last) {
		return c, false
	}
	for i, rev := range revisions {
		if rev.ID != before[i].ID {
			return c, false
		}
		if !rev.equal(before[i]) {
			c.Revisions = append(c.Revisions, rev)
		}
	}
	return c, true
}

// with returns t with the change applied.
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

// Policy is an app's rules for requests, checked before they are routed.
type Policy struct {
	// Allow and Deny are never both set. With Allow, all other addresses are denied.
	Allow []netip.Prefix `json:"allow,omitempty"`
	Deny  []netip.Prefix `json:"deny,omitempty"`
	CORS  *resource.CORS `json:"cors,omitempty"`
	// Sticky keeps a client on one replica with a cookie.
	Sticky             bool                        `json:"sticky,omitempty"`
	ClientCertificates resource.ClientCertificates `json:"clientCertificates,omitempty"`
}

// Target is a revision and its share of a route. Weights of a route add up to 100.
type Target struct {
	Revision string `json:"revision"` // Revision.ID
	Weight   int    `json:"weight"`
}

// Revision is a revision with the replicas that requests can be sent to.
type Revision struct {
	// ID is the resource ID, because apps of two environments can have revisions with the same name.
	ID string `json:"id"`
	// Port is 0 if each replica has its own port.
	Port     int               `json:"port"`
	Settings resource.Settings `json:"settings"`
	// TLS is set if the replicas use TLS.
	TLS bool `json:"tls,omitempty"`
	// Target is how many concurrent requests per replica the scale rule aims for; 0 without such a rule.
	Target int `json:"target,omitempty"`
	// Replicas are those that can be given requests now.
	Replicas []Replica `json:"replicas"`
	// Failed is set if no replica can ever start. Waiting requests are refused with this reason at once.
	Failed string `json:"failed,omitempty"`
	// Blocked is why no replica can start for now. It becomes the reason in the 503 of requests that time out.
	Blocked string `json:"blocked,omitempty"`
	// Stage is how far the start of the first replica has come, if none is ready and Settings.Progress is set.
	Stage resource.Stage `json:"stage,omitempty"`
}

// equal compares all fields. With a thousand revisions reflect.DeepEqual would take milliseconds.
func (r Revision) equal(other Revision) bool {
	return r.ID == other.ID && r.Port == other.Port && r.Settings == other.Settings && r.TLS == other.TLS && r.Target == other.Target &&
		slices.Equal(r.Replicas, other.Replicas) && r.Failed == other.Failed && r.Blocked == other.Blocked && r.Stage == other.Stage
}

// Replica is a replica that requests can be sent to.
type Replica struct {
	Name string `json:"name"`
	Addr string `json:"addr"` // "10.88.0.5:8080"
	// Start and Load are how long its start took: until its program ran, and from then until it was ready.
	Start time.Duration `json:"start,omitempty"`
	Load  time.Duration `json:"load,omitempty"`
}

// Certificate is served for the TLS server names that it is valid for.
type Certificate struct {
	Names []string `json:"names"` // "*.penstock.localhost"
	Cert  []byte   `json:"cert"`  // PEM, leaf first
	Key   []byte   `json:"key"`   // PEM
}

// Report tells control what only an ingress knows.
type Report struct {
	// Epoch and Version identify the table by which new requests are routed.
	Epoch   string `json:"epoch"`
	Version uint64 `json:"version"`
	// InFlight counts the requests on each replica, by name, including replicas that are no longer in the table.
	// Replicas without requests are omitted.
	InFlight map[string]int `json:"inFlight"`
	// Waiting counts the requests that wait for a replica, by revision ID.
	Waiting map[string]int `json:"waiting"`
	// Loads are the loads of revisions, by ID, that have requests or have changed since the previous report.
	Loads map[string]Load `json:"loads,omitempty"`
	// Unopened are external ports of the table that could not be opened.
	Unopened []Unopened `json:"unopened,omitempty"`
	// Changes is set if the ingress accepts changes between two tables.
	Changes bool `json:"changes,omitempty"`
	// Traffic is only in reports that are sent by time, because it is long.
	Traffic *Traffic `json:"traffic,omitempty"`
}

// Unopened is a port that could not be opened.
type Unopened struct {
	Port   int    `json:"port"`
	App    string `json:"app"` // resource ID
	Reason string `json:"reason"`
}

// Covers reports whether the report was made under table epoch and version, or a later version of the same epoch.
func (r Report) Covers(epoch string, version uint64) bool {
	return r.Epoch == epoch && r.Version >= version
}

// reportEvery limits the age of control's information about an ingress. A connection that is silent for lostAfter
// counts as dead.
const (
	reportEvery = time.Second
	// reportPause is the minimum time between two reports of changes, so that a burst causes a limited number of
	// reports.
	reportPause = 5 * time.Millisecond
	lostAfter   = 10 * time.Second
)
