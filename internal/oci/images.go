package oci

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"penstock/internal/oci/remote"
)

// Images gives access to the images in the server's store.
type Images struct {
	stores   Stores
	platform ocispec.Platform
	scanned  scanned
}

// NewImages returns the images in stores. They run on Linux with the processor architecture of this program.
func NewImages(stores Stores) *Images {
	platform := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	return &Images{stores: stores, platform: platforms.Normalize(platform)}
}

// Image is an image that this machine can run.
type Image struct {
	Name   string // as users write it
	Digest digest.Digest
	Config Config
	Size   int64 // compressed size of its blobs

	// Record is what containerd's client creates its own image from. If the image was requested by digest, the record
	// may not be in the image store under this name.
	Record images.Image
}

// Config is how an image should be run.
type Config struct {
	Entrypoint []string
	Cmd        []string
	Env        []string // KEY=value
	User       string
	WorkDir    string
	Ports      []int // TCP, ascending
	Labels     map[string]string
}

// Resolve finds an image by the name that users write. It fails with ErrNotFound, with ErrPlatform if the image is for
// other machines, or with another error if the name or the image is invalid.
func (im *Images) Resolve(ctx context.Context, name string) (Image, error) {
	ctx = inNamespace(ctx)
	ref, err := im.stores.reference(name)
	if err != nil {
		return Image{}, err
	}
	record, err := im.record(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	found, err := im.forPlatform(ctx, record.Target)
	switch {
	case errdefs.IsNotFound(err):
		return Image{}, notFoundError(fmt.Sprintf("image %q: part of it is missing from this server's store (%v); push it again", ref, err))
	case errors.Is(err, ErrPlatform):
		return Image{}, platformError(fmt.Sprintf("image %q: %v", ref, err))
	case err != nil:
		return Image{}, fmt.Errorf("image %q: %w", ref, err)
	}
	config := found.config.Config
	image := Image{
		Name:   ref.String(),
		Digest: record.Target.Digest,
		Size:   found.size,
		Record: record,
		Config: Config{
			Entrypoint: config.Entrypoint, Cmd: config.Cmd, Env: config.Env, User: config.User,
			WorkDir: config.WorkingDir, Ports: ports(config.ExposedPorts), Labels: config.Labels,
		},
	}
	return image, nil
}

// record returns the image record that ref means. If ref has a digest that no record points to, but an index of the
// same repository contains it, record makes one up.
func (im *Images) record(ctx context.Context, ref Reference) (images.Image, error) {
	names, err := im.stores.names(ctx, ref)
	if err != nil {
		return images.Image{}, fmt.Errorf("image %q: %w", ref, err)
	}
	if len(names) > 0 {
		record, err := im.stores.Images.Get(ctx, names[0])
		if err == nil || !errdefs.IsNotFound(err) {
			return record, err
		}
	}
	if ref.Digest != "" {
		child, in, ok, err := im.stores.listed(ctx, ref)
		if err != nil {
			return images.Image{}, fmt.Errorf("image %q: %w", ref, err)
		}
		if ok {
			return images.Image{Name: ref.storeName(), Target: child, CreatedAt: in.CreatedAt, UpdatedAt: in.UpdatedAt}, nil
		}
	}
	records, err := im.stores.Images.List(ctx)
	if err != nil {
		return images.Image{}, fmt.Errorf("image %q: %w", ref, err)
	}
	var tags []string
	for _, record := range records {
		known, ok := fromStoreName(record.Name)
		if !ok || known.repository() != ref.repository() {
			continue
		}
		if known.Tag != "" {
			tags = append(tags, known.Tag)
		}
	}
	return images.Image{}, notFound(ref, tags)
}

func notFound(ref Reference, tags []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "image %q: not in this server's store", ref)
	if len(tags) > 0 {
		const shown = 5
		slices.Sort(tags)
		fmt.Fprintf(&b, ", which has %s with tag %s", ref.repository(), strings.Join(tags[:min(shown, len(tags))], ", "))
		if more := len(tags) - shown; more > 0 {
			fmt.Fprintf(&b, " and %d more", more)
		}
	}
	switch {
	case ref.Host != "":
		b.WriteString("; it has not been pulled")
	case ref.Digest == "":
		fmt.Fprintf(&b, "; build it with \"penstock build -t %s DIR\", or name its registry, as docker.io/%s does Docker Hub", ref, docker(ref))
	}
	return notFoundError(b.String())
}

