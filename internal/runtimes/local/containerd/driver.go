package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"penstock/internal/network"
	"penstock/internal/oci"
	"penstock/internal/runtimes/local"
)

// Config says where a Driver stores its data and which programs it uses. Two drivers on a machine must differ in Root,
// State, CgroupParent and Network.
type Config struct {
	// Root holds images, layers, and the records and disks of sandboxes.
	Root string
	// State holds sockets, mounts and pipes. Its path must be short. A reboot may empty it.
	State string
	// Shim and Runc are programs. They are copied below Root, so they can be replaced while containers run.
	Shim string
	Runc string
	// CgroupParent is the cgroup above all containers: "/penstock". This process should not be in it.
	CgroupParent string
	// ShimCgroup is the cgroup of the shims. With "", they stay in the cgroup of this process, and count towards its
	// limits and usage.
	ShimCgroup string
	// UnpackedLimit is the maximum size of an unpacked image in bytes. With 0, only the disk limits it.
	UnpackedLimit int64
	// Self says whether the host of an image name is this server's own registry; nil means never.
	Self    func(host string) bool
	Network *network.Network
	Console local.Console
	Log     *slog.Logger
}

var cgroupPath = regexp.MustCompile(`^(/[A-Za-z0-9][A-Za-z0-9._-]*)+$`)

func (c Config) validate() error {
	var errs []error
	for _, p := range []struct{ name, path string }{{"root", c.Root}, {"state", c.State}, {"shim", c.Shim}, {"runc", c.Runc}} {
		if !filepath.IsAbs(p.path) {
			errs = append(errs, fmt.Errorf("containerd %s: want an absolute path, got %q", p.name, p.path))
		}
	}
	if !cgroupPath.MatchString(c.CgroupParent) {
		errs = append(errs, fmt.Errorf("containerd cgroup parent: want a path like /penstock, got %q", c.CgroupParent))
	}
	if c.ShimCgroup != "" && !cgroupPath.MatchString(c.ShimCgroup) {
		errs = append(errs, fmt.Errorf("containerd shim cgroup: want a path like /penstock/shims, got %q", c.ShimCgroup))
	}
	if c.Network == nil || c.Console == nil || c.Log == nil {
		errs = append(errs, errors.New("containerd: want a network, a console and a logger"))
	}
	return errors.Join(errs...)
}

// Driver runs containers. It implements local.Driver.
type Driver struct {
	cfg     Config
	log     *slog.Logger
	engine  *engine
	client  *client.Client
	images  *oci.Images
	shim    string
	runc    string
	cgroups cgroups
	// remap reports whether each sandbox gets its own range of user IDs. firstID is where these ranges start.
	remap   bool
	firstID uint32
	// disks creates the disks of sandboxes. It knows whether this machine can limit them.
	disks *disks
	// files is the open-file limit of containers.
	files uint64

	wg     sync.WaitGroup
	cancel context.CancelFunc
	closed chan struct{}

	unpacking sync.Mutex
	// prefetching holds one value while weights are read.
	prefetching chan struct{}

	found map[string]*pipes // pipes of earlier processes' containers, by key, until they are adopted

	mu         sync.Mutex
	views      map[string]view // by image digest
	sandboxes  map[string]*sandbox
	containers map[string]*container // by ID
	watchers   local.Watchers
}

