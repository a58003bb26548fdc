package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resolver"
)

// IngressOptions configures the ingress role.
type IngressOptions struct {
	State         string         // folder for what may be lost when the machine restarts
	Requests      string         // folder for access records
	HTTP, HTTPS   []net.Listener // for clients outside, and for replicas
	Names         net.PacketConn // where replicas send DNS queries
	NamesTCP      net.Listener
	Ports         ingress.Ports // for TCP apps; nil: they cannot be reached from outside
	InsideTCP     net.Listener  // for connections of replicas to TCP apps; nil: none
	ControlSocket string
	PublicHTTPS   int           // port that plain requests are redirected to
	Drain         time.Duration // how long requests can continue after ctx has ended
	Log           *slog.Logger
	Ready         func() // called when requests are accepted
}

// RoutesFile returns the file where an ingress keeps its last table for the next ingress of the same server. It is
// removed before the roles start, because after a restart of the server it may name replicas that are gone.
func RoutesFile(state string) string { return filepath.Join(state, "routes.json") }

// RunIngress serves requests until ctx ends, and then drains. Without control it continues with the last table that
// control sent to it or to an earlier ingress.
func RunIngress(ctx context.Context, o IngressOptions) error {
	config := ingress.Config{HTTPSPort: o.PublicHTTPS, Drain: o.Drain, Descriptors: descriptors(), Log: o.Log}
	records, err := accesslog.NewWriter(o.Requests, accesslog.Limits{}, o.Log)
	if err != nil {
		// Serving requests is more important than recording them.
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

	doors := in.Doors(o.Ports, o.InsideTCP)
	// While draining, the ingress still reports which replicas it uses, so that control does not stop them.
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx))
	names := resolver.New(resolver.Config{Upstreams: resolver.FromFile("/etc/resolv.conf"), Log: o.Log})
	var applying sync.Mutex
	told, away := make(chan struct{}), make(chan struct{})
	isTold, isAway := sync.OnceFunc(func() { close(told) }), sync.OnceFunc(func() { close(away) })
	var wg sync.WaitGroup
	defer wg.Wait()
	defer unlink()
	client := link.Client{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", o.ControlSocket)
			if err != nil {
				isAway()
			}
			return conn, err
		},
		Apply: func(t link.Table) {
			applying.Lock()
			in.Apply(t)
			names.Apply(t)
			applying.Unlock()
			isTold()
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
	group, ctx := errgroup.WithContext(ctx)
	wg.Go(func() { client.Run(linked) })
	path := RoutesFile(o.State)
	if unheard(ctx, path, told, away) {
		applying.Lock()
		if err := in.LoadTable(path); err != nil {
			o.Log.Warn("the last routes cannot be read; waiting for control's", "err", err)
		}
		if t, ok := in.Table(); ok {
			names.Apply(t)
		}
		applying.Unlock()
	}
	wg.Go(func() { in.KeepTable(ctx, path) }) // while this ingress drains, the next one does this
	o.Ready()
	resolving, done := context.WithCancel(context.WithoutCancel(ctx))
	var serving sync.WaitGroup
	serving.Add(2)
	group.Go(func() error {
		serving.Wait()
		done() // requests in flight may still need to resolve a name
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
	group.Go(func() error { return names.Serve(resolving, o.Names, o.NamesTCP) })
	return group.Wait()
}

// tableWithin is how long a new ingress waits for the table of a control that can be reached, before it uses the last one.
const tableWithin = time.Second

// unheard waits for control's first table, and reports whether the kept one in the file is needed instead, because control is away or has
// none yet. The kept one may be a moment older than what the last ingress routed by: replicas that it names may be gone, and other
// replicas may have their addresses.
func unheard(ctx context.Context, file string, told, away <-chan struct{}) bool {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	limit := time.NewTimer(tableWithin)
	defer limit.Stop()
	select {
	case <-told:
		return false
	case <-away:
	case <-limit.C:
	case <-ctx.Done():
	}
	return true
}

// descriptors returns how many files and sockets this process may have open, or 0 if that cannot be read.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return 0
	}
	return int(limit.Cur)
}
