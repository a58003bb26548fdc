package oci

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Export hands over the files of an OCI image layout (image-spec 1.1, image-layout.md) that holds every image of the
// store: each blob once, the index last. An image of which a part is missing is refused by name.
func (im *Images) Export(ctx context.Context, add func(name string, size int64, content io.Reader) error) error {
	ctx = inNamespace(ctx)
	records, err := im.stores.Images.List(ctx)
	if err != nil {
		return fmt.Errorf("export images: %w", err)
	}
	e := exporter{stores: im.stores, add: add, done: map[digest.Digest]bool{}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, record := range records {
		ref, ok := fromStoreName(record.Name)
		if !ok {
			continue // not one that users can name
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

// image hands over a manifest and all that it refers to.
func (e *exporter) image(ctx context.Context, target ocispec.Descriptor) error {
	m, err := e.stores.manifest(ctx, target)
	if err != nil {
		return err
	}
	var missing error
	there := false
	for _, desc := range m.references() {
		if m.index {
			// An image that was pulled is there for one platform only.
			if _, err = e.stores.Content.Info(ctx, desc.Digest); errdefs.IsNotFound(err) {
				missing = err
				continue
			}
			if err == nil {
				err = e.image(ctx, desc)
			}
		} else {
			err = e.blob(ctx, desc.Digest)
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

// Import takes the images of an OCI image layout in a folder into the store, under the names that the index gives them.
// What the store has already is not read again.
func (r *Registry) Import(ctx context.Context, dir string) (images int, err error) {
	ctx = inNamespace(ctx)
	raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return 0, fmt.Errorf("import images: %w", err)
	}
	var index struct {
		Manifests descriptors `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return 0, fmt.Errorf("import images: %s: %w", ocispec.ImageIndexFile, err)
	}
	if err := checkDescriptors("manifests", index.Manifests); err != nil {
		return 0, fmt.Errorf("import images: %s: %w", ocispec.ImageIndexFile, err)
	}
	// It holds every blob until its image does.
	lease, err := r.stores.Leases.Create(ctx, leases.WithID("penstock-import-"+rand.Text()), leases.WithExpiration(leaseTime))
	if err != nil {
		return 0, fmt.Errorf("import images: %w", err)
	}
	defer func() { err = errors.Join(err, r.stores.Leases.Delete(ctx, lease)) }()
	for _, desc := range index.Manifests {
		name := desc.Annotations[ocispec.AnnotationRefName]
		ref, err := ParseReference(name)
		if err == nil {
			err = r.importImage(leases.WithLease(ctx, lease.ID), dir, ref, desc, false)
		}
		if err != nil {
			return images, fmt.Errorf("import image %q: %w", name, err)
		}
		images++
	}
	return images, nil
}

func (r *Registry) importImage(ctx context.Context, dir string, ref Reference, target ocispec.Descriptor, nested bool) error {
	file, err := os.Open(filepath.Join(dir, filepath.FromSlash(blobName(target.Digest))))
	if err != nil {
		return err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxManifest+1))
	if err != nil {
		return err
	}
	if target.Digest != digest.FromBytes(raw) {
		return fmt.Errorf("manifest %s: its content is not that", target.Digest)
	}
	m, err := parseManifest(raw, target.MediaType)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", target.Digest, err)
	}
	if m.index && nested {
		return errNested
	}
	for _, desc := range m.references() {
		if m.index && !inLayout(dir, desc.Digest) {
			continue // an image that was pulled is there for one platform only; that one is, is checked below
		}
		if m.index {
			err = r.importImage(ctx, dir, Reference{Host: ref.Host, Repository: ref.Repository, Digest: desc.Digest}, desc, true)
		} else {
			err = r.importBlob(ctx, dir, desc)
		}
		if err != nil {
			return err
		}
	}
	target.Annotations = nil
	if err := r.stores.checkReferences(ctx, m, true); err != nil {
		return err
	}
	return r.stores.keep(ctx, ref, m, target, raw, true, nil)
}

func inLayout(dir string, d digest.Digest) bool {
	_, err := os.Stat(filepath.Join(dir, filepath.FromSlash(blobName(d))))
	return err == nil
}

func (r *Registry) importBlob(ctx context.Context, dir string, desc ocispec.Descriptor) error {
	file, err := os.Open(filepath.Join(dir, filepath.FromSlash(blobName(desc.Digest))))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s: it is missing from the layout", desc.Digest)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	// The store computes the digest and refuses another; it returns at once when it has the blob.
	return content.WriteBlob(ctx, r.stores.Content, "penstock/import/"+desc.Digest.String(), file, ocispec.Descriptor{Digest: desc.Digest, Size: desc.Size})
}
