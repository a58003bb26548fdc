package oci

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Summary is an image in a list of images. Two names of one manifest are two images that share all their blobs.
type Summary struct {
	Name    string // as users write it
	Digest  digest.Digest
	Created time.Time // when the name was last set to this manifest
	Size    int64     // compressed size of its blobs
	Unique  int64     // size of the blobs that no other image has: what deleting the image frees
	Shared  int64     // size of the blobs that other images have too
	Layers  []Layer   // lowest first; if there are several platforms, one after the other
	Problem string    // why the image cannot be read or run
}

// Layer is a layer of an image.
type Layer struct {
	Name      string // as in image.yaml, if penstock build made the image
	Digest    digest.Digest
	MediaType string
	Size      int64
	// SharedWith is the number of other images that have the layer.
	SharedWith int
}

// layerAnnotation is the manifest annotation in which penstock build stores a layer's name.
const layerAnnotation = "penstock.layer"

// contents are the blobs of one image.
type contents struct {
	blobs  map[digest.Digest]int64
	layers []ocispec.Descriptor
}

// List returns all images, sorted by name.
func (im *Images) List(ctx context.Context) ([]Summary, error) {
	ctx = inNamespace(ctx)
	records, err := im.stores.Images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	list := make([]Summary, len(records))
	all := make([]contents, len(records))
	owners := make(map[digest.Digest]int)
	for i, record := range records {
		list[i] = Summary{Name: record.Name, Digest: record.Target.Digest, Created: named(record)}
		if ref, ok := fromStoreName(record.Name); ok {
			list[i].Name = ref.String()
		}
		all[i] = contents{blobs: make(map[digest.Digest]int64)}
		if err := im.collect(ctx, record.Target, &all[i]); err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("list images: %w", context.Cause(ctx))
			}
			list[i].Problem = err.Error()
		} else if _, err := im.forPlatform(ctx, record.Target); err != nil {
			list[i].Problem = err.Error()
		}
		for d := range all[i].blobs {
			owners[d]++
		}
	}
	for i := range list {
		for d, size := range all[i].blobs {
			list[i].Size += size
			if owners[d] > 1 {
				list[i].Shared += size
			} else {
				list[i].Unique += size
			}
		}
		list[i].Layers = make([]Layer, len(all[i].layers))
		for j, desc := range all[i].layers {
			list[i].Layers[j] = Layer{
				Name: clip(desc.Annotations[layerAnnotation]), Digest: desc.Digest, MediaType: desc.MediaType, Size: all[i].blobs[desc.Digest],
				SharedWith: max(owners[desc.Digest]-1, 0),
			}
		}
	}
	slices.SortFunc(list, func(a, b Summary) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// collect gathers the blobs of an image that are in the store. An index often has only one platform there.
func (im *Images) collect(ctx context.Context, target ocispec.Descriptor, into *contents) error {
	m, err := im.stores.manifest(ctx, target)
	if err != nil {
		return err
	}
	if !m.index {
		return im.collectImage(ctx, target, m, into)
	}
	if err := im.count(ctx, target, into); err != nil {
		return err
	}
	for _, child := range m.children {
		if _, seen := into.blobs[child.Digest]; seen {
			continue
		}
		if images.IsIndexType(child.MediaType) {
			err = im.collect(ctx, child, into)
		} else if !images.IsManifestType(child.MediaType) {
			err = im.count(ctx, child, into)
		} else if m, merr := im.stores.manifest(ctx, child); merr != nil {
			err = merr
		} else {
			err = im.collectImage(ctx, child, m, into)
		}
		if err := ignoreNotFound(err); err != nil {
			return err
		}
	}
	return nil
}

func (im *Images) collectImage(ctx context.Context, target ocispec.Descriptor, m manifest, into *contents) error {
	if err := im.count(ctx, target, into); err != nil {
		return err
	}
	into.layers = append(into.layers, m.layers...)
	var missing error
	for _, desc := range m.references() {
		switch err := im.count(ctx, desc, into); {
		case errdefs.IsNotFound(err):
			missing = err
		case err != nil:
			return err
		}
	}
	return missing
}

func (im *Images) count(ctx context.Context, desc ocispec.Descriptor, into *contents) error {
	info, err := im.stores.Content.Info(ctx, desc.Digest)
	if err != nil {
		return err
	}
	into.blobs[desc.Digest] = info.Size
	return nil
}
