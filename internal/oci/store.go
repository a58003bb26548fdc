package oci

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// read returns the content of a small blob. It uses the size in the store and not the size in the descriptor.
func (s Stores) read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	blob, err := s.Content.ReaderAt(ctx, ocispec.Descriptor{Digest: desc.Digest})
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	if blob.Size() > maxManifest {
		return nil, fmt.Errorf("%s: want at most %d bytes, got %d", desc.Digest, maxManifest, blob.Size())
	}
	raw := make([]byte, blob.Size())
	if n, err := blob.ReadAt(raw, 0); n < len(raw) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	return raw, nil
}

// manifest reads and parses a manifest that is in the store.
func (s Stores) manifest(ctx context.Context, desc ocispec.Descriptor) (manifest, error) {
	raw, err := s.read(ctx, desc)
	if err != nil {
		return manifest{}, err
	}
	m, err := parseManifest(raw, desc.MediaType)
	if err != nil {
		return manifest{}, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return m, nil
}

// names returns the names of the image records that ref means: the record of its tag, or all records of its repository
// that lead to its digest.
func (s Stores) names(ctx context.Context, ref Reference) ([]string, error) {
	if ref.Digest == "" {
		record, err := s.Images.Get(ctx, ref.storeName())
		if err != nil {
			return nil, ignoreNotFound(err)
		}
		return []string{record.Name}, nil
	}
	records, err := s.Images.List(ctx, "target.digest=="+ref.Digest.String())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, record := range records {
		if r, ok := fromStoreName(record.Name); ok && r.repository() == ref.repository() {
			names = append(names, record.Name)
		}
	}
	return names, nil
}

// listed finds the manifest with ref's digest in an index of ref's repository, or in an index within one. It returns the
// record of the outer index.
func (s Stores) listed(ctx context.Context, ref Reference) (child ocispec.Descriptor, in images.Image, ok bool, err error) {
	records, err := s.Images.List(ctx)
	if err != nil {
		return child, in, false, err
	}
	seen := map[digest.Digest]bool{}
	var find func(target ocispec.Descriptor) bool
	find = func(target ocispec.Descriptor) bool {
		if seen[target.Digest] || !images.IsIndexType(target.MediaType) {
			return false
		}
		seen[target.Digest] = true
		m, err := s.manifest(ctx, target)
		if err != nil {
			return false // this index is damaged or not here; the next one may not be
		}
		for _, c := range m.children {
			if c.Digest == ref.Digest {
				child = c
				return true
			}
		}
		return slices.ContainsFunc(m.children, find)
	}
	for _, record := range records {
		known, ours := fromStoreName(record.Name)
		if ours && known.repository() == ref.repository() && find(record.Target) {
			return child, record, true, nil
		}
	}
	return child, in, false, nil
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
