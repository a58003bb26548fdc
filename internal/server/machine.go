package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"penstock/internal/logs"
	"penstock/internal/network"
	"penstock/internal/oci"
	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
	"penstock/internal/runtimes/local/containerd"
	"penstock/internal/seal"
	"penstock/internal/store"
)

// machine is what runs containers here, and where their images are.
type machine struct {
	driver   local.Driver
	images   *oci.Images  // nil with the fake runtime
	registry http.Handler // takes pushes
	// puller and collector bring and remove images; nil with the fake runtime.
	puller    *oci.Puller
	collector *oci.Collector
	box       *seal.Box
	// importImages takes those of an OCI layout in a folder; nil with the fake runtime.
	importImages func(ctx context.Context, dir string) (images int, err error)
	// load takes those of one that comes as an archive.
	load func(ctx context.Context, archive io.Reader, as string) (names []string, err error)
	// addresses are where replicas of an environment are, and their gateway.
	addresses func(environment resource.ID) (netip.Prefix, netip.Addr)
	// release gives them back.
	release func(environment resource.ID) error
	// expose lets replicas reach these ports of their gateways; nil with the fake runtime.
	expose func(ports []netip.AddrPort) error
	// releaseOthers gives back those of environments whose keys are not among these.
	releaseOthers func(known map[string]bool)
	close         func() error
	// clear undoes what close leaves for the next start: bridges and rules. Only when no replica is left.
	clear func(ctx context.Context) error
}

// openMachine opens the runtime that was asked for.
func openMachine(ctx context.Context, o ControlOptions, console local.Console, documents *store.Store, box *seal.Box) (*machine, error) {
	switch o.Runtime {
	case "fake":
		driver := fake.New(fake.Options{Console: console})
		none := http.NotFoundHandler()
		return &machine{
			driver:    driver,
			registry:  none,
			close:     func() error { driver.Close(); return nil },
			clear:     func(context.Context) error { return nil },
			addresses: func(resource.ID) (netip.Prefix, netip.Addr) { return netip.Prefix{}, netip.Addr{} },
			release:   func(resource.ID) error { return nil },

			releaseOthers: func(map[string]bool) {},
		}, nil
	case "containerd":
		return openContainerd(ctx, o, console, documents, box)
	default:
		return nil, fmt.Errorf("runtime: want containerd or fake, got %q", o.Runtime)
	}
}

func openContainerd(ctx context.Context, o ControlOptions, console local.Console, documents *store.Store, box *seal.Box) (*machine, error) {
	client, err := o.Registries.client(o)
	if err != nil {
		return nil, err
	}
	net, err := network.Open(ctx, network.Config{
		Dir:      filepath.Join(o.Data, "network"),
		State:    filepath.Join(o.State, "net"),
		Instance: o.Instance,
		Host:     o.Inside.Host,
		Services: []network.Service{
			{Protocol: "tcp", Port: 80, Local: o.Inside.HTTP},
			{Protocol: "tcp", Port: 443, Local: o.Inside.HTTPS},
			{Protocol: "udp", Port: 53, Local: o.Inside.Names},
			{Protocol: "tcp", Port: 53, Local: o.Inside.NamesTCP},
		},
		Exposed: o.Inside.TCP,
		Log:     o.Log,
	})
	if err != nil {
		return nil, err
	}
	driver, err := containerd.Open(ctx, containerd.Config{
		Root:          filepath.Join(o.Data, "containerd"),
		State:         filepath.Join(o.State, "c"),
		Shim:          filepath.Join(o.EngineDir, "containerd-shim-runc-v2"),
		Runc:          filepath.Join(o.EngineDir, "runc"),
		UnpackedLimit: o.UnpackedLimit,
		CgroupParent:  "/penstock-" + o.Instance + "/replicas",
		ShimCgroup:    "/penstock-" + o.Instance + "/shims",
		Network:       net,
		Console:       console,
		Log:           o.Log,
	})
	if err != nil {
		return nil, err
	}
	stores := driver.Stores()
	stores.Needed = neededImages(documents)
	collector := oci.NewCollector(stores, o.Images, driver.PruneViews, o.Log)
	stores.Freed = collector.Poke
	registry := oci.NewRegistry(stores, o.Log)
	return &machine{
		driver:       driver,
		images:       oci.NewImages(stores),
		registry:     registry,
		puller:       oci.NewPuller(stores, client, freeOn(o.Data), o.Log),
		collector:    collector,
		box:          box,
		importImages: registry.Import,
		load:         registry.Load,
		close: func() error {
			registry.Close()
			client.Close()
			return driver.Close()
		},
		clear:   net.Destroy,
		expose:  net.Expose,
		release: func(environment resource.ID) error { return net.Release(environment.Key()) },
		releaseOthers: func(known map[string]bool) {
			for _, key := range net.Environments() {
				if known[key] {
					continue
				}
				if err := net.Release(key); err != nil {
					o.Log.Warn("an environment that is no more keeps its addresses", "environment", key, "err", err)
				}
			}
		},
		addresses: func(environment resource.ID) (netip.Prefix, netip.Addr) {
			addresses, gateway, err := net.Environment(environment.Key())
			if err != nil {
				o.Log.Warn("an environment has no addresses; its apps cannot start", "environment", environment.Base(), "err", err)
			}
			return addresses, gateway
		},
	}, nil
}

// missing is an error that says by itself that something is not there.
type missing struct{ error }

func (missing) Is(target error) bool { return target == resource.ErrNotFound }

// capacity is what this machine can promise to replicas.
func capacity(o ControlOptions) (local.Capacity, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return local.Capacity{}, fmt.Errorf("memory of this machine: %w", err)
	}
	return local.Capacity{
		Memory:     int64(info.Totalram) * int64(info.Unit),
		Reserve:    o.MemoryReserve,
		MilliCPU:   int64(runtime.NumCPU()) * 1000,
		Overcommit: o.Overcommit,

		DiskFree:    func() (int64, error) { return diskFree(o.Data) },
		DiskReserve: o.DiskReserve,
	}, nil
}

// diskFree is how many bytes of the disk that a folder is on can still be written.
func diskFree(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// consoleSink files what containers print under their app.
type consoleSink struct{ console *logs.Console }

func (s consoleSink) Open(o local.Output) io.WriteCloser {
	return s.console.Writer(logs.Source{
		App:       o.Revision.Parent(),
		Revision:  o.Revision.Base(),
		Replica:   o.Replica,
		Container: o.Container,
		Stream:    o.Stream,
	})
}

// eventLevel is what an operator sees of an event in the server's own log.
func eventLevel(e resource.Event) slog.Level {
	if e.Warning {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}
