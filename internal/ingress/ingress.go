package ingress

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress/front"
	"penstock/internal/ingress/room"
	"penstock/internal/ingress/upstream"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// Config is what an ingress runs with. The value at the end of a field's comment replaces zero.
type Config struct {
	// HTTPSPort is where clients reach https; plain requests are redirected to it. 443.
	HTTPSPort int
	// SoftDrain is how long a drain waits before it closes idle connections, so that clients see "Connection: close" on a
	// response first. 5 s.
	SoftDrain time.Duration
	// Drain bounds the whole drain; requests that are not over by then are cut. 10 min.
	Drain time.Duration
	// HeaderTimeout bounds how long a client may take to send a request's head. 30 s.
	HeaderTimeout time.Duration
	// BodyTimeout is how long a client may take to send a body of up to 32 KiB, for which no place at a replica is taken before
	// it has come. A larger body must come at leastRate from then on, if the app has a limit of places. 30 s.
	BodyTimeout time.Duration
	// MaxHeaderBytes and MaxHeaders bound a request's head; an environment may set MaxHeaders for its apps. 60 KiB and
	// 100, as in Envoy.
	MaxHeaderBytes int
	MaxHeaders     int
	// Descriptors is how many files and sockets the process may have open; 0 means that this has no limit.
	Descriptors int
	// DialTimeout bounds the opening of one connection to a replica. 5 s, as in Envoy.
	DialTimeout time.Duration
	// Heartbeat is how often a client that follows the start of a replica is told something. 10 s: proxies and load balancers
	// close silent connections after 30 s or more.
	Heartbeat time.Duration
	// Observe is called at the end of each request, by the request's goroutine. It must not keep the record. It may be nil.
	Observe func(*accesslog.Record)
	Log     *slog.Logger
}

func (c Config) withDefaults() Config {
	c.HTTPSPort = cmp.Or(c.HTTPSPort, 443)
	c.SoftDrain = cmp.Or(c.SoftDrain, 5*time.Second)
	c.Drain = cmp.Or(c.Drain, 10*time.Minute)
	c.HeaderTimeout = cmp.Or(c.HeaderTimeout, 30*time.Second)
	c.BodyTimeout = cmp.Or(c.BodyTimeout, 30*time.Second)
	c.MaxHeaderBytes = cmp.Or(c.MaxHeaderBytes, 60<<10)
	c.MaxHeaders = cmp.Or(c.MaxHeaders, 100)
	c.DialTimeout = cmp.Or(c.DialTimeout, 5*time.Second)
	c.Heartbeat = cmp.Or(c.Heartbeat, 10*time.Second)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	return c
}

// Ingress routes requests by the last table that it was given.
type Ingress struct {
	cfg       Config
	upstreams *upstream.Client
	exchanges sync.Pool
	changed   chan struct{}
	fresh     chan struct{} // receives when there is a table to save; takes one without blocking
	stats     [counterSets]counters
	life      life
	began     time.Time     // since when times are measured
	clients   atomic.Uint64 // connections that were ever opened
	shared    sync.Map      // *client of each connection of HTTP/2 and of TCP apps, by its net.Conn
	hops      *hops
	servers   []*front.Server // guarded by crowd's mu
	crowd     crowd
	own       *front.Queue // connections to ports that lead to one app each, which doors accept
	doors     atomic.Pointer[Doors]

	table atomic.Pointer[table] // never nil

	mu       sync.Mutex // held by Apply; guards the fields below
	last     link.Table
	applied  bool
	rooms    map[string]*guardedRoom // by revision; also those that left the table and have requests
	unrouted map[string]*guardedRoom // by app, for requests of apps that have no revision yet
}

// New returns an ingress without a table: requests wait until it has one.
func New(cfg Config) *Ingress {
	in := &Ingress{
		cfg:      cfg.withDefaults(),
		changed:  make(chan struct{}, 1),
		fresh:    make(chan struct{}, 1),
		rooms:    map[string]*guardedRoom{},
		unrouted: map[string]*guardedRoom{},
		began:    time.Now(),
		life:     life{quiet: make(chan struct{}, 1)},
		own:      front.NewQueue(ownPorts{}),
		hops:     newHops(),
		crowd:    newCrowd(cfg.Descriptors),
	}
	in.upstreams = upstream.NewClient(in.cfg.DialTimeout)
	in.exchanges.New = func() any { return new(exchange) }
	in.table.Store(&table{maxHeaders: in.cfg.MaxHeaders, beforeFirst: &route{
		allowInsecure: true, maxHeaders: in.cfg.MaxHeaders, unrouted: in.unroutedRoom(""),
	}})
	return in
}

