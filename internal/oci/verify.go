package oci

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Damage is a blob that differs from its digest or is missing.
type Damage struct {
	Digest digest.Digest
	Fault  string
	Images []string // images that contain it
}

// Verified is the result of checking every blob.
type Verified struct {
	Blobs  int
	Bytes  int64
	Damage []Damage
}

// Verify reads every blob of every image and verifies its digest.
func (im *Images) Verify(ctx context.Context) (Verified, error) {
	ctx = inNamespace(ctx)
	found := Verified{Damage: []Damage{}}
	records, err := im.stores.Images.List(ctx)
	if err != nil {
		return found, fmt.Errorf("verify images: %w", err)
	}
	owners := map[digest.Digest][]string{}
	for _, record := range records {
		name := record.Name
		if ref, ok := fromStoreName(name); ok {
			name = ref.String()
		}
		for _, d := range im.parts(ctx, record.Target) {
			owners[d] = append(owners[d], name)
		}
	}
	for d, names := range owners {
		size, err := im.stores.verify(ctx, d)
		if ctx.Err() != nil {
			return found, fmt.Errorf("verify images: %w", context.Cause(ctx))
		}
		found.Blobs++
		found.Bytes += size
		if err != nil {
			slices.Sort(names)
			found.Damage = append(found.Damage, Damage{d, err.Error(), slices.Compact(names)})
		}
	}
	slices.SortFunc(found.Damage, func(a, b Damage) int { return cmp.Compare(a.Digest, b.Digest) })
	return found, nil
}

// parts returns the digests of everything that an image should have in this store, as far as its manifests can be read.
// A pulled index may have only some of its images here.
func (im *Images) parts(ctx context.Context, target ocispec.Descriptor) []digest.Digest {
	var all []digest.Digest
	seen := map[digest.Digest]bool{}
	add := func(d digest.Digest) bool {
		if seen[d] {
			return false
		}
		seen[d] = true
		all = append(all, d)
		return true
	}
	there := func(desc ocispec.Descriptor) bool {
		_, err := im.stores.Content.Info(ctx, desc.Digest)
		return !errdefs.IsNotFound(err)
	}
	var visit func(target ocispec.Descriptor)
	visit = func(target ocispec.Descriptor) {
		if !add(target.Digest) {
			return
		}
		m, err := im.stores.manifest(ctx, target)
		if err != nil {
			return
		}
		for _, desc := range m.references() {
			switch {
			case m.index && there(desc):
				visit(desc)
			case !m.index && (!images.IsNonDistributable(desc.MediaType) || there(desc)):
				add(desc.Digest)
			}
		}
	}
	visit(target)
	return all
}

// verify reads a blob to its end.
func (s Stores) verify(ctx context.Context, d digest.Digest) (size int64, err error) {
	blob, err := s.Content.ReaderAt(ctx, ocispec.Descriptor{Digest: d})
	if errdefs.IsNotFound(err) {
		return 0, errors.New("it is missing")
	}
	if err != nil {
		return 0, err
	}
	defer blob.Close()
	digester := digest.SHA256.Digester()
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	in := content.NewReader(blob)
	for {
		n, err := in.Read(*buf)
		digester.Hash().Write((*buf)[:n])
		size += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return size, err
		}
		if ctx.Err() != nil {
			return size, context.Cause(ctx)
		}
	}
	if got := digester.Digest(); got != d {
		return size, fmt.Errorf("its %d bytes have the digest %s", size, got)
	}
	return size, nil
}

// Drop removes damaged blobs, so that the next push or pull of an image with one of them brings it again. It brings
// nothing else, because the other blobs of these images are held for a day. The manifests are removed too, because a
// client that finds a manifest sends nothing.
func (im *Images) Drop(ctx context.Context, damage []Damage) error {
	ctx = inNamespace(ctx)
	gone := map[digest.Digest]bool{}
	for _, d := range damage {
		gone[d.Digest] = true
	}
	lease, err := im.stores.Leases.Create(ctx, leases.WithID("penstock-repair-"+rand.Text()), leases.WithExpiration(leaseTime), leases.WithLabel(leaseLabel, "repair"))
	if err != nil {
		return fmt.Errorf("drop damaged blobs: %w", err)
	}
	records, err := im.stores.Images.List(ctx)
	if err != nil {
		return fmt.Errorf("drop damaged blobs: %w", err)
	}
	for _, record := range records {
		parts := im.parts(ctx, record.Target)
		if !slices.ContainsFunc(parts, func(d digest.Digest) bool { return gone[d] }) {
			continue
		}
		for _, d := range parts {
			if gone[d] {
				continue
			}
			if m, err := im.stores.manifest(ctx, ocispec.Descriptor{Digest: d}); err == nil && (m.index || slices.ContainsFunc(m.references(), func(r ocispec.Descriptor) bool { return gone[r.Digest] })) {
				gone[d] = true
				continue
			}
			if err := ignoreNotFound(im.stores.Leases.AddResource(ctx, lease, leases.Resource{ID: d.String(), Type: "content"})); err != nil {
				return fmt.Errorf("drop damaged blobs: %w", err)
			}
		}
	}
	for d := range gone {
		if err := ignoreNotFound(im.stores.Content.Delete(ctx, d)); err != nil {
			return fmt.Errorf("drop blob %s: %w", d, err)
		}
	}
	return nil
}
