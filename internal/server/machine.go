package server

import (
	"context"
	"errors"
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
)

// machine is what runs containers here, and where their images are.
type machine struct {
	driver   local.Driver
	images   *oci.Images  // nil with the fake runtime
	registry http.Handler // takes pushes
	// importImages takes those of an OCI layout in a folder; nil with the fake runtime.
	importImages func(ctx context.Context, dir string) (images int, err error)
	// addresses are where replicas of an environment are, and their gateway.
	addresses func(environment resource.ID) (netip.Prefix, netip.Addr)
	close     func() error
	// clear undoes what close leaves for the next start: bridges and rules. Only when no replica is left.
	clear func(ctx context.Context) error
}

// openMachine opens the runtime that was asked for.
func openMachine(ctx context.Context, o ControlOptions, console local.Console) (*machine, error) {
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
		}, nil
	case "containerd":
		return openContainerd(ctx, o, console)
	default:
		return nil, fmt.Errorf("runtime: want containerd or fake, got %q", o.Runtime)
	}
}

func openContainerd(ctx context.Context, o ControlOptions, console local.Console) (*machine, error) {
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
		Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	driver, err := containerd.Open(ctx, containerd.Config{
		Root:         filepath.Join(o.Data, "containerd"),
		State:        filepath.Join(o.State, "c"),
		Shim:         filepath.Join(o.EngineDir, "containerd-shim-runc-v2"),
		Runc:         filepath.Join(o.EngineDir, "runc"),
		CgroupParent: "/penstock-" + o.Instance + "/replicas",
		Network:      net,
		Console:      console,
		Log:          o.Log,
	})
	if err != nil {
		return nil, err
	}
	registry := oci.NewRegistry(driver.Stores(), o.Log)
	return &machine{
		driver:       driver,
		images:       oci.NewImages(driver.Stores()),
		registry:     registry,
		importImages: registry.Import,
		close: func() error {
			registry.Close()
			return driver.Close()
		},
		clear: net.Destroy,
		addresses: func(environment resource.ID) (netip.Prefix, netip.Addr) {
			addresses, gateway, err := net.Environment(environment.Key())
			if err != nil {
				o.Log.Warn("an environment has no addresses; its apps cannot start", "environment", environment.Base(), "err", err)
			}
			return addresses, gateway
		},
	}, nil
}

// Digest says which image a reference means now.
func (m *machine) Digest(ctx context.Context, ref string) (string, error) {
	if m.images == nil {
		image, err := m.driver.Image(ctx, ref)
		if errors.Is(err, local.ErrImageNotFound) {
			err = missing{err}
		}
		return image.Digest, err
	}
	image, err := m.images.Resolve(ctx, ref)
	if errors.Is(err, oci.ErrNotFound) {
		err = missing{err}
	}
	return image.Digest.String(), err
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
	}, nil
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
