package ingress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress/front"
)

// keepAlive is how long a client's connection may be idle. It is longer than the idle time of common clients and load
// balancers (Azure's: 4 minutes), so that they close it first and send no request on a connection that is being closed.
const keepAlive = 5 * time.Minute

// life counts what must end before Serve may return: connections, and requests that can outlive their connection (of HTTP/2
// and tunnels).
type life struct {
	draining atomic.Bool
	n        atomic.Int64
	quiet    chan struct{} // receives when n came to 0 while draining; takes one without blocking
}

func (l *life) enter() { l.n.Add(1) }

func (l *life) exit() {
	if l.n.Add(-1) == 0 && l.draining.Load() {
		select {
		case l.quiet <- struct{}{}:
		default:
		}
	}
}

// wait returns when nothing is left or ctx ends.
func (l *life) wait(ctx context.Context) {
	for l.n.Load() > 0 {
		select {
		case <-l.quiet:
		case <-ctx.Done():
			return
		}
	}
}

// Serve accepts requests from the listeners for http and https until ctx ends or one of them fails. Then it drains: it
// accepts no more connections, asks clients to use new ones, and waits for requests in flight, at most for Config.Drain.
// When it returns, all its goroutines have ended. It is called once.
func (in *Ingress) Serve(ctx context.Context, plain, secure []net.Listener) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// Requests live on when ctx ends, until the drain has lasted too long.
	requests, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)

	var wg sync.WaitGroup
	in.crowd.mu.Lock() // until all servers are there
	run := func(scheme string, ln net.Listener, config *tls.Config) {
		server := in.server(requests, scheme, config)
		if ln == in.own {
			in.mark(server)
		}
		in.servers = append(in.servers, server)
		wg.Go(func() {
			if err := server.Serve(requests, ln); ctx.Err() == nil {
				stop(fmt.Errorf("serve %s on %v: %w", scheme, ln.Addr(), err))
			}
		})
	}
	for _, ln := range plain {
		run("http", ln, nil)
	}
	for _, ln := range secure {
		run("https", ln, in.TLSConfig())
	}
	run("http", in.own, nil)
	in.crowd.mu.Unlock()
	wg.Go(func() { in.sweep(requests) })

	<-ctx.Done()
	err := context.Cause(ctx)
	in.drain(in.servers, slices.Concat(plain, secure), end)
	end(nil)
	wg.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (in *Ingress) server(requests context.Context, scheme string, config *tls.Config) *front.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(config != nil)
	protocols.SetUnencryptedHTTP2(config == nil) // by prior knowledge
	handler := in.Handler(scheme)
	return &front.Server{
		Handler: handler,
		HTTP2: &http.Server{
			Handler:                      handler,
			Protocols:                    protocols,
			DisableGeneralOptionsHandler: true, // the app answers "OPTIONS *"
			ReadHeaderTimeout:            in.cfg.HeaderTimeout,
			IdleTimeout:                  keepAlive,
			MaxHeaderBytes:               in.cfg.MaxHeaderBytes,
			ConnState:                    in.connState,
			BaseContext:                  func(net.Listener) context.Context { return requests },
			ConnContext:                  in.withSharedClient,
			ErrorLog:                     log.New(serverLog{in.cfg.Log}, "", 0),
		},
		TLS:            config,
		Context:        in.withOneClient,
		Opened:         in.life.enter,
		Closed:         in.life.exit,
		Refused:        func(ctx context.Context, status int) { in.refused(ctx, scheme, status) },
		Admit:          in.admit,
		HeaderTimeout:  in.headerTimeout,
		IdleTimeout:    keepAlive,
		MaxHeaderBytes: in.cfg.MaxHeaderBytes,
		MaxFields:      func() int { return in.table.Load().maxHeaders },
		Log:            in.cfg.Log,
	}
}

// refused records bytes that were no valid request.
func (in *Ingress) refused(ctx context.Context, scheme string, status int) {
	c, ok := ctx.Value(clientKey{}).(*client)
	if !ok || in.cfg.Observe == nil {
		return
	}
	in.cfg.Observe(&accesslog.Record{
		Start: time.Now(), Client: c.address, Forwarded: c.address, Connection: c.number, Scheme: scheme,
		Status: status, Flags: accesslog.FlagDownstreamProtocol,
	})
}

// serverLog receives what net/http logs about HTTP/2: invalid requests, and panics.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Write(p []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.HasPrefix(p, []byte("http: panic")) {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, "http server", "says", strings.TrimSpace(string(p)))
	return len(p), nil
}

// drain ends the servers so that clients notice as little as possible. Shutdown alone closes idle connections while a
// request may be on its way; "Connection: close" on earlier responses avoids that.
func (in *Ingress) drain(servers []*front.Server, listeners []net.Listener, end context.CancelCauseFunc) {
	in.life.draining.Store(true)
	for _, ln := range listeners {
		ln.Close() // of no use whether it fails
	}
	limit, cancel := context.WithTimeout(context.Background(), in.cfg.Drain)
	defer cancel()
	soft, cancelSoft := context.WithTimeout(limit, in.cfg.SoftDrain)
	defer cancelSoft()
	if d := in.doors.Load(); d != nil {
		// What the doors have accepted must still be served.
		select {
		case <-d.shut:
		case <-soft.Done():
		}
	}
	in.own.Close() // returns no error
	in.life.wait(soft)

	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			if s.Shutdown(limit) != nil {
				in.cfg.Log.Warn("drain took too long; what is left is cut", "limit", in.cfg.Drain, "left", in.life.n.Load())
			}
		})
	}
	wg.Wait()
	in.life.wait(limit) // for tunnels, which Shutdown does not wait for
	end(errCut)
	// Requests whose response has not begun still get one.
	last, cancelLast := context.WithTimeout(context.Background(), lastWords)
	defer cancelLast()
	in.life.wait(last)
	for _, s := range servers {
		s.Close()
	}
	in.life.wait(context.Background())
}

// lastWords is how long requests that were cut have to send their answer.
const lastWords = 500 * time.Millisecond