// Apply makes t the table. When it returns, no new request goes to a replica that is not in t.
func (in *Ingress) Apply(t link.Table) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.apply(t)
}

// apply is called with mu held.
func (in *Ingress) apply(t link.Table) {
	next := in.build(t)
	in.table.Store(next)

	present := map[*guardedRoom]bool{}
	for _, rev := range t.Revisions {
		rm := in.rooms[rev.ID]
		present[rm] = true
		rm.update(rev, next)
	}
	for name, rm := range in.rooms {
		if !present[rm] && rm.closeRoom() {
			delete(in.rooms, name)
		}
	}
	for app, rm := range in.unrouted {
		if next.unrouted[rm] {
			rm.dismiss(next)
			continue
		}
		rm.closeRoom()
		delete(in.unrouted, app)
	}
	in.last, in.applied = t, true
	select {
	case in.fresh <- struct{}{}:
	default:
	}
}

// forget removes a room that has left the table, once its last request has ended.
func (in *Ingress) forget(rm *guardedRoom) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.rooms[rm.name] == rm && rm.over() {
		delete(in.rooms, rm.name)
	}
}

// unroutedRoom returns the room of an app that has no revision yet; "" is for all requests before the first table.
func (in *Ingress) unroutedRoom(app string) *guardedRoom {
	rm := in.unrouted[app]
	if rm == nil {
		rm = newRoom("", in)
		config := room.Config{Settings: unroutedSettings, Blocked: "no revision of the app has been made yet"}
		if app == "" {
			config.Blocked = "the ingress has not been told its routes yet"
		}
		rm.room.Update(config, nil, nil, in.began)
		in.unrouted[app] = rm
	}
	return rm
}

// unroutedSettings are the defaults of an app's settings, which hold until there is a revision.
var unroutedSettings = resource.Settings{Behaviour: resource.Fast, QueueLimit: 1000, QueueTimeout: 240 * time.Second}

// Report returns what is in flight and what waits.
func (in *Ingress) Report() link.Report {
	in.mu.Lock()
	defer in.mu.Unlock()
	// Under mu all rooms match the last table, so what they count belongs to its version.
	r := link.Report{
		Epoch: in.last.Epoch, Version: in.last.Version,
		InFlight: map[string]int{}, Waiting: map[string]int{}, Loads: map[string]link.Load{},
	}
	for _, rm := range in.rooms {
		rm.report(&r)
	}
	return r
}

// Traffic returns what replicas have answered, what revisions were asked, and what was refused because no replica could
// take it.
func (in *Ingress) Traffic() *link.Traffic {
	in.mu.Lock()
	defer in.mu.Unlock()
	t := &link.Traffic{
		Replicas: map[string]link.Tally{}, Revisions: map[string]link.Load{},
		Refused: map[string]uint64{}, Heard: map[string]time.Duration{},
	}
	for _, rm := range in.rooms {
		rm.traffic(t)
	}
	t.Loops = in.hops.recent(time.Now())
	return t
}

// Changed receives when a replica that left the table has served its last request, and when a revision's first request
// begins to wait or its last one stops. Several changes may lead to one receive.
func (in *Ingress) Changed() <-chan struct{} { return in.changed }

func (in *Ingress) nudge() {
	select {
	case in.changed <- struct{}{}:
	default:
	}
}

// TLSConfig chooses the table's certificate by the name that the client asks for. The handshake fails for a client that
// asks for no name, or for one that has no certificate.
func (in *Ingress) TLSConfig() *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// net/http adds these only to the configuration that it is given, not to what GetConfigForClient returns.
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			// If there is neither a certificate nor an error, crypto/tls sends the alert unrecognized_name.
			return in.table.Load().certificate(hello.ServerName), nil
		},
	}
	asking := map[tls.ClientAuthType]*tls.Config{}
	for _, auth := range []tls.ClientAuthType{tls.RequestClientCert, tls.RequireAnyClientCert} {
		asking[auth] = base.Clone()
		asking[auth].ClientAuth = auth
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return asking[in.table.Load().ask[hostname(hello.ServerName)]], nil // nil: base
	}
	return base
}

// sweep closes connections to replicas that have been idle for too long, until ctx ends.
func (in *Ingress) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			in.mu.Lock()
			var pools []*upstream.Pool
			for _, rm := range in.rooms {
				pools = rm.pools(pools)
			}
			in.mu.Unlock()
			for _, p := range pools {
				p.Sweep(now)
			}
		}
	}
}

const sweepEvery = 15 * time.Second
