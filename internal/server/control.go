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
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"penstock/internal/admin"
	"penstock/internal/admin/wire"
	"penstock/internal/appimages"
	"penstock/internal/appsecrets"
	"penstock/internal/arm"
	"penstock/internal/autoscale"
	"penstock/internal/backup"
	"penstock/internal/decisions"
	"penstock/internal/link"
	"penstock/internal/logs"
	"penstock/internal/memoryadvice"
	"penstock/internal/oci"
	"penstock/internal/pki"
	"penstock/internal/reconcile"
	"penstock/internal/recycle"
	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/seal"
	"penstock/internal/storages"
	"penstock/internal/store"
)

// ControlOptions configures the control role.
type ControlOptions struct {
	Instance string // identifies this server on the machine
	Version  string // of this program
	// Data is the folder for what must be kept. State is the folder for what may be lost when the machine restarts.
	Data, State string
	// ARM and Link are the listeners for the API and for the ingresses.
	ARM, Link net.Listener
	Public    Public
	Inside    Inside
	Engine    EngineOptions
	Images    ImageOptions
	Capacity  CapacityOptions
	// StayUp is how long the containers of a new revision that have no probe must run before it counts as ready.
	StayUp time.Duration
	// Storages are folders by "environment/storage", in lower case.
	Storages map[string]string
	Log      *slog.Logger
	// Ready is called when the role serves.
	Ready func()
	// Stop ends the whole server; the shutdown call uses it.
	Stop func()
}

// Public is how clients outside reach apps.
type Public struct {
	Domain      string
	HTTP, HTTPS int
	HTTPHost    string // that the http listener is on; "" means all addresses
	TCPHost     string // host on which external ports of TCP apps are opened
}

// EngineOptions configures what runs containers.
type EngineOptions struct {
	Runtime string // "containerd" or "fake"
	Dir     string // folder of the shim and runc
	// LinkLocal lets replicas reach link-local addresses beyond the machine.
	LinkLocal bool
}

// ImageOptions configures where images come from and how long they are kept.
type ImageOptions struct {
	Registries    appimages.Registries
	Policy        oci.Policy // which images are removed automatically
	UnpackedLimit int64      // limit for the unpacked size of an image
}

// CapacityOptions configures how much of the machine replicas can use.
type CapacityOptions struct {
	MemoryReserve int64   // bytes that replicas cannot reserve
	DiskReserve   int64   // bytes that must be free on the data folder's disk before another replica is created
	StandbyBudget int     // maximum number of revisions without replicas that have a standby
	Overcommit    float64 // share of the remaining memory that replicas can reserve; above 1 only on test machines
}

// Inside says where the ingress and the resolver listen for replicas: ports of an address that control assigns to the
// machine.
type Inside struct {
	Host                         netip.Addr
	HTTP, HTTPS, Names, NamesTCP uint16
	TCP                          uint16 // 0 if the supervisor is an older version
}

// RequestsFolder returns the folder where ingresses write access records and control reads them.
func RequestsFolder(data string) string { return filepath.Join(data, "logs", "requests") }

// The defaults for apps that name no place.
const (
	defaultSubscription = "00000000-0000-0000-0000-000000000000"
	defaultGroup        = "default"
	defaultEnvironment  = "default"
	location            = "local"
)

// RunControl runs the control role until ctx ends: API, resources, engine and logs, which is everything except serving
// requests. Containers continue to run afterwards. The parts are opened in this order, each using earlier ones. Then
// all of them run, and they are closed in reverse order.
func RunControl(ctx context.Context, o ControlOptions) (err error) {
	c := &control{ControlOptions: o}
	defer func() { err = errors.Join(err, c.close()) }()
	for _, open := range []func(context.Context) error{
		c.openKeys,       // certificate authority, API token
		c.openStore,      // documents, and the secrets in them
		c.openLogs,       // output of containers, and events
		c.openMachine,    // container driver, network, images
		c.openLink,       // sends tables to the ingresses, receives their reports
		c.openEngine,     // keeps replicas running on this machine
		c.openScaler,     // decides how many replicas there should be
		c.openRecycler,   // observes the memory of replicas
		c.openReconciler, // creates the replicas and routes that the documents describe
		c.openAPI,        // ARM, /penstock/v1 and the image registry
	} {
		if err := open(ctx); err != nil {
			return err
		}
	}
	return c.run(ctx)
}

