package oci

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Import imports the images of an OCI image layout in a folder into the store, under the names in its index. It skips
// blobs that the store has.
func (r *Registry) Import(ctx context.Context, dir string) (images int, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return 0, fmt.Errorf("import images: %w", err)
	}
	err = r.stores.loading(inNamespace(ctx), func(ctx context.Context) error {
		l := &loader{stores: r.stores, folder: dir}
		names, err := l.index(ctx, raw, "")
		images = len(names)
		return err
	})
	if err != nil {
		return images, fmt.Errorf("import images: %w", err)
	}
	return images, nil
}

// maxLayoutFiles is the maximum number of files in an archive of a layout. It is more than the blobs of all images on a
// machine.
const maxLayoutFiles = 100_000

// Load imports the images of an OCI image layout from a tar archive, with its files in any order, and returns their
// names. If as is not empty the layout must have one image, which gets that name. Otherwise the names are those in the
// index.
func (r *Registry) Load(ctx context.Context, archive io.Reader, as string) (names []string, err error) {
	err = r.stores.loading(inNamespace(ctx), func(ctx context.Context) error {
		index, err := r.stores.loadBlobs(ctx, archive)
		if err != nil {
			return err
		}
		names, err = (&loader{stores: r.stores}).index(ctx, index, as)
		return err
	})
	if err != nil {
		return names, fmt.Errorf("load images: %w", ownFault(err))
	}
	return names, nil
}

// loading calls load with a lease that holds every blob until an image does.
func (s Stores) loading(ctx context.Context, load func(context.Context) error) (err error) {
	lease, err := s.Leases.Create(ctx, leases.WithID("penstock-import-"+rand.Text()), leases.WithExpiration(leaseTime))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Leases.Delete(context.WithoutCancel(ctx), lease)) }()
	return load(leases.WithLease(ctx, lease.ID))
}

// loadBlobs writes the blobs of a layout to the store and returns the layout's index.
func (s Stores) loadBlobs(ctx context.Context, archive io.Reader) (index []byte, err error) {
	in := tar.NewReader(archive)
	for n := 0; ; n++ {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("want a tar archive: %w", err)
		}
		if n == maxLayoutFiles {
			return nil, fmt.Errorf("want a layout of at most %d files, got more", maxLayoutFiles)
		}
		name := strings.TrimPrefix(h.Name, "./")
		switch hex, isBlob := strings.CutPrefix(name, ocispec.ImageBlobsDir+"/sha256/"); {
		case h.Typeflag != tar.TypeReg:
		case name == ocispec.ImageIndexFile:
			if index, err = io.ReadAll(io.LimitReader(in, maxManifest+1)); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if len(index) > maxManifest {
				return nil, fmt.Errorf("%s: want at most %d bytes, got more", name, maxManifest)
			}
		case isBlob:
			d, err := parseDigest("sha256:" + hex)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", clip(name), err)
			}
			if err := s.loadBlob(ctx, in, ocispec.Descriptor{Digest: d, Size: h.Size}); err != nil {
				return nil, err
			}
		}
	}
	if index == nil {
		return nil, fmt.Errorf("want an OCI image layout with an %s, got none; \"docker save\" makes one from Docker 25 on", ocispec.ImageIndexFile)
	}
	return index, nil
}

func (s Stores) loadBlob(ctx context.Context, from io.Reader, desc ocispec.Descriptor) error {
	// The store verifies the digest. It returns at once if it has the blob.
	err := content.WriteBlob(ctx, s.Content, "penstock/import/"+desc.Digest.String(), from, desc)
	if errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("blob %s: its content is not that: %w", desc.Digest, err)
	}
	return err
}

// loader creates images from the blobs of a layout.
type loader struct {
	stores Stores
	folder string // the layout's folder; empty if the blobs are in the store already
}

// index creates the images in an index.
func (l *loader) index(ctx context.Context, raw []byte, as string) (names []string, err error) {
	var index struct {
		Manifests descriptors `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	if err := checkDescriptors("manifests", index.Manifests); err != nil {
		return nil, fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	if as != "" && len(index.Manifests) != 1 {
		return nil, fmt.Errorf("want a layout of one image to give it the name %q, got %d images", as, len(index.Manifests))
	}
	for _, desc := range index.Manifests {
		name := as
		if name == "" {
			name = desc.Annotations[ocispec.AnnotationRefName]
			// Docker and containerd write only the tag to the standard annotation.
			if whole := desc.Annotations["io.containerd.image.name"]; whole != "" {
				name = whole
			}
		}
		ref, err := l.stores.reference(name)
		if err == nil {
			err = l.image(ctx, ref, desc, 0)
		}
		if err != nil {
			return names, fmt.Errorf("image %q: %w", clip(name), err)
		}
		names = append(names, ref.String())
	}
	return names, nil
}

// manifest reads a manifest of the layout.
func (l *loader) manifest(ctx context.Context, target ocispec.Descriptor) ([]byte, error) {
	if l.folder == "" {
		return l.stores.read(ctx, target)
	}
	file, err := os.Open(l.path(target.Digest))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxManifest+1))
}

func (l *loader) path(d digest.Digest) string {
	return filepath.Join(l.folder, filepath.FromSlash(blobName(d)))
}

// has reports whether the layout has a blob.
func (l *loader) has(ctx context.Context, d digest.Digest) bool {
	if l.folder == "" {
		_, err := l.stores.Content.Info(ctx, d)
		return err == nil
	}
	_, err := os.Stat(l.path(d))
	return err == nil
}

// blob makes sure that the store has a blob of the layout.
func (l *loader) blob(ctx context.Context, desc ocispec.Descriptor) error {
	if l.folder == "" {
		return nil // checked with the other parts of the image
	}
	file, err := os.Open(l.path(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s: it is missing from the layout", desc.Digest)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	return l.stores.loadBlob(ctx, file, ocispec.Descriptor{Digest: desc.Digest, Size: desc.Size})
}

func (l *loader) image(ctx context.Context, ref Reference, target ocispec.Descriptor, level int) error {
	raw, err := l.manifest(ctx, target)
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
	if m.index && level > 1 {
		return errDeep
	}
	for _, desc := range m.references() {
		if m.index && !l.has(ctx, desc.Digest) {
			continue // a pulled image has only one platform, whose manifest is checked below
		}
		if m.index {
			err = l.image(ctx, Reference{Host: ref.Host, Repository: ref.Repository, Digest: desc.Digest}, desc, level+1)
		} else {
			if images.IsNonDistributable(desc.MediaType) && !l.has(ctx, desc.Digest) {
				continue
			}
			err = l.blob(ctx, desc)
		}
		if err != nil {
			return err
		}
	}
	if err := l.stores.checkReferences(ctx, m, true); err != nil {
		return err
	}
	labels := map[string]string{}
	if subject, err := subjectOf(raw); err == nil && subject != "" {
		labels[subjectLabel] = subject.String()
	}
	target = ocispec.Descriptor{MediaType: m.mediaType, Digest: target.Digest, Size: int64(len(raw))}
	return l.stores.keep(ctx, ref, m, target, raw, true, labels)
}

// Save writes the images with these names, or all images, as an OCI image layout in a tar archive.
func (im *Images) Save(ctx context.Context, w io.Writer, names ...string) error {
	out := tar.NewWriter(w)
	err := im.export(ctx, func(name string, size int64, content io.Reader) error {
		if err := out.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err := io.Copy(out, content)
		return err
	}, names)
	if err != nil {
		return err
	}
	return out.Close()
}
