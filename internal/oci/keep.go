package oci

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Labels of image records.
const (
	// namedLabel has the time when the name was set to its manifest.
	namedLabel = "penstock/named"
	// pulledLabel marks images that were pulled from another registry and can be pulled again. Its value is the time.
	pulledLabel = "penstock/pulled"
	// supersededLabel marks a record by digest for the previous manifest of a tag that was moved or deleted. Its value
	// is the time.
	supersededLabel = "penstock/superseded"
)

// keep stores a manifest and names it. Until the image record exists, a lease holds the manifest and, through its
// labels, everything that it refers to. So nothing can be collected between the check and the record. If partial is
// true the image must be complete for only one platform.
func (s Stores) keep(ctx context.Context, ref Reference, m manifest, target ocispec.Descriptor, raw []byte, partial bool, labels map[string]string) (err error) {
	lease, err := s.Leases.Create(ctx, leases.WithID("penstock-manifest-"+rand.Text()), leases.WithExpiration(leaseTime))
	if err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	defer func() {
		if lerr := s.Leases.Delete(ctx, lease); lerr != nil && err == nil {
			err = fmt.Errorf("store manifest: %w", lerr)
		}
	}()
	leased := leases.WithLease(ctx, lease.ID)
	held := m.gcLabels()
	if subject := labels[subjectLabel]; subject != "" {
		held[subjectLabel] = subject // for when an index keeps it, and it has no record of its own
	}
	if err := content.WriteBlob(leased, s.Content, "penstock/manifest/"+target.Digest.String(), bytes.NewReader(raw), target, content.WithLabels(held)); err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	if err := s.label(leased, target.Digest, held); err != nil {
		return err
	}
	if err := s.checkReferences(ctx, m, partial); err != nil {
		return err
	}
	if err := s.name(ctx, ref, target, labels); err != nil {
		return err
	}
	if m.index {
		// The images of the index were pushed by digest, and each got a record that kept it. Now the index keeps them.
		for _, child := range m.children {
			own := Reference{Host: ref.Host, Repository: ref.Repository, Digest: child.Digest}
			if err := ignoreNotFound(s.Images.Delete(ctx, own.storeName())); err != nil {
				return fmt.Errorf("name image %s: %w", ref, err)
			}
		}
	}
	return s.releaseUploads(ctx, append(m.references(), target))
}

