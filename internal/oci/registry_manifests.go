package oci

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifest answers for a manifest by tag or digest.
func (r *Registry) manifest(repository, tagOrDigest string) byMethod {
	with := func(handle func(w http.ResponseWriter, req *http.Request, ref Reference) error) func(http.ResponseWriter, *http.Request) error {
		return func(w http.ResponseWriter, req *http.Request) error {
			ref, err := inRepository(repository, tagOrDigest)
			if err != nil {
				return err
			}
			return handle(w, req, ref)
		}
	}
	return byMethod{get: with(r.getManifest), put: with(r.putManifest), delete: with(r.deleteManifest)}
}

func (r *Registry) getManifest(w http.ResponseWriter, req *http.Request, ref Reference) error {
	ctx := req.Context()
	target := ocispec.Descriptor{Digest: ref.Digest}
	if ref.Digest == "" {
		record, err := r.stores.Images.Get(ctx, ref.storeName())
		if err != nil {
			return orUnknown(err, "MANIFEST_UNKNOWN", "manifest %s: not in this server's store", ref)
		}
		target = record.Target
	}
	raw, mediaType, err := r.manifestBlob(ctx, target)
	if err != nil {
		return orUnknown(err, "MANIFEST_UNKNOWN", "manifest %s: not in this server's store", ref)
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	h.Set("Docker-Content-Digest", target.Digest.String())
	h.Set("ETag", `"`+target.Digest.String()+`"`)
	_, _ = w.Write(raw) // the client has gone when this fails
	return nil
}

// manifestBlob reads a manifest; a blob that is none is not found.
func (r *Registry) manifestBlob(ctx context.Context, target ocispec.Descriptor) (raw []byte, mediaType string, err error) {
	info, err := r.stores.Content.Info(ctx, target.Digest)
	if err != nil {
		return nil, "", err
	}
	if info.Size > maxManifest {
		return nil, "", fmt.Errorf("manifest %s: %w", target.Digest, errdefs.ErrNotFound)
	}
	raw, err = r.stores.read(ctx, target)
	if err != nil {
		return nil, "", err
	}
	m, err := parseManifest(raw, target.MediaType)
	if err != nil {
		return nil, "", fmt.Errorf("manifest %s: %w", target.Digest, errdefs.ErrNotFound)
	}
	return raw, m.mediaType, nil
}

func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, ref Reference) error {
	ctx := req.Context()
	tooLarge := refuse(http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "want at most %d bytes", maxManifest)
	if req.ContentLength > maxManifest {
		return tooLarge
	}
	raw, err := io.ReadAll(io.LimitReader(&patientReader{body: req.Body, control: http.NewResponseController(w)}, maxManifest+1))
	if err != nil {
		return cutShort(err)
	}
	if len(raw) > maxManifest {
		return tooLarge
	}
	var mediaType string
	if s := req.Header.Get("Content-Type"); s != "" {
		if mediaType, _, err = mime.ParseMediaType(s); err != nil {
			return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "Content-Type: want a media type, got %q", clip(s))
		}
	}
	m, err := parseManifest(raw, mediaType)
	if err != nil {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "%v", err)
	}
	dgst := digest.FromBytes(raw)
	if ref.Digest != "" && ref.Digest != dgst {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "want %s as in the path, got %s from the %d bytes that came", ref.Digest, dgst, len(raw))
	}
	if err := r.checkReferences(ctx, m); err != nil {
		return err
	}
	// From here on a client that leaves does not stop what it asked for half-way.
	ctx = context.WithoutCancel(ctx)
	target := ocispec.Descriptor{MediaType: m.mediaType, Digest: dgst, Size: int64(len(raw))}
	if err := r.keep(ctx, ref, m, target, raw); err != nil {
		return err
	}
	r.log.Info("image pushed", "image", ref.String(), "digest", dgst)
	h := w.Header()
	h.Set("Location", "/v2/"+ref.repository()+"/manifests/"+dgst.String())
	h.Set("Docker-Content-Digest", dgst.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

// keep stores a manifest and names it. A lease of its own holds it, and by its labels all that it refers to, until
// the image record does; so nothing can be collected between the check and the record.
func (r *Registry) keep(ctx context.Context, ref Reference, m manifest, target ocispec.Descriptor, raw []byte) error {
	lease, err := r.stores.Leases.Create(ctx, leases.WithID("penstock-manifest-"+rand.Text()), leases.WithExpiration(leaseTime))
	if err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	var done []leases.DeleteOpt
	defer func() {
		if err := r.stores.Leases.Delete(ctx, lease, done...); err != nil {
			r.log.Warn("lease of a manifest stays until it expires", "image", ref.String(), "err", err)
		}
	}()
	leased := leases.WithLease(ctx, lease.ID)
	labels := m.gcLabels()
	if err := content.WriteBlob(leased, r.stores.Content, "penstock/manifest/"+target.Digest.String(), bytes.NewReader(raw), target, content.WithLabels(labels)); err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	if err := r.label(leased, target.Digest, labels); err != nil {
		return err
	}
	if err := r.checkReferences(ctx, m); err != nil {
		return err
	}
	replaced, err := r.name(ctx, ref, target)
	if err != nil {
		return err
	}
	if replaced {
		// Collect now what only the old manifest held: the collector would not come by itself for long.
		done = append(done, leases.SynchronousDelete)
	}
	if m.index {
		// Its images were pushed by digest, which gave each a record to keep it. Now the index keeps them.
		for _, child := range m.children {
			own := Reference{Host: ref.Host, Repository: ref.Repository, Digest: child.Digest}
			if err := ignoreNotFound(r.stores.Images.Delete(ctx, own.storeName())); err != nil {
				return fmt.Errorf("name image %s: %w", ref, err)
			}
		}
	}
	return r.releaseUploads(ctx, append(m.references(), target))
}

// label adds what is missing to a manifest that was in the store before, brought by whatever way.
func (r *Registry) label(ctx context.Context, dgst digest.Digest, labels map[string]string) error {
	info, err := r.stores.Content.Info(ctx, dgst)
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
	if _, err := r.stores.Content.Update(ctx, content.Info{Digest: dgst, Labels: labels}, missing...); err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	return nil
}

// name creates the image record or points it to its new manifest, and tells whether it had another one before.
func (r *Registry) name(ctx context.Context, ref Reference, target ocispec.Descriptor) (replaced bool, err error) {
	record := images.Image{Name: ref.storeName(), Target: target}
	old, err := r.stores.Images.Get(ctx, record.Name)
	switch {
	case err == nil:
		replaced = old.Target.Digest != target.Digest
		_, err = r.stores.Images.Update(ctx, record, "target")
	case errdefs.IsNotFound(err):
		_, err = r.stores.Images.Create(ctx, record)
	}
	if errdefs.IsAlreadyExists(err) { // created in between
		_, err = r.stores.Images.Update(ctx, record, "target")
	} else if errdefs.IsNotFound(err) { // deleted in between
		_, err = r.stores.Images.Create(ctx, record)
	}
	if err != nil {
		return false, fmt.Errorf("name image %s: %w", ref, err)
	}
	return replaced, nil
}

// checkReferences finds what a manifest refers to and the store has not, or has in another size.
func (r *Registry) checkReferences(ctx context.Context, m manifest) error {
	for _, desc := range m.references() {
		if m.index && images.IsIndexType(desc.MediaType) {
			return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "%s: %v", desc.Digest, errNested)
		}
		info, err := r.stores.Content.Info(ctx, desc.Digest)
		if err != nil {
			return orUnknown(err, "MANIFEST_BLOB_UNKNOWN", "blob %s (%s): not in this server's store; push it before the manifest", desc.Digest, clip(desc.MediaType))
		}
		if info.Size != desc.Size {
			return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "blob %s: the manifest says %d bytes, it has %d", desc.Digest, desc.Size, info.Size)
		}
	}
	if m.index || !images.IsConfigType(m.config.MediaType) {
		return nil // an artifact's config is its own affair
	}
	if m.config.Size > maxManifest {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "config: want at most %d bytes, got %d", maxManifest, m.config.Size)
	}
	raw, err := r.stores.read(ctx, m.config)
	if err != nil {
		return orUnknown(err, "MANIFEST_BLOB_UNKNOWN", "config %s: not in this server's store", m.config.Digest)
	}
	if _, err := parseConfig(raw, len(m.layers)); err != nil {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "config %s: %v", m.config.Digest, err)
	}
	return nil
}

