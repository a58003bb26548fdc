package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"penstock/internal/network"
	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/runtimes/local/containerd"
)

// Options configure Engine.
type Options struct {
	// Shim and Runc are the paths of the engine's programs. Engine also compares the engine with Runc.
	Shim, Runc string
	// Program is a static Linux program that answers GET / on Port with 200 soon after its start.
	Program string
	Port    int
	// Cycles is the number of timed cycles. Warmup cycles run before them and are not timed.
	Cycles, Warmup int
	// Progress, if not nil, is called after each cycle.
	Progress func(done, of int)
	Log      *slog.Logger
}

// EngineResult holds the measured times of containers.
type EngineResult struct {
	// Engine is the time from the first call to the first 200 over the bridge: network, disk, snapshot, create, start.
	Engine Stats
	// Start is the part of Engine that begins with starting the created container.
	Start Stats
	// Teardown is the time from the kill until nothing of the replica is left.
	Teardown Stats
	// Runc is the time of `runc run` of the same bundle until its first 200. Root file system and network exist before.
	Runc Stats
	// P50 and P95 are the ratios of Engine to Runc.
	P50, P95 float64
	// Left lists what remains on the machine after everything was removed.
	Left []string
}

// Engine times the life of a container with the engine and with bare runc. It alternates between them, so that both run under
// the same conditions.
func Engine(ctx context.Context, o Options) (result EngineResult, err error) {
	lab, err := openLab(ctx, o)
	if err != nil {
		return EngineResult{}, fmt.Errorf("bench engine: %w", err)
	}
	defer func() {
		if end := lab.close(context.WithoutCancel(ctx)); end != nil {
			err = errors.Join(err, fmt.Errorf("bench engine: %w", end))
		}
	}()
	bare, err := lab.bareRunc(ctx)
	if err != nil {
		return EngineResult{}, fmt.Errorf("bench engine: %w", err)
	}
	var engine, start, teardown, floor []time.Duration
	for i := range o.Warmup + o.Cycles {
		e, err := lab.cycle(ctx, i)
		if err != nil {
			return EngineResult{}, fmt.Errorf("bench engine: cycle %d: %w", i, err)
		}
		f, err := bare.cycle(ctx, i)
		if err != nil {
			return EngineResult{}, fmt.Errorf("bench engine: runc cycle %d: %w", i, err)
		}
		if i < o.Warmup {
			continue
		}
		engine, start, teardown, floor = append(engine, e.all), append(start, e.start), append(teardown, e.teardown), append(floor, f)
		if o.Progress != nil {
			o.Progress(i+1-o.Warmup, o.Cycles)
		}
	}
	result = EngineResult{Engine: statsOf(engine), Start: statsOf(start), Teardown: statsOf(teardown), Runc: statsOf(floor)}
	result.P50, result.P95 = ratio(result.Engine.P50, result.Runc.P50), ratio(result.Engine.P95, result.Runc.P95)
	if err := bare.remove(ctx); err != nil {
		return result, fmt.Errorf("bench engine: %w", err)
	}
	result.Left, err = lab.left(ctx)
	return result, err
}

// lab is a private engine, separate from anything else on the machine.
type lab struct {
	Options
	dir     string
	name    string
	network *network.Network
	driver  *containerd.Driver
	image   string
}

func openLab(ctx context.Context, o Options) (*lab, error) {
	if o.Cycles < 1 || o.Port < 1 || o.Program == "" {
		return nil, fmt.Errorf("want cycles, a program and its port, got %d, %q and %d", o.Cycles, o.Program, o.Port)
	}
	// The folder is below /run because paths of sockets must be short.
	dir, err := os.MkdirTemp("/run", "psb")
	if err != nil {
		return nil, err
	}
	l := &lab{Options: o, dir: dir, name: filepath.Base(dir)}
	fail := func(err error) (*lab, error) {
		return nil, errors.Join(err, l.close(context.WithoutCancel(ctx)))
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return fail(err)
	}
	l.network, err = network.Open(ctx, network.Config{Dir: filepath.Join(dir, "net"), State: filepath.Join(dir, "s"), Instance: l.name, Log: o.Log})
	if err != nil {
		return fail(err)
	}
	l.driver, err = containerd.Open(ctx, containerd.Config{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "s"), Shim: o.Shim, Runc: o.Runc,
		CgroupParent: "/" + l.name, Network: l.network, Console: silent{}, Log: o.Log,
	})
	if err != nil {
		return fail(err)
	}
	if l.image, err = push(ctx, l.driver.Stores(), o); err != nil {
		return fail(fmt.Errorf("image: %w", err))
	}
	if _, err := l.driver.Image(ctx, l.image); err != nil {
		return fail(err)
	}
	return l, nil
}

func (l *lab) close(ctx context.Context) error {
	var errs []error
	if l.driver != nil {
		list, err := l.driver.List(ctx)
		errs = append(errs, err)
		for _, s := range list {
			for _, c := range s.Containers {
				errs = append(errs, l.driver.Delete(ctx, c.ID))
			}
			errs = append(errs, l.driver.RemoveSandbox(ctx, s.Replica))
		}
		errs = append(errs, l.driver.Close())
	}
	if l.network != nil {
		errs = append(errs, l.network.Destroy(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err // and keep the folder, in which something may still be mounted
	}
	return errors.Join(removeCgroups(l.name), os.RemoveAll(l.dir))
}

// times holds the times of one cycle.
type times struct{ all, start, teardown time.Duration }

func (l *lab) cycle(ctx context.Context, i int) (times, error) {
	s, c := l.replica(fmt.Sprintf("bench-%d", i))
	begin := time.Now()
	address, err := l.driver.CreateSandbox(ctx, s)
	if err != nil {
		return times{}, err
	}
	if err := l.driver.Create(ctx, c); err != nil {
		return times{}, err
	}
	created := time.Now()
	if _, err := l.driver.Start(ctx, c.ID); err != nil {
		return times{}, err
	}
	if err := answers(ctx, netip.AddrPortFrom(address, uint16(l.Port))); err != nil {
		return times{}, err
	}
	answered := time.Now()
	if err := l.driver.Kill(ctx, c.ID, syscall.SIGKILL); err != nil {
		return times{}, err
	}
	if err := l.driver.Delete(ctx, c.ID); err != nil {
		return times{}, err
	}
	if err := l.driver.RemoveSandbox(ctx, s.Replica); err != nil {
		return times{}, err
	}
	return times{all: answered.Sub(begin), start: answered.Sub(created), teardown: time.Since(answered)}, nil
}

// replica returns a replica with every limit that production uses.
func (l *lab) replica(name string) (local.Sandbox, local.Container) {
	return local.Sandbox{
			Replica: name, Environment: resource.EnvironmentID("bench", "bench", "bench"),
			DiskLimit: 1 << 30, Capabilities: resource.CapabilitiesDefault,
		}, local.Container{
			ID: name, Replica: name, Name: "main", Image: l.image, Hostname: name,
			Resources: resource.Resources{MilliCPU: 2000, Memory: 256 << 20},
		}
}
