package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifest returns the handlers for a manifest by tag or digest.
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
	} else if err := r.checkThere(ctx, ref); err != nil {
		return err
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
	_, _ = w.Write(raw) // fails only if the client has left
	return nil
}

// checkThere checks that a repository has a manifest with a digest. Other repositories can have it, and a manifest that
// was deleted stays in the store until it is collected.
func (r *Registry) checkThere(ctx context.Context, ref Reference) error {
	names, err := r.stores.names(ctx, ref)
	if err != nil || len(names) > 0 {
		return err
	}
	_, _, ok, err := r.stores.listed(ctx, ref)
	if err == nil && !ok {
		err = refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest %s: not in this server's store", ref)
	}
	return err
}

// manifestBlob reads a manifest. A blob that is not a manifest is reported as not found.
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
	subject, err := subjectOf(raw)
	if err != nil {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "%v", err)
	}
	dgst := digest.FromBytes(raw)
	if ref.Digest != "" && ref.Digest != dgst {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "want %s as in the path, got %s from the %d bytes that came", ref.Digest, dgst, len(raw))
	}
	if err := r.stores.checkReferences(ctx, m, false); err != nil {
		return err
	}
	// From here on the operation completes even if the client leaves.
	ctx = context.WithoutCancel(ctx)
	target := ocispec.Descriptor{MediaType: m.mediaType, Digest: dgst, Size: int64(len(raw))}
	labels := map[string]string{}
	if subject != "" {
		labels[subjectLabel] = subject.String()
		w.Header().Set("OCI-Subject", subject.String())
	}
	if err := r.stores.keep(ctx, ref, m, target, raw, false, labels); err != nil {
		return err
	}
	r.log.Info("image pushed", "image", ref.String(), "digest", dgst)
	h := w.Header()
	h.Set("Location", "/v2/"+ref.repository()+"/manifests/"+dgst.String())
	h.Set("Docker-Content-Digest", dgst.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

// deleteManifest removes a tag, or for a digest all names in the repository that lead to the manifest.
func (r *Registry) deleteManifest(w http.ResponseWriter, req *http.Request, ref Reference) error {
	found, err := r.stores.remove(req.Context(), ref)
	if err != nil {
		return fmt.Errorf("delete image %s: %w", ref, err)
	}
	if !found && ref.Digest != "" {
		if _, in, listed, err := r.stores.listed(req.Context(), ref); err != nil {
			return fmt.Errorf("delete image %s: %w", ref, err)
		} else if outer, ok := fromStoreName(in.Name); listed && ok {
			return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "manifest %s: it is part of %s; delete that", ref, outer)
		}
	}
	if !found {
		return refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest %s: not in this server's store", ref)
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
	return writeJSON(w, "application/json", map[string]any{"name": repository, "tags": tags})
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
	return writeJSON(w, "application/json", map[string]any{"repositories": repositories})
}

// page sorts names and returns the page that n and last ask for. It sets a Link header to the next page.
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

func writeJSON(w http.ResponseWriter, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // fails only if the client has left
	return nil
}