// releaseUploads deletes the leases of uploads whose blobs a manifest holds from now on, so that they go when the
// image goes and not a day later. Another push that counts on the same blob and has not sent its manifest yet is
// told MANIFEST_BLOB_UNKNOWN if the image is deleted before; it then pushes that blob again.
func (r *Registry) releaseUploads(ctx context.Context, held []ocispec.Descriptor) error {
	holds := make(map[string]bool, len(held))
	for _, desc := range held {
		holds[desc.Digest.String()] = true
	}
	waiting, err := r.stores.Leases.List(ctx, `labels."`+leaseLabel+`"`)
	if err != nil {
		return fmt.Errorf("release uploads: %w", err)
	}
	for _, lease := range waiting {
		resources, err := r.stores.Leases.ListResources(ctx, lease)
		if err != nil {
			if errdefs.IsNotFound(err) {
				continue
			}
			return fmt.Errorf("release uploads: %w", err)
		}
		if len(resources) == 0 || slices.ContainsFunc(resources, func(res leases.Resource) bool {
			return res.Type != "content" || !holds[res.ID]
		}) {
			continue // an upload under way, or a blob of another image
		}
		if err := ignoreNotFound(r.stores.Leases.Delete(ctx, lease)); err != nil {
			return fmt.Errorf("release uploads: %w", err)
		}
	}
	return nil
}