// runnable is an image manifest that this machine can run.
type runnable struct {
	config imageConfig
	layers []ocispec.Descriptor
	size   int64
}

// forPlatform reads the image at target, or the one for this machine if target is an index.
func (im *Images) forPlatform(ctx context.Context, target ocispec.Descriptor) (runnable, error) {
	m, err := im.stores.manifest(ctx, target)
	if err != nil {
		return runnable{}, err
	}
	if !m.index {
		return im.read(ctx, target, m)
	}
	var offered []string
	seen := make(map[digest.Digest]bool)
	for _, child := range m.children {
		if seen[child.Digest] {
			continue
		}
		seen[child.Digest] = true
		if child.Platform != nil {
			if child.Platform.OS == "unknown" { // attestations, by BuildKit's convention
				continue
			}
			if !im.runs(*child.Platform) {
				offered = append(offered, platforms.Format(*child.Platform))
				continue
			}
		}
		m, err := im.stores.manifest(ctx, child)
		if err != nil {
			return runnable{}, err
		}
		if m.index {
			return runnable{}, errNested
		}
		found, err := im.read(ctx, child, m)
		if wrong, ok := errors.AsType[platformError](err); ok {
			offered = append(offered, string(wrong))
			continue
		}
		return found, err
	}
	if len(offered) == 0 {
		return runnable{}, errors.New("want an index with an image in it, got one without")
	}
	return runnable{}, im.wrongPlatform(strings.Join(offered, ", "))
}

// read reads the config of an image manifest and checks that the image is complete.
func (im *Images) read(ctx context.Context, target ocispec.Descriptor, m manifest) (runnable, error) {
	if !images.IsConfigType(m.config.MediaType) {
		return runnable{}, fmt.Errorf("want a container image, got an artifact with config %q", clip(m.config.MediaType))
	}
	raw, err := im.stores.read(ctx, m.config)
	if err != nil {
		return runnable{}, err
	}
	config, err := parseConfig(raw, len(m.layers))
	if err != nil {
		return runnable{}, fmt.Errorf("config %s: %w", m.config.Digest, err)
	}
	if !im.runs(config.Platform) {
		return runnable{}, im.wrongPlatform(platforms.Format(config.Platform))
	}
	size := target.Size
	for _, desc := range m.references() {
		info, err := im.stores.Content.Info(ctx, desc.Digest)
		if err != nil {
			return runnable{}, err
		}
		size += info.Size
	}
	return runnable{config: config, layers: m.layers, size: size}, nil
}

func (im *Images) runs(p ocispec.Platform) bool {
	return platforms.OnlyStrict(im.platform).Match(platforms.Normalize(p))
}

func (im *Images) wrongPlatform(got string) error {
	return platformError(fmt.Sprintf("want an image for %s, got one for %s", platforms.Format(im.platform), clip(got)))
}

// ports parses "8080/tcp" and "8080". Other entries are ignored.
func ports(exposed map[string]struct{}) []int {
	var list []int
	for _, s := range slices.Sorted(maps.Keys(exposed)) {
		number, protocol, _ := strings.Cut(s, "/")
		if n, err := strconv.Atoi(number); err == nil && n > 0 && n < 1<<16 && (protocol == "" || protocol == "tcp") {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Delete removes an image's name. With a digest it removes all names in the repository that lead to it. Blobs that no
// other image has are collected unless revisions or containers need them. It fails with ErrNotFound.
func (im *Images) Delete(ctx context.Context, name string) error {
	ctx = inNamespace(ctx)
	ref, err := im.stores.reference(name)
	if err != nil {
		return err
	}
	found, err := im.stores.remove(ctx, ref)
	if err != nil {
		return fmt.Errorf("delete image %q: %w", ref, err)
	}
	if !found {
		return notFoundError(fmt.Sprintf("image %q: not in this server's store", ref))
	}
	return nil
}

// docker returns the name of a short name's image at Docker Hub, without the host.
func docker(ref Reference) string {
	return remote.Repository("docker.io", ref.Repository) + ":" + ref.Tag
}
