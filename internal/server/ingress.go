package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"penstock/internal/ingress"
	"penstock/internal/link"
)

// IngressOptions is what the ingress role runs with.
type IngressOptions struct {
	State         string // folder for what a restart of the machine may lose
	HTTP, HTTPS   net.Listener
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
	if o.Log.Enabled(ctx, slog.LevelDebug) {
		config.Observe = func(r *ingress.Record) { o.Log.Debug("request", "record", *r) }
	}
	in := ingress.New(config)
	path := filepath.Join(o.State, "routes.json")
	if err := in.LoadTable(path); err != nil {
		o.Log.Warn("the last routes cannot be read; waiting for control's", "err", err)
	}

	// While it drains it still says which replicas it uses, so that control does not end them.
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx))
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
			if err := in.SaveTable(path); err != nil {
				o.Log.Warn("routes not kept; an ingress that starts while control is away will not have them", "err", err)
			}
		},
		Report:  in.Report,
		Changed: in.Changed(),
		Log:     o.Log,
	}
	wg.Go(func() { client.Run(linked) })
	o.Ready()
	if err := in.Serve(ctx, o.HTTP, o.HTTPS); err != nil {
		return fmt.Errorf("ingress: %w", err)
	}
	return nil
}