// Open starts containerd, and adopts the sandboxes and containers that it finds.
func Open(ctx context.Context, cfg Config) (*Driver, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	d := &Driver{
		prefetching: make(chan struct{}, 1),
		cfg:         cfg, log: cfg.Log,
		views: map[string]view{}, sandboxes: map[string]*sandbox{}, containers: map[string]*container{},
		closed:  make(chan struct{}),
		firstID: firstID(cfg.Network.Range()),
	}
	var err error
	if err = os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fmt.Errorf("open containerd: %w", err)
	}
	// 0711: a container's root, which has no rights on the host, must be able to walk through it to its own files.
	for _, dir := range []string{cfg.State, d.runDir("")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("open containerd: %w", err)
		}
	}
	if err := searchable(cfg.State); err != nil {
		return nil, fmt.Errorf("open containerd: %w", err)
	}
	bin := filepath.Join(cfg.Root, "bin")
	if d.shim, err = keepBinary(bin, cfg.Shim); err != nil {
		return nil, fmt.Errorf("open containerd: shim: %w", err)
	}
	if d.runc, err = keepBinary(bin, cfg.Runc); err != nil {
		return nil, fmt.Errorf("open containerd: runc: %w", err)
	}
	if d.cgroups, err = findCgroups(cgroupRoot, "/proc/self/mountinfo"); err != nil {
		return nil, fmt.Errorf("open containerd: %w", err)
	}
	d.disks = openDisks(filepath.Join(cfg.Root, "templates"), cfg.Log)
	if d.files, err = fileLimit(); err != nil {
		return nil, fmt.Errorf("open containerd: %w", err)
	}
	if cfg.ShimCgroup != "" {
		if err := d.cgroups.makeShims(cfg.ShimCgroup); err != nil {
			cfg.Log.Warn("shims share CPU with what else runs, so that containers may slow down each other's starts", "err", err)
		}
	}
	// Before containerd starts: it ends the shims of containers that have ended. Output that only the shim holds would
	// then be lost.
	d.found = claimPipes(d.runDir(""), cfg.Log)
	defer d.dropFound()
	if err := mountMemory(d.memory("")); err != nil {
		return nil, fmt.Errorf("open containerd: %w", err)
	}
	if d.engine, err = bootEngine(ctx, cfg.Root, cfg.State, d.memory(""), logsTo(cfg.Log)); err != nil {
		return nil, fmt.Errorf("open containerd: %w", err)
	}
	d.client = d.engine.client
	d.images = oci.NewImages(d.Stores())
	if err := d.begin(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open containerd: %w", err), d.Close())
	}
	return d, nil
}

// searchable returns an error if a container's root, which has no rights on the host, may not walk through a folder
// above the container's files.
func searchable(dir string) error {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("state: %s: want everybody to be able to search it (chmod o+x), got mode %v", dir, info.Mode().Perm())
		}
	}
	return nil
}

// begin subscribes to events before it looks at the containers, so that it misses no exit in between.
func (d *Driver) begin(ctx context.Context) error {
	own, cancel := context.WithCancel(inNamespace(context.WithoutCancel(ctx)))
	d.cancel = cancel
	capabilities, err := d.client.GetSnapshotterCapabilities(own, snapshotter)
	if err != nil {
		return fmt.Errorf("capabilities of the snapshotter: %w", err)
	}
	if d.remap = slices.Contains(capabilities, "remap-ids"); !d.remap {
		d.log.Warn("this kernel cannot map the owners of an overlay's layers, so containers share the host's user ids and get fewer capabilities")
	}
	events, errs := d.client.Subscribe(own, `topic=="/tasks/exit"`, `topic=="/tasks/oom"`, `topic~="^/images/(create|update)$"`)
	d.wg.Go(func() { d.follow(own, events, errs) })
	if err := d.adopt(own); err != nil {
		return err
	}
	return d.PruneViews(own)
}

// Close stops containerd and all watching. Containers keep running. A closed Driver cannot be used again.
func (d *Driver) Close() error {
	close(d.closed)
	if d.cancel != nil {
		d.cancel()
	}
	d.mu.Lock()
	for _, c := range d.containers {
		c.detachOutput()
	}
	d.mu.Unlock()
	err := d.engine.stop()
	d.wg.Wait()
	err = errors.Join(err, d.freeMemory())
	if err != nil {
		return fmt.Errorf("close containerd: %w", err)
	}
	return nil
}

// Stores returns the stores in which this driver finds images. They belong together.
func (d *Driver) Stores() oci.Stores {
	return oci.Stores{
		Content: d.client.ContentStore(),
		Images:  d.client.ImageService(),
		Leases:  d.client.LeasesService(),
		Self:    d.cfg.Self,
	}
}

func inNamespace(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, oci.Namespace)
}

// runDir returns the folder of a container's mounts, pipes and status. Its path is short and contains no characters of
// the container's name.
func (d *Driver) runDir(key string) string { return filepath.Join(d.cfg.State, "t", key) }

// keyOf turns a container's ID into a name for files and for containerd, which does not accept "--".
func keyOf(id string) string {
	h := sha256.Sum256([]byte(id))
	return hex.EncodeToString(h[:10])
}

var _ local.Driver = (*Driver)(nil)