// label adds missing labels to a manifest that was in the store already.
func (s Stores) label(ctx context.Context, dgst digest.Digest, labels map[string]string) error {
	info, err := s.Content.Info(ctx, dgst)
	if err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	var missing []string
	for key, value := range labels {
		if info.Labels[key] != value {
			missing = append(missing, "labels."+key)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := s.Content.Update(ctx, content.Info{Digest: dgst, Labels: labels}, missing...); err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	return nil
}

// name creates the image record, or sets it to its new manifest. The previous manifest is kept for a while by its
// digest, because a revision that is being created may have resolved the name to it.
func (s Stores) name(ctx context.Context, ref Reference, target ocispec.Descriptor, labels map[string]string) error {
	record := images.Image{Name: ref.storeName(), Target: target, Labels: map[string]string{namedLabel: stamp()}}
	maps.Copy(record.Labels, labels)
	old, err := s.Images.Get(ctx, record.Name)
	switch {
	case err == nil:
		if old.Target.Digest != target.Digest {
			if err := s.supersede(ctx, ref, old); err != nil {
				return err
			}
		}
		_, err = s.Images.Update(ctx, record, "target", "labels")
	case errdefs.IsNotFound(err):
		_, err = s.Images.Create(ctx, record)
	}
	if errdefs.IsAlreadyExists(err) { // another call created it meanwhile
		_, err = s.Images.Update(ctx, record, "target", "labels")
	} else if errdefs.IsNotFound(err) { // another call deleted it meanwhile
		_, err = s.Images.Create(ctx, record)
	}
	if err != nil {
		return fmt.Errorf("name image %s: %w", ref, err)
	}
	return nil
}

// remove removes the names that ref means. An image that a revision needs is kept by its digest.
func (s Stores) remove(ctx context.Context, ref Reference) (found bool, err error) {
	names, err := s.names(ctx, ref)
	if err != nil || len(names) == 0 {
		return false, err
	}
	needed := map[digest.Digest]bool{}
	if s.Needed != nil {
		if needed, err = s.Needed(ctx); err != nil {
			return false, err
		}
	}
	var opts []images.DeleteOpt
	if s.Freed == nil {
		opts = append(opts, images.SynchronousDelete())
	}
	for _, name := range names {
		record, err := s.Images.Get(ctx, name)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		if needed[record.Target.Digest] {
			if err := s.supersede(ctx, ref, record); err != nil {
				return false, err
			}
			if own := (Reference{Host: ref.Host, Repository: ref.Repository, Digest: record.Target.Digest}); own.storeName() == name {
				continue
			}
		}
		if err := ignoreNotFound(s.Images.Delete(ctx, name, opts...)); err != nil {
			return false, err
		}
	}
	if s.Freed != nil {
		s.Freed()
	}
	return true, nil
}

func stamp() string { return time.Now().UTC().Format(time.RFC3339) }

// named returns when a record's name was set to its manifest.
func named(record images.Image) time.Time {
	if at, err := time.Parse(time.RFC3339, record.Labels[namedLabel]); err == nil {
		return at
	}
	return record.UpdatedAt
}

// supersede creates a record by digest for the previous manifest of a tag.
func (s Stores) supersede(ctx context.Context, ref Reference, old images.Image) error {
	own := Reference{Host: ref.Host, Repository: ref.Repository, Digest: old.Target.Digest}
	labels := map[string]string{supersededLabel: stamp(), namedLabel: named(old).UTC().Format(time.RFC3339)}
	_, err := s.Images.Create(ctx, images.Image{Name: own.storeName(), Target: old.Target, Labels: labels})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("name image %s: %w", own, err)
	}
	return nil
}

// checkReferences finds the blobs of a manifest that are missing in the store or have another size. If an index may be
// partial, one complete image is enough.
func (s Stores) checkReferences(ctx context.Context, m manifest, partial bool) error {
	var missing error
	there := 0
	for _, desc := range m.references() {
		info, err := s.Content.Info(ctx, desc.Digest)
		if errdefs.IsNotFound(err) && !m.index && images.IsNonDistributable(desc.MediaType) {
			continue // who pulls the image gets such a layer from elsewhere
		}
		if err != nil {
			err = orUnknown(err, "MANIFEST_BLOB_UNKNOWN", "blob %s (%s): not in this server's store; push it before the manifest", desc.Digest, clip(desc.MediaType))
			if _, unknown := errors.AsType[*protocolError](err); unknown && m.index && partial {
				missing = err
				continue
			}
			return err
		}
		there++
		if info.Size != desc.Size {
			return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "blob %s: the manifest says %d bytes, it has %d", desc.Digest, desc.Size, info.Size)
		}
		if m.index && images.IsIndexType(desc.MediaType) {
			if err := s.checkNested(ctx, desc); err != nil {
				return err
			}
		}
	}
	if there == 0 && missing != nil {
		return missing
	}
	if m.index || !images.IsConfigType(m.config.MediaType) {
		return nil // the config of an artifact can be anything
	}
	if m.config.Size > maxManifest {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "config: want at most %d bytes, got %d", maxManifest, m.config.Size)
	}
	raw, err := s.read(ctx, m.config)
	if err != nil {
		return orUnknown(err, "MANIFEST_BLOB_UNKNOWN", "config %s: not in this server's store", m.config.Digest)
	}
	if _, err := parseConfig(raw, len(m.layers)); err != nil {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "config %s: %v", m.config.Digest, err)
	}
	return nil
}

// checkNested checks an index within an index.
func (s Stores) checkNested(ctx context.Context, desc ocispec.Descriptor) error {
	m, err := s.manifest(ctx, desc)
	if err != nil {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "%v", err)
	}
	if slices.ContainsFunc(m.children, func(d ocispec.Descriptor) bool { return images.IsIndexType(d.MediaType) }) {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "%s: %v", desc.Digest, errDeep)
	}
	return nil
}

// releaseUploads deletes the leases of uploaded blobs that a manifest now holds, so that they are removed with the
// image and not a day later. If another push relies on the same blob, has not sent its manifest yet, and the image is
// deleted before, that push gets MANIFEST_BLOB_UNKNOWN and sends the blob again.
func (s Stores) releaseUploads(ctx context.Context, held []ocispec.Descriptor) error {
	holds := make(map[string]bool, len(held))
	for _, desc := range held {
		holds[desc.Digest.String()] = true
	}
	waiting, err := s.Leases.List(ctx, `labels."`+leaseLabel+`"`)
	if err != nil {
		return fmt.Errorf("release uploads: %w", err)
	}
	for _, lease := range waiting {
		resources, err := s.Leases.ListResources(ctx, lease)
		if err != nil {
			if errdefs.IsNotFound(err) {
				continue
			}
			return fmt.Errorf("release uploads: %w", err)
		}
		if len(resources) == 0 || slices.ContainsFunc(resources, func(res leases.Resource) bool {
			return res.Type != "content" || !holds[res.ID]
		}) {
			continue // an upload in progress, or a blob of another image
		}
		if err := ignoreNotFound(s.Leases.Delete(ctx, lease)); err != nil {
			return fmt.Errorf("release uploads: %w", err)
		}
	}
	return nil
}
