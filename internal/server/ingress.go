package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"penstock/internal/access"
	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/names"
)

// IngressOptions is what the ingress role runs with.
type IngressOptions struct {
	State         string         // folder for what a restart of the machine may lose
	Requests      string         // folder for access records
	HTTP, HTTPS   []net.Listener // for clients outside, and for replicas
	Names         net.PacketConn // where replicas ask for names
	NamesTCP      net.Listener
	Ports         ingress.Ports // for TCP apps; nil: none can be reached from outside
	InsideTCP     net.Listener  // where replicas' connections to TCP apps are led; nil: nowhere
	ControlSocket string
	PublicHTTPS   int           // port that plain requests are redirected to
	Drain         time.Duration // how long requests may go on after ctx has ended
	Log           *slog.Logger
	Ready         func() // called when requests are taken
}

// RunIngress serves requests until ctx ends, then drains. It works without control for as long as it must: by the last
// table that control sent, to it or to an ingress before it.
func RunIngress(ctx context.Context, o IngressOptions) error {
	config := ingress.Config{HTTPSPort: o.PublicHTTPS, Drain: o.Drain, Log: o.Log}
	records, err := access.NewWriter(o.Requests, access.Limits{}, o.Log)
	if err != nil {
		// Requests matter more than what is kept of them.
		o.Log.Error("requests are served without access records", "err", err)
	} else {
		config.Observe = records.Add
		var writing sync.WaitGroup
		recording, stop := context.WithCancel(context.WithoutCancel(ctx))
		writing.Go(func() { records.Run(recording) })
		defer writing.Wait() // after the last request
		defer stop()
	}
	in := ingress.New(config)
	path := filepath.Join(o.State, "routes.json")
	if err := in.LoadTable(path); err != nil {
		o.Log.Warn("the last routes cannot be read; waiting for control's", "err", err)
	}

	doors := in.Doors(o.Ports, o.InsideTCP)
	// While it drains it still says which replicas it uses, so that control does not end them.
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx))
	resolver := names.New(names.Config{Upstreams: names.FromFile("/etc/resolv.conf"), Log: o.Log})
	if t, ok := in.Table(); ok {
		resolver.Apply(t)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer unlink()
	client := link.Client{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", o.ControlSocket)
		},
		Apply: func(t link.Table) {
			in.Apply(t)
			resolver.Apply(t)
			doors.Follow()
		},
		Report: func() link.Report {
			r := in.Report()
			r.Unopened = doors.Unopened()
			return r
		},
		Traffic: in.Traffic,
		Changed: in.Changed(),
		Log:     o.Log,
	}
	wg.Go(func() { client.Run(linked) })
	wg.Go(func() { in.KeepTable(ctx, path) }) // while it drains, another one does
	o.Ready()
	group, ctx := errgroup.WithContext(ctx)
	resolving, done := context.WithCancel(context.WithoutCancel(ctx))
	var serving sync.WaitGroup
	serving.Add(2)
	group.Go(func() error {
		serving.Wait()
		done() // requests that are in flight may need a name
		return nil
	})
	group.Go(func() error {
		defer serving.Done()
		doors.Serve(ctx)
		return nil
	})
	group.Go(func() error {
		defer serving.Done()
		if err := in.Serve(ctx, o.HTTP, o.HTTPS); err != nil {
			return fmt.Errorf("ingress: %w", err)
		}
		return nil
	})
	group.Go(func() error { return resolver.Serve(resolving, o.Names, o.NamesTCP) })
	return group.Wait()
}
