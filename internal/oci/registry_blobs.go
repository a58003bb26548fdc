package oci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blob serves GET and HEAD requests, with ranges.
func (r *Registry) blob(w http.ResponseWriter, req *http.Request, dgst string) error {
	d, err := parseDigest(dgst)
	if err != nil {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "%v", err)
	}
	blob, err := r.stores.Content.ReaderAt(req.Context(), ocispec.Descriptor{Digest: d})
	if err != nil {
		return orUnknown(err, "BLOB_UNKNOWN", "blob %s: not in this server's store", d)
	}
	defer blob.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", `"`+d.String()+`"`)
	http.ServeContent(w, req, "", time.Time{}, io.NewSectionReader(blob, 0, blob.Size()))
	return nil
}

// deleteBlob removes a blob that no image has. If a push relies on the blob, its manifest gets an error, and the client
// sends the blob again.
func (r *Registry) deleteBlob(w http.ResponseWriter, req *http.Request, dgst string) error {
	d, err := parseDigest(dgst)
	if err != nil {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "%v", err)
	}
	ctx := req.Context()
	if _, err := r.stores.Content.Info(ctx, d); err != nil {
		return orUnknown(err, "BLOB_UNKNOWN", "blob %s: not in this server's store", d)
	}
	records, err := r.stores.Images.List(ctx)
	if err != nil {
		return err
	}
	images := NewImages(r.stores)
	for _, record := range records {
		all := contents{blobs: map[digest.Digest]int64{}}
		if err := images.collect(ctx, record.Target, &all); err != nil {
			r.log.Debug("an image is not whole", "image", record.Name, "err", err)
		}
		if _, has := all.blobs[d]; has {
			name := record.Name
			if ref, ok := fromStoreName(name); ok {
				name = ref.String()
			}
			return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "blob %s is part of image %s; delete that", d, name)
		}
	}
	if err := r.stores.Content.Delete(ctx, d); err != nil {
		return orUnknown(err, "BLOB_UNKNOWN", "blob %s: not in this server's store", d)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// startUpload handles POST: a mount, a complete blob, or the start of an upload.
func (r *Registry) startUpload(w http.ResponseWriter, req *http.Request, repository string) error {
	ctx := req.Context()
	query := req.URL.Query()
	if from := query.Get("from"); from != "" {
		if err := checkRepository(from); err != nil {
			return err
		}
	}
	if mount := query.Get("mount"); mount != "" {
		d, err := parseDigest(mount)
		if err != nil {
			return refuse(http.StatusBadRequest, "DIGEST_INVALID", "%v", err)
		}
		mounted, err := r.mount(ctx, repository, d)
		if err != nil {
			return err
		}
		if mounted {
			blobCreated(w, repository, d)
			return nil
		}
	}
	var want digest.Digest
	if s := query.Get("digest"); s != "" {
		d, err := parseDigest(s)
		if err != nil {
			return refuse(http.StatusBadRequest, "DIGEST_INVALID", "%v", err)
		}
		want = d
	}
	u, err := r.uploads.start(ctx, repository)
	if err != nil {
		return err
	}
	defer r.uploads.release(u)
	if want == "" {
		uploadState(w, u)
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	if err := r.receive(w, req, u); err != nil {
		r.uploads.drop(ctx, u) // the client does not know its name
		return err
	}
	if err := r.uploads.commit(ctx, u, want); err != nil {
		return err
	}
	blobCreated(w, repository, want)
	return nil
}

// mount holds a blob from another repository for this repository's manifest, as if it had been uploaded.
func (r *Registry) mount(ctx context.Context, repository string, d digest.Digest) (bool, error) {
	if _, err := r.stores.Content.Info(ctx, d); err != nil {
		return false, ignoreNotFound(err)
	}
	lease, err := r.stores.Leases.Create(ctx, leases.WithID("penstock-mount-"+rand.Text()), leases.WithExpiration(leaseTime), leases.WithLabel(leaseLabel, repository))
	if err != nil {
		return false, fmt.Errorf("mount %s: %w", d, err)
	}
	err = r.stores.Leases.AddResource(ctx, lease, leases.Resource{ID: d.String(), Type: "content"})
	if err == nil {
		_, err = r.stores.Content.Info(ctx, d) // it may have been collected before the lease held it
	}
	if err != nil {
		return false, errors.Join(ignoreNotFound(err), r.stores.Leases.Delete(context.WithoutCancel(ctx), lease))
	}
	return true, nil
}

// upload returns the handlers for an upload that has begun.
func (r *Registry) upload(repository, id string) byMethod {
	with := func(handle func(w http.ResponseWriter, req *http.Request, u *upload) error) func(http.ResponseWriter, *http.Request) error {
		return func(w http.ResponseWriter, req *http.Request) error {
			u, err := r.uploads.resume(req.Context(), repository, id)
			if err != nil {
				return err
			}
			defer r.uploads.release(u)
			return handle(w, req, u)
		}
	}
	return byMethod{
		get: with(func(w http.ResponseWriter, _ *http.Request, u *upload) error {
			uploadState(w, u)
			w.WriteHeader(http.StatusNoContent)
			return nil
		}),
		patch: with(func(w http.ResponseWriter, req *http.Request, u *upload) error {
			if err := r.receive(w, req, u); err != nil {
				return err
			}
			uploadState(w, u)
			w.WriteHeader(http.StatusAccepted)
			return nil
		}),
		put: with(func(w http.ResponseWriter, req *http.Request, u *upload) error {
			want, err := parseDigest(req.URL.Query().Get("digest"))
			if err != nil {
				return refuse(http.StatusBadRequest, "DIGEST_INVALID", "%v", err)
			}
			if err := r.receive(w, req, u); err != nil {
				return err
			}
			if err := r.uploads.commit(req.Context(), u, want); err != nil {
				return err
			}
			blobCreated(w, repository, want)
			return nil
		}),
		delete: with(func(w http.ResponseWriter, req *http.Request, u *upload) error {
			r.uploads.drop(req.Context(), u)
			w.WriteHeader(http.StatusNoContent)
			return nil
		}),
	}
}

// receive appends the request's body to the upload. A Content-Range must start where the upload ends.
func (r *Registry) receive(w http.ResponseWriter, req *http.Request, u *upload) error {
	all := &patientReader{body: req.Body, control: http.NewResponseController(w)}
	body := io.Reader(all)
	begin := u.offset
	length := int64(-1)
	if s := req.Header.Get("Content-Range"); s != "" {
		first, last, err := parseChunkRange(s)
		if err != nil {
			return err
		}
		length = last - first + 1
		if req.ContentLength >= 0 && req.ContentLength != length {
			return refuse(http.StatusBadRequest, "SIZE_INVALID", "Content-Range %q: want Content-Length %d, got %d", s, length, req.ContentLength)
		}
		if first != begin {
			uploadState(w, u)
			return refuse(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "Content-Range: want a chunk from byte %d on, got %q", begin, s)
		}
		body = io.LimitReader(all, length)
	}
	if err := r.uploads.append(req.Context(), u, body); err != nil {
		return err
	}
	if length < 0 {
		return nil
	}
	if got := u.offset - begin; got != length {
		return refuse(http.StatusBadRequest, "SIZE_INVALID", "Content-Range: want %d bytes, got %d", length, got)
	}
	if n, _ := io.ReadFull(all, make([]byte, 1)); n > 0 { // a body without Content-Length
		return refuse(http.StatusBadRequest, "SIZE_INVALID", "Content-Range: want %d bytes, got more", length)
	}
	return nil
}

// parseChunkRange parses the Content-Range of a chunk. By the specification it is <first>-<last> and nothing else.
// HTTP's form "bytes 0-9/*" is also accepted, because clients send it.
func parseChunkRange(s string) (first, last int64, err error) {
	chunk, _, _ := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	from, to, ok := strings.Cut(chunk, "-")
	if ok {
		first, err = strconv.ParseInt(from, 10, 64)
		if err == nil {
			last, err = strconv.ParseInt(to, 10, 64)
		}
	}
	if !ok || err != nil || first < 0 || last < first || last-first+1 < 0 {
		return 0, 0, refuse(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "Content-Range: want FIRST-LAST in bytes, got %q", clip(s))
	}
	return first, last, nil
}

// patientReader sets a new time limit for each read of a body. A large upload can take long, but it must not stall.
type patientReader struct {
	body    io.Reader
	control *http.ResponseController
	set     time.Time
}

func (p *patientReader) Read(b []byte) (int, error) {
	// Setting the deadline at most once per second is exact enough, and cheaper than setting it for every read.
	if now := time.Now(); now.Sub(p.set) > time.Second {
		p.set = now
		_ = p.control.SetReadDeadline(now.Add(idleLimit)) // not every ResponseWriter supports it; then the server's own limits apply
	}
	n, err := p.body.Read(b)
	if err == io.EOF {
		_ = p.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

func uploadState(w http.ResponseWriter, u *upload) {
	h := w.Header()
	h.Set("Location", "/v2/"+u.repository+"/blobs/uploads/"+u.id)
	h.Set("Docker-Upload-Uuid", u.id)
	// The header cannot express an empty range. The distribution project uses 0-0 for it.
	h.Set("Range", "0-"+strconv.FormatInt(max(u.offset-1, 0), 10))
}

func blobCreated(w http.ResponseWriter, repository string, d digest.Digest) {
	h := w.Header()
	h.Set("Location", "/v2/"+repository+"/blobs/"+d.String())
	h.Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}
