package oci

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
)

// Registry is an http.Handler for the OCI distribution specification 1.1 under /v2/. The server authorizes requests
// before they reach it.
//
// A repository is only a name: every blob in the store is available in every repository. Blobs that no image refers to
// are removed automatically. Blobs of an image cannot be deleted on their own.
type Registry struct {
	stores  Stores
	uploads *uploads
	log     *slog.Logger
}

// NewRegistry returns a registry that uses stores. The caller must call Close when no request is left.
func NewRegistry(stores Stores, log *slog.Logger) *Registry {
	return &Registry{stores: stores, uploads: newUploads(stores), log: log}
}

// Close closes the uploads that wait for their next chunk. A later Registry can resume them.
func (r *Registry) Close() { r.uploads.close() }

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	req = req.WithContext(inNamespace(req.Context()))
	err := r.serve(w, req)
	if err == nil {
		return
	}
	answer := fault(err)
	if answer.Status >= http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		r.log.Error("registry request failed", "method", req.Method, "path", req.URL.Path, "status", answer.Status, "err", err)
	}
	answer.write(w)
}

// serve finds the handler. Repository names contain slashes, so it parses the path from the end.
func (r *Registry) serve(w http.ResponseWriter, req *http.Request) error {
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	switch {
	case req.URL.Path == "/v2" || ok && path == "":
		return byMethod{get: r.version}.serve(w, req)
	case !ok:
		return refuse(http.StatusNotFound, "UNSUPPORTED", "want a path under /v2/, got %q", clip(req.URL.Path))
	case path == "_catalog":
		return byMethod{get: r.catalog}.serve(w, req)
	}
	parts := strings.Split(path, "/")
	last := func(i int) string { // counted from the end
		if i < len(parts) {
			return parts[len(parts)-1-i]
		}
		return ""
	}
	name := func(rest int) (string, error) {
		repository := strings.Join(parts[:max(len(parts)-rest, 0)], "/")
		return repository, checkRepository(repository)
	}
	switch {
	case last(2) == "blobs" && last(1) == "uploads" && last(0) != "":
		repository, err := name(3)
		if err != nil {
			return err
		}
		return r.upload(repository, last(0)).serve(w, req)
	case last(2) == "blobs" && last(1) == "uploads" || last(1) == "blobs" && last(0) == "uploads":
		repository, err := name(2)
		if last(0) == "" {
			repository, err = name(3)
		}
		if err != nil {
			return err
		}
		return byMethod{post: func(w http.ResponseWriter, req *http.Request) error {
			return r.startUpload(w, req, repository)
		}}.serve(w, req)
	case last(1) == "blobs":
		_, err := name(2)
		if err != nil {
			return err
		}
		return byMethod{
			get:    func(w http.ResponseWriter, req *http.Request) error { return r.blob(w, req, last(0)) },
			delete: func(w http.ResponseWriter, req *http.Request) error { return r.deleteBlob(w, req, last(0)) },
		}.serve(w, req)
	case last(1) == "referrers":
		repository, err := name(2)
		if err != nil {
			return err
		}
		return byMethod{get: func(w http.ResponseWriter, req *http.Request) error {
			return r.referrers(w, req, repository, last(0))
		}}.serve(w, req)
	case last(1) == "manifests":
		repository, err := name(2)
		if err != nil {
			return err
		}
		return r.manifest(repository, last(0)).serve(w, req)
	case last(1) == "tags" && last(0) == "list":
		repository, err := name(2)
		if err != nil {
			return err
		}
		return byMethod{get: func(w http.ResponseWriter, req *http.Request) error {
			return r.tags(w, req, repository)
		}}.serve(w, req)
	}
	return refuse(http.StatusNotFound, "UNSUPPORTED", "no such route: %q", clip(req.URL.Path))
}

// byMethod has the handlers of a route. get serves HEAD too.
type byMethod struct {
	get, post, put, patch, delete func(http.ResponseWriter, *http.Request) error
}

func (m byMethod) serve(w http.ResponseWriter, req *http.Request) error {
	handlers := map[string]func(http.ResponseWriter, *http.Request) error{
		http.MethodGet: m.get, http.MethodHead: m.get, http.MethodPost: m.post,
		http.MethodPut: m.put, http.MethodPatch: m.patch, http.MethodDelete: m.delete,
	}
	handle := handlers[req.Method]
	if handle == nil {
		return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "%s is not supported here", req.Method)
	}
	return handle(w, req)
}

func (r *Registry) version(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("{}")) // fails only if the client has left
	return nil
}

func checkRepository(name string) error {
	_, repository := splitHost(name)
	if len(name) > maxRepository || !repositoryGrammar.MatchString(repository) || !repositoryGrammar.MatchString(name) {
		return refuse(http.StatusBadRequest, "NAME_INVALID",
			"repository %q: want parts of lower-case letters and digits, joined inside by . _ __ or -, with / between parts, at most %d characters", clip(name), maxRepository)
	}
	return nil
}

// inRepository returns the reference of a tag or digest in a repository whose name has been checked.
func inRepository(repository, tagOrDigest string) (Reference, error) {
	var ref Reference
	ref.Host, ref.Repository = splitHost(repository)
	if strings.Contains(tagOrDigest, ":") {
		d, err := parseDigest(tagOrDigest)
		if err != nil {
			return Reference{}, refuse(http.StatusBadRequest, "DIGEST_INVALID", "%v", err)
		}
		ref.Digest = d
		return ref, nil
	}
	if !tagGrammar.MatchString(tagOrDigest) {
		return Reference{}, refuse(http.StatusBadRequest, "TAG_INVALID",
			"tag: want 1 to 128 letters, digits and . _ - beginning with a letter, digit or _, got %q", clip(tagOrDigest))
	}
	ref.Tag = tagOrDigest
	return ref, nil
}

// orUnknown converts containerd's "not found" to a registry error.
func orUnknown(err error, code, format string, args ...any) error {
	if errdefs.IsNotFound(err) {
		return refuse(http.StatusNotFound, code, format, args...)
	}
	return err
}
