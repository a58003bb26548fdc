package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"penstock/internal/appimages"
	"penstock/internal/appsecrets"
	"penstock/internal/diskspace"
	"penstock/internal/logs"
	"penstock/internal/network"
	"penstock/internal/oci"
	"penstock/internal/reconcile"
	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
	"penstock/internal/runtimes/local/containerd"
	"penstock/internal/store"
)

// machine is what runs containers on this machine, and their images.
type machine struct {
	driver local.Driver
	// digests resolves image references to digests.
	digests reconcile.Images
	// images is nil with the fake runtime, which keeps no images.
	images *imageStore
	// addresses returns the address range and the gateway of an environment's replicas.
	addresses func(environment resource.ID) (netip.Prefix, netip.Addr, error)
	// gateway returns the gateway of an environment and makes sure that the machine has this address. addressRange has the
	// addresses of all replicas. Both are nil with the fake runtime.
	gateway      func(environment resource.ID) (netip.Addr, error)
	addressRange func() netip.Prefix
	// release releases the addresses of an environment.
	release func(environment resource.ID) error
	// expose lets replicas reach these ports of their gateways. It is nil with the fake runtime.
	expose func(ports []netip.AddrPort) error
	// releaseOthers releases the addresses of environments whose keys are not in keep.
	releaseOthers func(keep map[string]bool) error
	// keep puts the network of replicas back in order, whatever is taken away from it, until ctx ends. It is nil with the
	// fake runtime.
	keep  func(ctx context.Context, told func(environment, what string))
	close func() error
	// clear removes the bridges and rules that close leaves for the next start. It is called when no replica is left.
	clear func(ctx context.Context) error
}

// imageStore is the image store with everything that works on it.
type imageStore struct {
	*oci.Images
	registry  *oci.Registry  // receives pushes
	puller    *oci.Puller    // pulls images from other registries
	collector *oci.Collector // removes images that nothing needs
	apps      *appimages.Images
}

// openMachine opens the configured runtime.
func openMachine(ctx context.Context, o ControlOptions, console local.Console, documents *store.Store, secrets *appsecrets.Reader) (*machine, error) {
	switch o.Engine.Runtime {
	case "fake":
		driver := fake.New(fake.Options{Console: console})
		return &machine{
			driver:        driver,
			digests:       fakeDigests{driver},
			close:         func() error { driver.Close(); return nil },
			clear:         func(context.Context) error { return nil },
			addresses:     func(resource.ID) (netip.Prefix, netip.Addr, error) { return netip.Prefix{}, netip.Addr{}, nil },
			release:       func(resource.ID) error { return nil },
			releaseOthers: func(map[string]bool) error { return nil },
		}, nil
	case "containerd":
		return openContainerd(ctx, o, console, documents, secrets)
	default:
		return nil, fmt.Errorf("runtime: want containerd or fake, got %q", o.Engine.Runtime)
	}
}

// fakeDigests resolves image references to the digests of the fake driver's images.
type fakeDigests struct{ driver local.Driver }

func (f fakeDigests) Digest(ctx context.Context, _ resource.Keyring, ref string) (string, error) {
	image, err := f.driver.Image(ctx, ref)
	if errors.Is(err, local.ErrImageNotFound) {
		err = appimages.Missing(err)
	}
	return image.Digest, err
}

func openContainerd(ctx context.Context, o ControlOptions, console local.Console, documents *store.Store, secrets *appsecrets.Reader) (*machine, error) {
	client, err := o.Images.Registries.Client(o.Log)
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
		Exposed:   o.Inside.TCP,
		LinkLocal: o.Engine.LinkLocal,
		Log:       o.Log,
	})
	if err != nil {
		return nil, err
	}
	driver, err := containerd.Open(ctx, containerd.Config{
		Root:          filepath.Join(o.Data, "containerd"),
		State:         filepath.Join(o.State, "c"),
		Shim:          filepath.Join(o.Engine.Dir, "containerd-shim-runc-v2"),
		Runc:          filepath.Join(o.Engine.Dir, "runc"),
		UnpackedLimit: o.Images.UnpackedLimit,
		CgroupParent:  "/penstock-" + o.Instance + "/replicas",
		ShimCgroup:    "/penstock-" + o.Instance + "/shims",
		Self:          isHostOf(o.ARM.Addr()),
		Network:       net,
		Console:       console,
		Log:           o.Log,
	})
	if err != nil {
		return nil, err
	}
	stores := driver.Stores()
	stores.Needed = func(ctx context.Context) (map[digest.Digest]bool, error) { return appimages.Needed(ctx, documents) }
	collector := oci.NewCollector(stores, o.Images.Policy, driver.PruneViews, o.Log)
	stores.Freed = collector.Poke
	registry := oci.NewRegistry(stores, o.Log)
	images := oci.NewImages(stores)
	puller := oci.NewPuller(stores, client, func() (int64, error) { return diskSpace(o.Data, pullReserve) }, o.Log)
	apps := appimages.New(appimages.Config{Store: images, Puller: puller, Collector: collector, Secrets: secrets, Documents: documents})
	return &machine{
		driver:  driver,
		digests: apps,
		images:  &imageStore{Images: images, registry: registry, puller: puller, collector: collector, apps: apps},
		close: func() error {
			registry.Close()
			client.Close()
			return driver.Close()
		},
		clear:         net.Destroy,
		keep:          net.Keep,
		expose:        net.Expose,
		release:       func(environment resource.ID) error { return net.Release(environment.Key()) },
		releaseOthers: net.ReleaseOthers,
		gateway:       func(environment resource.ID) (netip.Addr, error) { return net.Gateway(environment.Key()) },
		addressRange:  net.Range,
		addresses: func(environment resource.ID) (netip.Prefix, netip.Addr, error) {
			return net.Environment(environment.Key())
		},
	}, nil
}

// capacity returns what replicas can reserve on this machine.
func capacity(o ControlOptions) (local.Capacity, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return local.Capacity{}, fmt.Errorf("memory of this machine: %w", err)
	}
	return local.Capacity{
		Memory:     int64(info.Totalram) * int64(info.Unit),
		Reserve:    o.Capacity.MemoryReserve,
		MilliCPU:   int64(runtime.NumCPU()) * 1000,
		Overcommit: o.Capacity.Overcommit,

		DiskFree:    func() (int64, error) { return diskSpace(o.Data, 0) },
		DiskReserve: o.Capacity.DiskReserve,
	}, nil
}

// pullReserve is the disk space that pulls leave free for the database and logs.
const pullReserve = 1 << 30

// diskSpace returns how many bytes can be written to a folder's disk before only reserve bytes are free.
func diskSpace(dir string, reserve int64) (int64, error) {
	free, err := diskspace.Free(dir)
	if err != nil {
		return 0, fmt.Errorf("space on the disk of %s: %w", dir, err)
	}
	return max(free-reserve, 0), nil
}

// consoleSink stores the output of containers under their app.
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

// eventLevel returns the level at which an event appears in the server's own log.
func eventLevel(e resource.Event) slog.Level {
	if e.Warning {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}
