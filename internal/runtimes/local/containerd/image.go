package containerd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"penstock/internal/oci"
	"penstock/internal/oci/unpack"
	"penstock/internal/runtimes/local"
)

const (
	snapshotter = "overlayfs"
	viewPrefix  = "view-"
	viewLabel   = "penstock/view" // label of a container: the view below its root file system
)

// view is an unpacked image. A read-only snapshot of its own keeps it from being removed.
type view struct {
	key string
	// lower are the folders of the layers, topmost first.
	lower []string
}

// Image implements local.Driver.
func (d *Driver) Image(ctx context.Context, ref string) (local.Image, error) {
	ctx = inNamespace(ctx)
	image, err := d.resolve(ctx, ref)
	if err != nil {
		return local.Image{}, err
	}
	if _, err := d.unpacked(ctx, image); err != nil {
		return local.Image{}, fmt.Errorf("unpack image %s: %w", ref, err)
	}
	return local.Image{Ref: ref, Digest: image.Digest.String(), Bytes: image.Size, Ports: image.Config.Ports}, nil
}

func (d *Driver) resolve(ctx context.Context, ref string) (oci.Image, error) {
	image, err := d.images.Resolve(ctx, ref)
	// An image for other architectures is as unusable as a missing one.
	if errors.Is(err, oci.ErrNotFound) || errors.Is(err, oci.ErrPlatform) {
		return oci.Image{}, fmt.Errorf("%w: %w", local.ErrImageNotFound, err)
	}
	return image, err
}

// unpacked ensures that the image's layers are unpacked, and returns them.
func (d *Driver) unpacked(ctx context.Context, image oci.Image) (view, error) {
	digest := image.Digest.String()
	d.mu.Lock()
	v, ok := d.views[digest]
	d.mu.Unlock()
	if ok {
		return v, nil
	}
	// One at a time: images share layers, and two concurrent unpackings of the same layer make each other fail.
	d.unpacking.Lock()
	defer d.unpacking.Unlock()
	img := client.NewImage(d.client, image.Record)
	if done, err := img.IsUnpacked(ctx, snapshotter); err != nil {
		return view{}, err
	} else if !done {
		if err := d.unpack(ctx, img, image); err != nil {
			return view{}, err
		}
	}
	layers, err := img.RootFS(ctx)
	if err != nil {
		return view{}, err
	}
	v = view{key: viewPrefix + image.Digest.Encoded()}
	sn := d.client.SnapshotService(snapshotter)
	mounts, err := sn.Mounts(ctx, v.key)
	if errdefs.IsNotFound(err) {
		// Kept until pruneViews finds that it is unused. A container that restarts needs its image even if the tag has
		// moved on, so the view refers to the manifest, and the manifest to the config and the layers.
		mounts, err = sn.View(ctx, v.key, identity.ChainID(layers).String(), snapshots.WithLabels(map[string]string{
			"containerd.io/gc.root":          "penstock",
			"containerd.io/gc.ref.content.m": digest,
		}))
	}
	if err != nil {
		return view{}, err
	}
	for _, m := range mounts {
		if m.Type == "bind" {
			v.lower = []string{m.Source} // an image with one layer, or none
		}
		for _, o := range m.Options {
			if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
				v.lower = strings.Split(dirs, ":")
			}
		}
	}
	if len(v.lower) == 0 {
		return view{}, fmt.Errorf("snapshot %s has no folders: %v", v.key, mounts)
	}
	d.mu.Lock()
	d.views[digest] = v
	d.mu.Unlock()
	return v, nil
}

const (
	// unpackLimit bounds the time for unpacking, because an image can be built to take very long.
	unpackLimit = 30 * time.Minute
	// maxEntries bounds the number of files in an image. The largest images in use, with whole scientific
	// distributions, have a quarter of that.
	maxEntries = 1_000_000
	// diskSpare is how much of a disk unpacking leaves free, for the database and the logs on it.
	diskSpare = 1 << 30
)

// unpack writes each of the image's layers into a snapshot once, within the space that the disk has.
func (d *Driver) unpack(ctx context.Context, img client.Image, image oci.Image) error {
	ctx, cancel := context.WithTimeoutCause(ctx, unpackLimit, fmt.Errorf("it took longer than %v", unpackLimit))
	defer cancel()
	var disk unix.Statfs_t
	if err := unix.Statfs(d.cfg.Root, &disk); err != nil {
		return fmt.Errorf("space on the disk of %s: %w", d.cfg.Root, err)
	}
	limits := unpack.Limits{Bytes: max(int64(disk.Bavail)*disk.Bsize-diskSpare, 0), Entries: maxEntries}
	if d.cfg.UnpackedLimit > 0 {
		limits.Bytes = min(limits.Bytes, d.cfg.UnpackedLimit)
	}
	if disk.Files > 0 { // the file system has a limited number of inodes
		limits.Entries = min(limits.Entries, int64(disk.Ffree))
	}
	ctx, done, err := d.client.WithLease(ctx)
	if err != nil {
		return err
	}
	defer done(context.WithoutCancel(ctx))
	manifest, err := images.Manifest(ctx, d.client.ContentStore(), image.Record.Target, img.Platform())
	if err != nil {
		return err
	}
	diffs, err := img.RootFS(ctx)
	if err != nil {
		return err
	}
	if len(diffs) != len(manifest.Layers) {
		return fmt.Errorf("want as many layers as diff IDs, got %d and %d", len(manifest.Layers), len(diffs))
	}
	applier := unpack.New(d.client.ContentStore(), limits)
	for i, blob := range manifest.Layers {
		layer := rootfs.Layer{Blob: blob, Diff: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diffs[i]}}
		if _, err := rootfs.ApplyLayerWithOpts(ctx, layer, diffs[:i:i], d.client.SnapshotService(snapshotter), applier, nil, nil); err != nil {
			return fmt.Errorf("layer %d, %s: %w", i, blob.Digest, err)
		}
	}
	// The snapshot is removed together with the config, and not earlier.
	label := "containerd.io/gc.ref.snapshot." + snapshotter
	_, err = d.client.ContentStore().Update(ctx, content.Info{
		Digest: manifest.Config.Digest, Labels: map[string]string{label: identity.ChainID(diffs).String()},
	}, "labels."+label)
	return err
}

// PruneViews releases images that are neither in the image store nor used by a container. containerd's garbage
// collector then removes what only they used.
func (d *Driver) PruneViews(ctx context.Context) error {
	ctx = inNamespace(ctx)
	d.unpacking.Lock() // a view that is being created is not yet referenced by the container that needs it
	defer d.unpacking.Unlock()
	used := map[string]bool{}
	images, err := d.client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, i := range images {
		used[viewPrefix+i.Target.Digest.Encoded()] = true
	}
	d.mu.Lock()
	for c := range maps.Values(d.containers) {
		used[c.view] = true
	}
	d.mu.Unlock()
	sn := d.client.SnapshotService(snapshotter)
	var unused []string
	err = sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if strings.HasPrefix(info.Name, viewPrefix) && !used[info.Name] {
			unused = append(unused, info.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	d.mu.Lock()
	maps.DeleteFunc(d.views, func(_ string, v view) bool { return slices.Contains(unused, v.key) })
	d.mu.Unlock()
	for _, key := range slices.Sorted(slices.Values(unused)) {
		if err := sn.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove snapshot %s: %w", key, err)
		}
	}
	return nil
}
