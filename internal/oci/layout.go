package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Export passes the files of an OCI image layout (image-spec 1.1, image-layout.md) with every image in the store to
// add: each blob once, and the index last. If an image is incomplete, Export fails with its name.
func (im *Images) Export(ctx context.Context, add func(name string, size int64, content io.Reader) error) error {
	return im.export(ctx, add, nil)
}

// export is Export for the images with these names, or for all images if only is empty.
func (im *Images) export(ctx context.Context, add func(name string, size int64, content io.Reader) error, only []string) error {
	ctx = inNamespace(ctx)
	var records []images.Image
	var err error
	if len(only) == 0 {
		if records, err = im.stores.Images.List(ctx); err != nil {
			return fmt.Errorf("export images: %w", err)
		}
	}
	for _, name := range only {
		ref, err := im.stores.reference(name)
		if err != nil {
			return err
		}
		record, err := im.record(ctx, ref)
		if err != nil {
			return err
		}
		record.Name = ref.storeName() // the name that was requested
		records = append(records, record)
	}
	e := exporter{stores: im.stores, add: add, done: map[digest.Digest]bool{}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, record := range records {
		ref, ok := fromStoreName(record.Name)
		if !ok {
			continue // not an image name of users
		}
		if err := e.image(ctx, record.Target); err != nil {
			return fmt.Errorf("export image %s: %w", ref, err)
		}
		target := record.Target
		target.Annotations = map[string]string{ocispec.AnnotationRefName: ref.String()}
		index.Manifests = append(index.Manifests, target)
	}
	for name, doc := range map[string]any{ocispec.ImageLayoutFile: ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}, ocispec.ImageIndexFile: index} {
		b, err := json.Marshal(doc)
		if err != nil {
			return fmt.Errorf("export images: %w", err)
		}
		if err := add(name, int64(len(b)), strings.NewReader(string(b))); err != nil {
			return err
		}
	}
	return nil
}

type exporter struct {
	stores Stores
	add    func(name string, size int64, content io.Reader) error
	done   map[digest.Digest]bool
}

// image passes on a manifest and everything that it refers to.
func (e *exporter) image(ctx context.Context, target ocispec.Descriptor) error {
	if e.done[target.Digest] {
		return nil
	}
	m, err := e.stores.manifest(ctx, target)
	if err != nil {
		return err
	}
	var missing error
	there := false
	for _, desc := range m.references() {
		if m.index {
			// A pulled image has only one platform.
			if _, err = e.stores.Content.Info(ctx, desc.Digest); errdefs.IsNotFound(err) {
				missing = err
				continue
			}
			if err == nil {
				err = e.image(ctx, desc)
			}
		} else {
			err = e.blob(ctx, desc.Digest)
			if errdefs.IsNotFound(err) && images.IsNonDistributable(desc.MediaType) {
				continue
			}
		}
		if err != nil {
			return err
		}
		there = true
	}
	if missing != nil && !there {
		return missing
	}
	return e.blob(ctx, target.Digest)
}

func (e *exporter) blob(ctx context.Context, dgst digest.Digest) error {
	if e.done[dgst] {
		return nil
	}
	e.done[dgst] = true
	blob, err := e.stores.Content.ReaderAt(ctx, ocispec.Descriptor{Digest: dgst})
	if err != nil {
		return err
	}
	defer blob.Close()
	return e.add(blobName(dgst), blob.Size(), content.NewReader(blob))
}

func blobName(dgst digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, dgst.Algorithm().String(), dgst.Encoded())
}
