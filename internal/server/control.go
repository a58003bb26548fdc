package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"penstock/internal/arm"
	"penstock/internal/link"
	"penstock/internal/logs"
	"penstock/internal/oci"
	"penstock/internal/pki"
	"penstock/internal/reconcile"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/local"
	"penstock/internal/store"
)

// ControlOptions is what the control role runs with.
type ControlOptions struct {
	Data, State             string // folders: what must be kept, and what a restart of the machine may lose
	Instance                string // names this server among others on the machine
	Version                 string // of this program
	ARM, Link               net.Listener
	Inside                  Inside
	TCPHost                 string // on which external ports of TCP apps are opened
	Domain                  string
	PublicHTTP, PublicHTTPS int
	Runtime                 string // "containerd" or "fake"
	EngineDir               string // folder of the shim and runc
	Registries              Registries
	Images                  oci.Policy // which images go by themselves
	UnpackedLimit           int64      // bytes that an image may weigh unpacked
	MemoryReserve           int64      // bytes that replicas are not promised
	DiskReserve             int64      // bytes of the data folder's disk that are kept free for the replicas that run
	Overcommit              float64
	Storages                map[string]string // folders by "environment/storage", in lower case
	Log                     *slog.Logger
	Ready                   func()
	// Stop ends the whole server; the shutdown call uses it.
	Stop func()
}

// Inside is where the ingress and the resolver listen for replicas: ports of an address that control gives the machine.
type Inside struct {
	Host                         netip.Addr
	HTTP, HTTPS, Names, NamesTCP uint16
	TCP                          uint16 // 0 with a supervisor of an older version
}

// RequestsFolder is where ingresses write access records and control reads them.
func RequestsFolder(data string) string { return filepath.Join(data, "logs", "requests") }

// Where apps land when nobody says otherwise.
const (
	defaultSubscription = "00000000-0000-0000-0000-000000000000"
	defaultGroup        = "default"
	defaultEnvironment  = "default"
	location            = "local"
)