// control is the control role. The open methods set its fields, in their order.
type control struct {
	ControlOptions
	parts

	authority *pki.Authority
	token     string

	documents *store.Store
	box       *seal.Box
	secrets   *appsecrets.Reader

	console *logs.Console
	system  *logs.System

	machine *machine
	hub     *link.Hub
	engine  *local.Engine
	created func(resource.Revision) // called with each new revision

	decisions  *decisions.Log
	scaler     *autoscale.Scaler
	memory     *recycle.Watcher
	reconciler *reconcile.Reconciler
	pause      context.CancelFunc // stops reconciling
	paused     chan struct{}      // closed when reconciling has stopped
	halts      chan chan error    // requests to stop all replicas
}

// parts are the functions that run and close the parts of a role.
type parts struct {
	runs   []func(ctx context.Context) error
	closes []func() error
}

func (p *parts) onRun(run func(ctx context.Context) error) { p.runs = append(p.runs, run) }
func (p *parts) onClose(closes func() error)               { p.closes = append(p.closes, closes) }

// run runs all parts until ctx ends or one of them fails. It returns when all have ended.
func (p *parts) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range p.runs {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// close closes all parts, the last opened first.
func (p *parts) close() error {
	var errs []error
	for _, closes := range slices.Backward(p.closes) {
		errs = append(errs, closes())
	}
	return errors.Join(errs...)
}

func (c *control) openKeys(context.Context) (err error) {
	if c.authority, err = pki.LoadOrCreate(filepath.Join(c.Data, "pki")); err != nil {
		return err
	}
	c.token, err = pki.TokenFile(filepath.Join(c.Data, "token"))
	return err
}

func (c *control) openStore(ctx context.Context) (err error) {
	c.documents, err = store.Open(ctx, filepath.Join(c.Data, "penstock.db"))
	if errors.Is(err, store.ErrDamaged) {
		return fmt.Errorf("%w\ncontainers and routes are left as they are; restore the file from a backup, or move it away "+
			"to begin with an empty one", err)
	}
	if err != nil {
		return err
	}
	c.onClose(c.documents.Close)
	// The key is in a file beside the database, so that a copy of the database alone reveals no secret.
	key, err := pki.KeyFile(filepath.Join(c.Data, "secrets.key"))
	if err != nil {
		return err
	}
	if c.box, err = seal.New(key); err != nil {
		return err
	}
	c.secrets = appsecrets.New(c.documents, c.box)
	return nil
}

func (c *control) openLogs(context.Context) (err error) {
	if c.console, err = logs.OpenConsole(filepath.Join(c.Data, "logs", "console"), logs.Limits{}, c.Log); err != nil {
		return err
	}
	c.onClose(c.console.Close)
	if c.system, err = logs.OpenSystem(filepath.Join(c.Data, "logs", "system"), logs.Limits{}, c.Log); err != nil {
		return err
	}
	c.onClose(c.system.Close)
	return nil
}

// emit stores an event and writes it to the server's own log.
func (c *control) emit(e resource.Event) {
	c.system.Append(e)
	c.Log.Log(context.Background(), eventLevel(e), "event", "app", e.App.Base(), "revision", e.Revision, "replica", e.Replica, "reason", e.Reason, "message", e.Message)
}

func (c *control) openMachine(ctx context.Context) (err error) {
	if c.machine, err = openMachine(ctx, c.ControlOptions, consoleSink{c.console}, c.documents, c.secrets); err != nil {
		return err
	}
	c.onClose(c.machine.close)
	c.created = func(resource.Revision) {}
	if images := c.machine.images; images != nil {
		appimages.TakeRestored(ctx, filepath.Join(c.Data, backup.ImportDir), images.registry, c.Log)
		advisor := memoryadvice.New(images, c.emit, c.Log)
		c.created = advisor.Created
		c.onRun(func(ctx context.Context) error { advisor.Run(ctx); return nil })
		c.onRun(images.collector.Run)
	}
	return nil
}

func (c *control) openLink(context.Context) error {
	c.hub = link.NewHub(rand.Text(), c.Log)
	c.onRun(func(ctx context.Context) error { return c.hub.Serve(ctx, c.Link) })
	return nil
}

func (c *control) openEngine(context.Context) error {
	room, err := capacity(c.ControlOptions)
	if err != nil {
		return err
	}
	config := local.Config{
		Driver:   c.machine.driver,
		Scheme:   c.Engine.Runtime,
		Emit:     c.emit,
		Log:      c.Log,
		Capacity: room,
		Secrets:  c.secrets.Values,
		Storage:  storages.New(c.documents, filepath.Join(c.Data, "storages"), c.Storages).Folder,
		Answered: c.hub.Answered,
		Replicas: filepath.Join(c.Data, "replicas"),
		Standbys: c.Capacity.StandbyBudget,
	}
	if c.machine.images != nil {
		config.Fetch = c.machine.images.apps.Fetch
	}
	c.engine = local.New(config)
	c.onRun(c.engine.Run)
	return nil
}

func (c *control) openScaler(context.Context) (err error) {
	if c.decisions, err = decisions.Open(filepath.Join(c.Data, "logs", "decisions"), c.Log); err != nil {
		return err
	}
	c.onClose(c.decisions.Close)
	c.onRun(c.decisions.Run)
	c.scaler = autoscale.New(autoscale.Config{
		Demand:  c.hub.Demand,
		Usage:   c.engine.Usage,
		Touch:   func(app resource.ID) { c.reconciler.Touch(app) }, // the reconciler is opened next, and nothing runs before
		Emit:    c.emit,
		Record:  c.decisions.Add,
		Secrets: c.secrets.Values,
		Dial:    scalerDialer{c.documents, c.Inside, c.machine}.dial,
		Roots:   scalerRoots(c.authority.CertPEM()),
		Learned: filepath.Join(c.Data, "learned.json"),
		Log:     c.Log,
	})
	c.onRun(c.scaler.Run)
	return nil
}

func (c *control) openRecycler(context.Context) error {
	c.memory = recycle.New(recycle.Config{
		Usage: c.engine.Usage,
		Touch: func(app resource.ID) { c.reconciler.Touch(app) }, // as for the scaler
		Emit:  c.emit,
		Log:   c.Log,
	})
	c.onRun(c.memory.Run)
	return nil
}

func (c *control) openReconciler(ctx context.Context) error {
	c.reconciler = reconcile.New(reconcile.Config{
		Scale:       c.scaler,
		Recycle:     c.memory,
		Store:       c.documents,
		Runtime:     c.engine,
		Images:      c.machine.digests,
		Routes:      c.hub,
		Certificate: certificates(c.authority),
		Key: func(cert resource.Certificate) ([]byte, error) {
			key, err := c.box.Open(cert.Purpose(), cert.Sealed)
			return []byte(key), err
		},
		Addresses: c.machine.addresses,
		Release:   c.machine.release,
		Expose:    c.machine.expose,
		Domain:    c.Public.Domain,
		Limits:    reconcile.Limits{StayUp: c.StayUp},
		Emit:      c.emit,
		Created:   c.created,
		Forget: func(app resource.ID) error {
			return errors.Join(c.console.Forget(app), c.system.Forget(app), c.decisions.Forget(app))
		},
		Log: c.Log,
	})
	if err := firstEnvironment(ctx, c.documents, c.Public.Domain); err != nil {
		return err
	}
	if err := c.releaseAddresses(ctx); err != nil {
		return err
	}
	reconciling, pause := context.WithCancel(ctx)
	c.pause, c.paused, c.halts = pause, make(chan struct{}), make(chan chan error)
	c.onClose(func() error { pause(); return nil })
	c.onRun(func(ctx context.Context) error {
		defer close(c.paused)
		defer context.AfterFunc(ctx, pause)()
		return c.reconciler.Run(reconciling, c.Ready)
	})
	c.onRun(func(ctx context.Context) error { c.reconciler.ReportPorts(ctx, c.hub); return nil })
	c.onRun(c.keepNetwork)
	c.onRun(func(ctx context.Context) error { c.reconciler.ReportLoops(ctx, c.hub); return nil })
	c.onRun(c.haltReplicas)
	return nil
}

// keepNetwork keeps the network of replicas in order, and tells the apps that were concerned.
func (c *control) keepNetwork(ctx context.Context) error {
	if c.machine.keep == nil {
		return nil
	}
	c.machine.keep(ctx, func(environment, what string) {
		c.Log.Warn("a part of the network of replicas was gone; it has been put back", "what", what, "environment", environment)
		apps, err := c.documents.Apps().List(ctx, store.Scope{})
		if err != nil {
			c.Log.Error("apps are not told that their network was put back", "err", err)
		}
		for _, a := range apps {
			if environment != "" && a.Environment.Key() != environment {
				continue
			}
			c.emit(resource.Event{
				At: time.Now().UTC(), Warning: true, App: a.ID, Reason: "NetworkRepaired", Source: "Engine",
				Message: fmt.Sprintf("A part of the network of replicas was gone and has been put back: %s. Something else on this machine has changed its network.", what),
			})
		}
	})
	return nil
}

// haltReplicas stops all replicas on each request, until ctx ends.
func (c *control) haltReplicas(ctx context.Context) error {
	for {
		select {
		case done := <-c.halts:
			c.pause() // otherwise stopped replicas would be started again
			<-c.paused
			strays, err := c.engine.RemoveAll(ctx)
			if err == nil && !strays {
				err = c.machine.clear(ctx)
			}
			done <- err
		case <-ctx.Done():
			return nil
		}
	}
}

// shutdown stops the server. If replicas is true it stops the replicas first.
func (c *control) shutdown(ctx context.Context, replicas bool) error {
	if replicas {
		done := make(chan error, 1)
		select {
		case c.halts <- done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := <-done; err != nil {
			return err
		}
	}
	c.Stop()
	return nil
}

func (c *control) openAPI(ctx context.Context) error {
	api := arm.New(arm.Config{
		Store:     c.documents,
		Runtime:   c.engine,
		Images:    c.machine.digests,
		Console:   c.console,
		System:    c.system,
		Decisions: c.decisions,
		Requests:  RequestsFolder(c.Data),
		Secrets:   c.box,
		Reconcile: c.reconciler.Touch,
		Resolver:  net.DefaultResolver,
		OwnPorts:  ownPorts(c.ControlOptions),
		Cores:     runtime.NumCPU(),
		Token:     c.token,
		Log:       c.Log,
	})
	own := admin.Config{
		Status: wire.Status{
			Instance: c.Instance, Runtime: c.Engine.Runtime, Domain: c.Public.Domain,
			HTTPHost: c.Public.HTTPHost, HTTPPort: c.Public.HTTP, HTTPSPort: c.Public.HTTPS, TCPHost: c.Public.TCPHost,
		},
		Traffic:  c.hub,
		Runtime:  c.engine,
		Revision: c.documents.Revisions().Get,
		Revisions: func(ctx context.Context, app resource.ID) ([]resource.Revision, error) {
			return c.documents.Revisions().List(ctx, store.Scope{Parent: app})
		},
		Scale:     c.scaler,
		Memory:    c.memory.Explain,
		Decisions: c.decisions,
		Backup:    backup.Source{Info: backup.Info{Version: c.Version, Instance: c.Instance}, Data: c.Data, Database: c.documents.Backup},
		Shutdown:  c.shutdown,
		Log:       c.Log,
	}
	registry := http.NotFoundHandler()
	if i := c.machine.images; i != nil {
		registry = i.registry
		own.Images = &admin.Images{Store: i.Images, Puller: i.puller, Pruner: i.collector, Loader: i.registry, Repairer: i.apps}
	}
	mux := http.NewServeMux()
	mux.Handle("/v2/", arm.Authenticate(c.token, registry))
	mux.Handle(wire.Prefix, arm.Authenticate(c.token, admin.New(own)))
	mux.Handle("/", api)
	certificate, err := armCertificate(c.authority, c.ControlOptions)
	if err != nil {
		return err
	}
	front := &http.Server{
		Handler:           mux,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	c.onRun(func(context.Context) error {
		if err := front.ServeTLS(c.ARM, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve api: %w", err)
		}
		return nil
	})
	c.onRun(func(ctx context.Context) error {
		<-ctx.Done()
		drain, done := context.WithTimeout(context.WithoutCancel(ctx), apiDrain)
		defer done()
		if err := front.Shutdown(drain); err != nil {
			return front.Close() // clients can follow logs for hours, so do not wait for them
		}
		return nil
	})
	return nil
}

// ownPorts returns the ports that no app can use.
func ownPorts(o ControlOptions) map[int]string {
	own := map[int]string{o.Public.HTTP: "--http", o.Public.HTTPS: "--https"}
	if a, ok := o.ARM.Addr().(*net.TCPAddr); ok {
		own[a.Port] = "--arm"
	}
	return own
}

// apiDrain is how long API calls have to end when the server stops.
const apiDrain = 2 * time.Second

// firstEnvironment creates the environment for apps whose manifest names none. It has the server's domain.
func firstEnvironment(ctx context.Context, documents *store.Store, domain string) error {
	id := resource.EnvironmentID(defaultSubscription, defaultGroup, defaultEnvironment)
	_, _, err := documents.Environments().Create(ctx, resource.Environment{
		Meta:              resource.Meta{ID: id, Location: location, Created: time.Now().UTC(), Generation: 1},
		EnvironmentStatus: resource.EnvironmentStatus{Progress: resource.Progress{Observed: 1}},
	}, nil)
	if err != nil {
		return err
	}
	_, err = documents.Environments().Observe(ctx, id, func(_ resource.Environment, status *resource.EnvironmentStatus) error {
		status.DefaultDomain = domain
		return nil
	})
	return err
}

// releaseAddresses releases the addresses of environments that were deleted while they still had a replica.
func (c *control) releaseAddresses(ctx context.Context) error {
	environments, err := c.documents.Environments().List(ctx, store.Scope{})
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, e := range environments {
		keep[e.ID.Key()] = true
	}
	if err := c.machine.releaseOthers(keep); err != nil {
		c.Log.Warn("deleted environments keep their addresses; the next start tries again", "err", err)
	}
	return nil
}

// certificates returns a function that issues the certificates that the ingress presents.
func certificates(authority *pki.Authority) func(names []string) (link.Certificate, time.Time, error) {
	return func(names []string) (link.Certificate, time.Time, error) {
		cert, key, renew, err := authority.Issue(names)
		return link.Certificate{Names: names, Cert: cert, Key: key}, renew, err
	}
}

func armCertificate(authority *pki.Authority, o ControlOptions) (tls.Certificate, error) {
	names := []string{"localhost", "127.0.0.1", "::1", o.Public.Domain}
	if host, _, err := net.SplitHostPort(o.ARM.Addr().String()); err == nil && net.ParseIP(host) != nil && !net.ParseIP(host).IsUnspecified() {
		names = append(names, host)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	cert, key, _, err := authority.Issue(names)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// isHostOf returns a function that says whether a registry's host, as it stands in image names, is a listener of this machine.
func isHostOf(ln net.Addr) func(host string) bool {
	own, ok := ln.(*net.TCPAddr)
	if !ok {
		return nil
	}
	return func(host string) bool {
		name, port, err := net.SplitHostPort(host)
		if err != nil || port != strconv.Itoa(own.Port) {
			return false
		}
		ip := net.ParseIP(name)
		return name == "localhost" || ip != nil && (ip.IsLoopback() || ip.Equal(own.IP))
	}
}
