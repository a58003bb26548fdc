// Package resolver is the DNS resolver of replicas. Names of apps in their own environment, and of external apps in other
// environments, resolve to the replica's gateway, where the ingress is. All other queries go to the machine's resolvers.
//
//	replica ─► gateway:53 ─► Resolver ─┬─ one of our names: the gateway's address, or NXDOMAIN
//	                                   └─ other names: forwarded from the machine's network
//
// App names resolve to the gateway, never to a replica, so that the ingress sees every request and can start an app without
// replicas. The sender's address identifies its environment.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"

	"penstock/internal/link"
)

const (
	// ttl in seconds is short so that clients soon notice a removed name. A lookup costs only a tenth of a millisecond.
	ttl = 5
	// maxConnections limits open TCP connections, which replicas need only for rare large responses.
	maxConnections = 256
	// maxForwards limits how many queries of one environment wait for the machine's resolvers. Further queries fail, and
	// clients retry them.
	maxForwards = 256
)

// Config configures a Resolver.
type Config struct {
	// Upstreams returns the addresses and ports of the machine's resolvers. FromFile returns such a function.
	Upstreams func() ([]string, error)
	Log       *slog.Logger
}

// Resolver answers queries with the latest table.
type Resolver struct {
	cfg  Config
	view atomic.Pointer[view] // nil before the first table

	mu       sync.Mutex
	forwards map[string]chan struct{} // semaphores for forwarded queries, by environment
}

// New returns a resolver without a table. Until it has one, clients are told to ask again.
func New(cfg Config) *Resolver {
	return &Resolver{cfg: cfg, forwards: map[string]chan struct{}{}}
}

// Apply replaces the table.
func (r *Resolver) Apply(t link.Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := map[string]chan struct{}{}
	for _, e := range t.Environments {
		places := r.forwards[e.ID]
		if places == nil {
			places = make(chan struct{}, maxForwards)
		}
		kept[e.ID] = places
	}
	r.forwards = kept
	r.view.Store(newView(t, kept))
}

// Serve answers queries from the two listeners until ctx ends or a listener fails.
func (r *Resolver) Serve(ctx context.Context, packets net.PacketConn, connections net.Listener) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { r.handle(ctx, w, q) })
	servers := []*dns.Server{
		{PacketConn: packets, Handler: handler, UDPSize: dns.DefaultMsgSize},
		{Listener: netutil.LimitListener(connections, maxConnections), Handler: handler},
	}
	var wg sync.WaitGroup
	for _, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		ended := make(chan struct{})
		wg.Go(func() {
			defer close(ended)
			if err := s.ActivateAndServe(); ctx.Err() == nil {
				stop(fmt.Errorf("resolver: %w", err))
			}
		})
		wg.Go(func() {
			<-ctx.Done()
			select {
			case <-started: // a server can be stopped only after it has started
			case <-ended:
				return
			}
			// Shutdown waits for queries in progress, each of which has a time limit.
			if err := s.Shutdown(); err != nil {
				r.cfg.Log.Debug("resolver had ended already", "err", err)
			}
		})
	}
	<-ctx.Done()
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (r *Resolver) handle(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) {
	network := w.LocalAddr().Network()
	answer := r.answer(ctx, addressOf(w.RemoteAddr()), q, network)
	if network == "udp" {
		answer.Truncate(room(q))
	}
	if err := w.WriteMsg(answer); err != nil {
		r.cfg.Log.Debug("answer not delivered", "to", w.RemoteAddr(), "err", err)
	}
}

// room returns the largest UDP response that the client accepts.
func room(q *dns.Msg) int {
	if opt := q.IsEdns0(); opt != nil {
		return max(int(opt.UDPSize()), dns.MinMsgSize)
	}
	return dns.MinMsgSize
}

func (r *Resolver) answer(ctx context.Context, from netip.Addr, q *dns.Msg, network string) *dns.Msg {
	v := r.view.Load()
	if len(q.Question) != 1 {
		return refuse(q, dns.RcodeFormatError)
	}
	n := v.neighbourhood(from)
	if n == nil {
		// The table with the sender's environment has not arrived yet.
		return refuse(q, dns.RcodeServerFailure)
	}
	if own := v.answer(n, q); own != nil {
		return own
	}
	select {
	case n.forwards <- struct{}{}:
		defer func() { <-n.forwards }()
	default:
		return refuse(q, dns.RcodeServerFailure)
	}
	servers, err := r.cfg.Upstreams()
	var answer *dns.Msg
	if err == nil {
		answer, err = forward(ctx, servers, q, network)
	}
	if err != nil {
		r.cfg.Log.Debug("the machine's resolvers do not answer", "name", q.Question[0].Name, "err", err)
		return refuse(q, dns.RcodeServerFailure)
	}
	return answer
}

func refuse(q *dns.Msg, code int) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(q, code)
	m.RecursionAvailable = true
	return m
}

func addressOf(a net.Addr) netip.Addr {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap()
}