// deleteManifest removes a tag, or by digest all names of the repository that lead to the manifest.
func (r *Registry) deleteManifest(w http.ResponseWriter, req *http.Request, ref Reference) error {
	names, err := r.stores.names(req.Context(), ref)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest %s: not in this server's store", ref)
	}
	for _, name := range names {
		if err := ignoreNotFound(r.stores.Images.Delete(req.Context(), name, images.SynchronousDelete())); err != nil {
			return fmt.Errorf("delete image %s: %w", ref, err)
		}
	}
	r.log.Info("image deleted", "image", ref.String())
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (r *Registry) tags(w http.ResponseWriter, req *http.Request, repository string) error {
	records, err := r.stores.Images.List(req.Context())
	if err != nil {
		return err
	}
	known := false
	tags := []string{}
	for _, record := range records {
		if ref, ok := fromStoreName(record.Name); ok && ref.repository() == repository {
			known = true
			if ref.Tag != "" {
				tags = append(tags, ref.Tag)
			}
		}
	}
	if !known {
		return refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository %q: not in this server's store", repository)
	}
	tags, err = page(w, req, tags)
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"name": repository, "tags": tags})
}

func (r *Registry) catalog(w http.ResponseWriter, req *http.Request) error {
	records, err := r.stores.Images.List(req.Context())
	if err != nil {
		return err
	}
	repositories := []string{}
	for _, record := range records {
		if ref, ok := fromStoreName(record.Name); ok {
			repositories = append(repositories, ref.repository())
		}
	}
	repositories, err = page(w, req, repositories)
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"repositories": repositories})
}

// page sorts names and cuts out what n and last ask for, with a Link to the rest.
func page(w http.ResponseWriter, req *http.Request, names []string) ([]string, error) {
	slices.Sort(names)
	names = slices.Compact(names)
	query := req.URL.Query()
	if last := query.Get("last"); last != "" {
		i, found := slices.BinarySearch(names, last)
		if found {
			i++
		}
		names = names[i:]
	}
	s := query.Get("n")
	if s == "" {
		return names, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return nil, refuse(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n: want 0 or more, got %q", clip(s))
	}
	if n >= len(names) {
		return names, nil
	}
	if n > 0 {
		query.Set("last", names[n-1])
		w.Header().Set("Link", "<"+req.URL.EscapedPath()+"?"+query.Encode()+`>; rel="next"`)
	}
	return names[:n], nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client has gone when this fails
	return nil
}