// RunControl owns everything but the requests' way: API, resources, engine, logs. It runs until ctx ends; containers
// run on.
func RunControl(ctx context.Context, o ControlOptions) (err error) {
	authority, err := pki.LoadOrCreate(filepath.Join(o.Data, "pki"))
	if err != nil {
		return err
	}
	token, err := pki.TokenFile(filepath.Join(o.Data, "token"))
	if err != nil {
		return err
	}
	documents, err := store.Open(ctx, filepath.Join(o.Data, "penstock.db"))
	if errors.Is(err, store.ErrDamaged) {
		return fmt.Errorf("%w\ncontainers and routes are left as they are; restore the file from a backup, or move it away "+
			"to begin with an empty one", err)
	}
	if err != nil {
		return err
	}
	defer documents.Close()
	box, err := openBox(o.Data)
	if err != nil {
		return err
	}
	console, err := logs.OpenConsole(filepath.Join(o.Data, "logs", "console"), logs.Limits{}, o.Log)
	if err != nil {
		return err
	}
	defer console.Close()
	system, err := logs.OpenSystem(filepath.Join(o.Data, "logs", "system"), logs.Limits{}, o.Log)
	if err != nil {
		return err
	}
	defer system.Close()

	machine, err := openMachine(ctx, o, consoleSink{console}, documents, box)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, machine.close()) }()
	takeImages(ctx, o, machine)
	room, err := capacity(o)
	if err != nil {
		return err
	}
	emit := func(e resource.Event) {
		system.Append(e)
		o.Log.Log(ctx, eventLevel(e), "event", "app", e.App.Base(), "revision", e.Revision, "replica", e.Replica, "reason", e.Reason, "message", e.Message)
	}
	hub := link.NewHub(rand.Text(), o.Log)
	engine := local.New(local.Config{
		Driver:   machine.driver,
		Scheme:   o.Runtime,
		Emit:     emit,
		Log:      o.Log,
		Capacity: room,
		Secrets:  secrets{documents, box}.values,
		Storage:  storages{documents, filepath.Join(o.Data, "storages"), o.Storages}.folder,
		Fetch:    machine.fetch(documents),
		Answered: hub.Answered,
	})
	advisor := newAdvisor(machine.images, emit, o.Log)
	reconciler := reconcile.New(reconcile.Config{
		Store:       documents,
		Runtime:     engine,
		Images:      machine,
		Routes:      hub,
		Certificate: certificates(authority),
		Key: func(c resource.Certificate) ([]byte, error) {
			key, err := box.Open(c.Purpose(), c.Sealed)
			return []byte(key), err
		},
		Addresses: machine.addresses,
		Release:   machine.release,
		Expose:    machine.expose,
		Domain:    o.Domain,
		Emit:      emit,
		Created:   advisor.created,
		Forget:    func(app resource.ID) error { return errors.Join(console.Forget(app), system.Forget(app)) },
		Log:       o.Log,
	})
	if err := firstEnvironment(ctx, documents, o.Domain); err != nil {
		return err
	}
	if err := releaseAddresses(ctx, documents, machine); err != nil {
		return err
	}

	api := arm.New(arm.Config{
		Store:     documents,
		Runtime:   engine,
		Images:    machine,
		Console:   console,
		System:    system,
		Requests:  RequestsFolder(o.Data),
		Secrets:   box,
		Reconcile: reconciler.Touch,
		Resolver:  net.DefaultResolver,
		OwnPorts:  ownPorts(o),
		Cores:     runtime.NumCPU(),
		Token:     token,
		Log:       o.Log,
	})
	halt := make(chan chan error)
	a := &admin{options: o, documents: documents, machine: machine, hub: hub, meter: meter{runtime: engine}, engine: engine, log: o.Log, shutdown: func(ctx context.Context, replicas bool) error {
		if replicas {
			done := make(chan error, 1)
			select {
			case halt <- done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := <-done; err != nil {
				return err
			}
		}
		o.Stop()
		return nil
	}}
	mux := http.NewServeMux()
	mux.Handle("/v2/", arm.Authenticate(token, machine.registry))
	mux.Handle("/penstock/v1/", arm.Authenticate(token, a.handler()))
	mux.Handle("/", api)
	certificate, err := armCertificate(authority, o)
	if err != nil {
		return err
	}
	front := &http.Server{
		Handler:           mux,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}

	group, ctx := errgroup.WithContext(ctx)
	reconciling, pause := context.WithCancel(ctx)
	paused := make(chan struct{})
	group.Go(func() error { return engine.Run(ctx) })
	group.Go(func() error { advisor.run(ctx); return nil })
	if machine.collector != nil {
		group.Go(func() error { return machine.collector.Run(ctx) })
	}
	group.Go(func() error { return hub.Serve(ctx, o.Link) })
	group.Go(func() error { return tellPorts(ctx, hub, documents, emit) })
	group.Go(func() error {
		defer close(paused)
		return reconciler.Run(reconciling, o.Ready)
	})
	group.Go(func() error {
		for {
			select {
			case done := <-halt:
				pause() // or what is stopped would be started again
				<-paused
				strays, err := stopReplicas(ctx, engine)
				if err == nil && !strays {
					err = machine.clear(ctx)
				}
				done <- err
			case <-ctx.Done():
				pause()
				return nil
			}
		}
	})
	group.Go(func() error {
		if err := front.ServeTLS(o.ARM, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve api: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		drain, done := context.WithTimeout(context.WithoutCancel(ctx), apiDrain)
		defer done()
		if err := front.Shutdown(drain); err != nil {
			return front.Close() // logs are followed for hours
		}
		return nil
	})
	return group.Wait()
}

// ownPorts are those that no app can have.
func ownPorts(o ControlOptions) map[int]string {
	own := map[int]string{o.PublicHTTP: "--http", o.PublicHTTPS: "--https"}
	if a, ok := o.ARM.Addr().(*net.TCPAddr); ok {
		own[a.Port] = "--arm"
	}
	return own
}

// apiDrain is how long calls may take to end when the server stops.
const apiDrain = 2 * time.Second

// stopReplicas ends all replicas that this server knows the revision of, and returns when they have gone. The others are
// strays: someone may need them.
func stopReplicas(ctx context.Context, engine runtimes.Runtime) (strays bool, err error) {
	ctx, done := context.WithCancel(ctx)
	defer done()
	changes := engine.Watch(ctx)
	for {
		replicas, err := engine.Replicas(ctx)
		if err != nil {
			return false, fmt.Errorf("stop replicas: %w", err)
		}
		left := 0
		for _, replica := range replicas {
			if replica.Revision.IsZero() {
				continue
			}
			left++
			if err := engine.Remove(ctx, replica.Revision); err != nil {
				return false, fmt.Errorf("stop replicas: %w", err)
			}
		}
		if left == 0 {
			return len(replicas) > 0, nil
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// firstEnvironment makes the environment that apps land in when their manifest names none. Its domain is the server's.
func firstEnvironment(ctx context.Context, documents *store.Store, domain string) error {
	id := resource.EnvironmentID(defaultSubscription, defaultGroup, defaultEnvironment)
	_, err := documents.Environments().Put(ctx, id, func(e *resource.Environment, exists bool) error {
		if !exists {
			now := time.Now().UTC()
			e.Meta = resource.Meta{ID: id, Location: location, Created: now, Generation: 1}
			e.Provisioning = resource.Succeeded
		}
		e.DefaultDomain = domain
		return nil
	})
	return err
}

// releaseAddresses gives back those of environments that were deleted while a replica was in them.
func releaseAddresses(ctx context.Context, documents *store.Store, m *machine) error {
	environments, err := documents.Environments().List(ctx, store.Scope{})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, e := range environments {
		known[e.ID.Key()] = true
	}
	m.releaseOthers(known)
	return nil
}

// certificates makes what the ingress shows for host names.
func certificates(authority *pki.Authority) func(names []string) (link.Certificate, error) {
	return func(names []string) (link.Certificate, error) {
		cert, key, err := authority.Issue(names)
		return link.Certificate{Names: names, Cert: cert, Key: key}, err
	}
}

func armCertificate(authority *pki.Authority, o ControlOptions) (tls.Certificate, error) {
	names := []string{"localhost", "127.0.0.1", "::1", o.Domain}
	if host, _, err := net.SplitHostPort(o.ARM.Addr().String()); err == nil && net.ParseIP(host) != nil && !net.ParseIP(host).IsUnspecified() {
		names = append(names, host)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	cert, key, err := authority.Issue(names)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}
