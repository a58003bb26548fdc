package ingress

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/access"
	"penstock/internal/ingress/upstream"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// Config is what an ingress runs with. Fields that are zero get the value that their comment names.
type Config struct {
	// HTTPSPort is where clients reach https; plain requests are redirected to it. 443.
	HTTPSPort int
	// SoftDrain is how long clients are given to take notice of "Connection: close" before their idle connections are
	// closed. 5 s.
	SoftDrain time.Duration
	// Drain bounds the whole drain; what is not over by then is cut. 10 min.
	Drain time.Duration
	// HeaderTimeout bounds how long a client may take to send a request's head. 30 s.
	HeaderTimeout time.Duration
	// MaxHeaderBytes and MaxHeaders bound a request's head; an environment may set the latter for its apps. 60 KiB and
	// 100, as Envoy does.
	MaxHeaderBytes int
	MaxHeaders     int
	// DialTimeout bounds the opening of one connection to a replica. 5 s, as Envoy does.
	DialTimeout time.Duration
	// Observe is called at the end of each request, by the goroutine of the request. The record is its own only until
	// it returns. It may be nil.
	Observe func(*access.Record)
	Log     *slog.Logger
}

func (c Config) withDefaults() Config {
	c.HTTPSPort = cmp.Or(c.HTTPSPort, 443)
	c.SoftDrain = cmp.Or(c.SoftDrain, 5*time.Second)
	c.Drain = cmp.Or(c.Drain, 10*time.Minute)
	c.HeaderTimeout = cmp.Or(c.HeaderTimeout, 30*time.Second)
	c.MaxHeaderBytes = cmp.Or(c.MaxHeaderBytes, 60<<10)
	c.MaxHeaders = cmp.Or(c.MaxHeaders, 100)
	c.DialTimeout = cmp.Or(c.DialTimeout, 5*time.Second)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	return c
}

// Ingress routes requests by the table that it was given last.
type Ingress struct {
	cfg       Config
	upstreams *upstream.Client
	exchanges sync.Pool
	changed   chan struct{}
	fresh     chan struct{} // receives when there is a table to be kept; takes one without blocking
	stats     [counterSets]counters
	life      life
	clients   atomic.Uint64 // connections since the beginning

	table atomic.Pointer[table] // never nil

	mu      sync.Mutex // held by Apply; guards what follows
	last    link.Table
	applied bool
	rooms   map[string]*room // by revision; also those that left the table and have requests
	lobbies map[string]*room // by app, for routes without a target
}

// New returns an ingress without a table: it holds what comes until it has one.
func New(cfg Config) *Ingress {
	in := &Ingress{
		cfg:     cfg.withDefaults(),
		changed: make(chan struct{}, 1),
		fresh:   make(chan struct{}, 1),
		rooms:   map[string]*room{},
		lobbies: map[string]*room{},
		life:    life{quiet: make(chan struct{}, 1)},
	}
	in.upstreams = upstream.NewClient(in.cfg.DialTimeout)
	in.exchanges.New = func() any { return new(exchange) }
	limbo := in.lobby("")
	in.table.Store(&table{maxHeaders: in.cfg.MaxHeaders, limbo: &route{allowInsecure: true, maxHeaders: in.cfg.MaxHeaders, lobby: limbo}})
	return in
}

// Apply makes t the table. When it returns, no new request is given to a replica that t does not have.
func (in *Ingress) Apply(t link.Table) {
	in.mu.Lock()
	defer in.mu.Unlock()
	next := in.build(t)
	in.table.Store(next)

	present := map[*room]bool{}
	for _, rev := range t.Revisions {
		rm := in.rooms[rev.ID]
		present[rm] = true
		rm.update(rev, next)
	}
	for name, rm := range in.rooms {
		if !present[rm] && rm.retire() {
			delete(in.rooms, name)
		}
	}
	for app, rm := range in.lobbies {
		if next.lobbies[rm] {
			rm.sendAstray(next)
			continue
		}
		rm.retire()
		delete(in.lobbies, app)
	}
	in.last, in.applied = t, true
	select {
	case in.fresh <- struct{}{}:
	default:
	}
}

// forget drops a room that left the table, once its last request has ended.
func (in *Ingress) forget(rm *room) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.rooms[rm.name] == rm && rm.over() {
		delete(in.rooms, rm.name)
	}
}

// lobby returns the room of an app that has no revision yet.
func (in *Ingress) lobby(app string) *room {
	rm := in.lobbies[app]
	if rm == nil {
		rm = newRoom("", in)
		rm.settings = lobbySettings
		rm.blocked = "no revision of the app has been made yet"
		if app == "" {
			rm.blocked = "the ingress has not been told its routes yet"
		}
		in.lobbies[app] = rm
	}
	return rm
}

// lobbySettings are the defaults of an app's settings: before there is a revision nobody has said otherwise.
var lobbySettings = resource.Settings{Behaviour: resource.Fast, QueueLimit: 1000, QueueTimeout: 240 * time.Second}

// Report says what is in flight and what waits.
func (in *Ingress) Report() link.Report {
	in.mu.Lock()
	defer in.mu.Unlock()
	// Under mu the rooms are all as the last table says, so what they count now is counted under its version.
	r := link.Report{
		Epoch: in.last.Epoch, Version: in.last.Version,
		InFlight: map[string]int{}, Waiting: map[string]int{},
	}
	for _, rm := range in.rooms {
		rm.report(&r)
	}
	return r
}

// Traffic says what replicas have answered since they came, and what was refused for want of one.
func (in *Ingress) Traffic() *link.Traffic {
	in.mu.Lock()
	defer in.mu.Unlock()
	t := &link.Traffic{Replicas: map[string]link.Tally{}, Refused: map[string]uint64{}, Heard: map[string]time.Duration{}}
	for _, rm := range in.rooms {
		rm.traffic(t)
	}
	return t
}

// Changed receives when a replica that left the table has become free, and when a revision's requests begin or cease
// to wait. Several changes may be one receive.
func (in *Ingress) Changed() <-chan struct{} { return in.changed }

func (in *Ingress) nudge() {
	select {
	case in.changed <- struct{}{}:
	default:
	}
}

// TLSConfig has the table's certificates by the name that the client asks for. A client that names none, or one that
// no certificate is made out for, is refused in the handshake.
func (in *Ingress) TLSConfig() *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// net/http adds these to the configuration that it is given only, not to those for clients that are asked.
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			// Without certificate and error crypto/tls answers with the alert unrecognized_name.
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

// sweep closes connections to replicas that have been idle for long, until ctx ends.
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
