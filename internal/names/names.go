// Package names answers what replicas ask about names: apps of their own environment lead to their gateway, where the
// ingress is, and so do other environments' external apps; everything else is the machine's resolvers' to answer.
//
//	replica ─► gateway:53 ─► Resolver ─┬─ a name of ours: the gateway's address, or NXDOMAIN
//	                                   └─ any other: forwarded, from the machine's own network
//
// All names of apps give the gateway, never a replica, so that the ingress can wake what is at zero and sees every
// request. The sender's address tells its environment.
package names

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
	// ttl is short because a name that is gone should not be asked for again, and an answer costs a tenth of a
	// millisecond. Seconds.
	ttl = 5
	// maxConnections bounds what replicas can hold open over TCP, which they need for the rare large answer only.
	maxConnections = 256
	// maxForwards bounds how many queries of one environment wait for the machine's resolvers. What comes on top is
	// refused for now, which a client repeats.
	maxForwards = 256
)

// Config is what a Resolver runs with.
type Config struct {
	// Upstreams tells the machine's resolvers, with ports. FromFile makes one.
	Upstreams func() ([]string, error)
	Log       *slog.Logger
}

// Resolver answers by the table that it was given last.
type Resolver struct {
	cfg  Config
	view atomic.Pointer[view] // nil before the first table

	mu       sync.Mutex
	forwards map[string]chan struct{} // places of queries that are forwarded, by environment
}

// New returns a resolver without a table: it tells everybody to ask again.
func New(cfg Config) *Resolver {
	return &Resolver{cfg: cfg, forwards: map[string]chan struct{}{}}
}

// Apply makes t the table.
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

// Serve answers queries that come by the two listeners until ctx ends or one of them fails.
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
			case <-started: // a server that has not started cannot be told to stop
			case <-ended:
				return
			}
			// It waits for the answers that are being made, each of which has a limit.
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

// room is how large an answer over UDP the client takes.
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
		// The table with the sender's environment is on its way.
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
