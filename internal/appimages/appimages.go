// Package appimages pulls images of apps and jobs into this server's store. It adds to package oci what oci does not
// know: which registry credentials an app or a job has, and which images revisions and executions still need.
package appimages

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"penstock/internal/appsecrets"
	"penstock/internal/oci"
	"penstock/internal/oci/remote"
	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/store"
)

// Registries configures how other registries are reached.
type Registries struct {
	Insecure []string            // reached over plain http
	Mirrors  map[string][]string // tried before the registry
	CA       string              // file of certificates that are trusted in addition to the system's; empty: none
}

// Client returns a client of these registries.
func (r Registries) Client(log *slog.Logger) (*remote.Client, error) {
	cfg := remote.Config{Insecure: r.Insecure, Mirrors: r.Mirrors, Proxy: http.ProxyFromEnvironment, Log: log}
	if r.CA != "" {
		pem, err := os.ReadFile(r.CA)
		if err != nil {
			return nil, fmt.Errorf("registry-ca: %w", err)
		}
		if cfg.Roots, err = x509.SystemCertPool(); err != nil {
			cfg.Roots = x509.NewCertPool()
		}
		if !cfg.Roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("registry-ca: %s: want certificates in PEM, got none", r.CA)
		}
	}
	return remote.New(cfg), nil
}

// Config has what Images needs. All fields are required.
type Config struct {
	Store     *oci.Images
	Puller    *oci.Puller
	Collector *oci.Collector
	Secrets   *appsecrets.Reader
	Documents *store.Store
}

// Images pulls images with the registry credentials of the apps and jobs that use them. It is safe for concurrent use.
type Images struct{ cfg Config }

// New returns the images of apps and jobs.
func New(cfg Config) *Images { return &Images{cfg} }

// login returns the credentials for an image's registry from a keyring, or zero credentials if it has none.
func (i *Images) login(keys resource.Keyring, image string) (remote.Login, error) {
	ref, err := oci.ParseReference(image)
	if err != nil || ref.Host == "" {
		return remote.Login{}, err
	}
	for _, registry := range keys.Registries {
		if registry.Username == "" || remote.Host(registry.Server) != remote.Host(ref.Host) {
			continue
		}
		password, err := i.cfg.Secrets.Value(keys, registry.PasswordSecretRef)
		if err != nil {
			return remote.Login{}, fmt.Errorf("password for %s: %w", registry.Server, err)
		}
		return remote.NewLogin(registry.Username, password.Reveal()), nil
	}
	return remote.Login{}, nil
}

// Digest returns the digest that an image reference currently means. The error wraps resource.ErrNotFound if there is
// no such image.
func (i *Images) Digest(ctx context.Context, keys resource.Keyring, ref string) (string, error) {
	login, err := i.login(keys, ref)
	if err != nil {
		return "", err
	}
	digest, err := i.cfg.Puller.Resolve(ctx, ref, login)
	if errors.Is(err, oci.ErrNotFound) {
		err = Missing(err)
	}
	return digest.String(), err
}

// Missing returns err in a form that wraps resource.ErrNotFound and has the same text.
func Missing(err error) error { return missing{err} }

type missing struct{ error }

func (missing) Is(target error) bool { return target == resource.ErrNotFound }

func (m missing) Unwrap() error { return m.error }

// Fetch pulls an image of an app or a job unless it is in the store, and returns the number of bytes received over the
// network. The error wraps local.ErrImageNotFound if the image is not available, and also local.ErrImageUnauthorized if
// the registry refuses access to it.
func (i *Images) Fetch(ctx context.Context, id resource.ID, image string) (int64, error) {
	keys, err := i.cfg.Secrets.Keyring(ctx, id)
	if err != nil && !errors.Is(err, resource.ErrNotFound) {
		return 0, err
	}
	login, err := i.login(keys, image)
	if err != nil {
		return 0, err
	}
	_, moved, err := i.cfg.Puller.Pull(ctx, image, login)
	switch {
	case errors.Is(err, remote.ErrUnauthorized):
		err = fmt.Errorf("%w, %w: %w", local.ErrImageNotFound, local.ErrImageUnauthorized, err)
	case errors.Is(err, oci.ErrNotFound), errors.Is(err, oci.ErrPlatform):
		err = fmt.Errorf("%w: %w", local.ErrImageNotFound, err)
	}
	return moved.Wire, err
}

// Needed returns the images that must be kept: those of all revisions, because inactive ones may be activated again;
// those of running executions; and those of each job's last execution, because the next one most likely uses the same.
func Needed(ctx context.Context, documents *store.Store) (map[digest.Digest]bool, error) {
	revisions, err := documents.Revisions().List(ctx, store.Scope{})
	if err != nil {
		return nil, fmt.Errorf("images that revisions need: %w", err)
	}
	needed := map[digest.Digest]bool{}
	for _, rev := range revisions {
		for _, d := range rev.Images {
			needed[digest.Digest(d)] = true
		}
	}
	executions, err := documents.Executions().List(ctx, store.Scope{})
	if err != nil {
		return nil, fmt.Errorf("images that executions need: %w", err)
	}
	last := map[string]resource.Execution{}
	for _, e := range executions {
		if job := e.Job().Key(); !e.Created.Before(last[job].Created) {
			last[job] = e
		}
	}
	for _, e := range executions {
		if e.Over() && last[e.Job().Key()].ID != e.ID {
			continue
		}
		for _, d := range e.Images {
			needed[digest.Digest(d)] = true
		}
	}
	return needed, nil
}

// Repair removes damaged blobs and pulls the affected images again. It tries the credentials of every app and job for
// the registry in turn. left says for each image that is still damaged why, or what to do.
func (i *Images) Repair(ctx context.Context, damage []oci.Damage) (repaired []string, left map[string]string, err error) {
	repaired, left = []string{}, map[string]string{}
	if err := i.cfg.Store.Drop(ctx, damage); err != nil {
		return repaired, left, err
	}
	// The damaged file must be removed before a good one can take its place.
	if err := i.cfg.Collector.Collect(ctx); err != nil {
		return repaired, left, err
	}
	keyrings, err := i.keyrings(ctx)
	if err != nil {
		return repaired, left, err
	}
	images := map[string]bool{}
	for _, d := range damage {
		for _, name := range d.Images {
			images[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(images)) {
		ref, err := oci.ParseReference(name)
		if err != nil || ref.Host == "" {
			left[name] = "push it again"
			continue
		}
		if err := i.pullAgain(ctx, keyrings, name); err != nil {
			left[name] = err.Error()
			continue
		}
		repaired = append(repaired, name)
	}
	return repaired, left, nil
}

func (i *Images) keyrings(ctx context.Context) ([]resource.Keyring, error) {
	apps, err := i.cfg.Documents.Apps().List(ctx, store.Scope{})
	if err != nil {
		return nil, err
	}
	jobs, err := i.cfg.Documents.Jobs().List(ctx, store.Scope{})
	if err != nil {
		return nil, err
	}
	var all []resource.Keyring
	for _, app := range apps {
		all = append(all, app.Keyring())
	}
	for _, job := range jobs {
		all = append(all, job.Keyring())
	}
	return all, nil
}

// pullAgain pulls an image, first without credentials and then with each of the keyrings, until one succeeds.
func (i *Images) pullAgain(ctx context.Context, keyrings []resource.Keyring, name string) error {
	logins := []remote.Login{{}}
	for _, keys := range keyrings {
		if login, err := i.login(keys, name); err == nil && !slices.Contains(logins, login) {
			logins = append(logins, login)
		}
	}
	var err error
	for _, login := range logins {
		if _, _, err = i.cfg.Puller.Pull(ctx, name, login); err == nil {
			return nil
		}
	}
	return err
}

// Importer imports the images of an OCI image layout in a folder into the store.
type Importer interface {
	Import(ctx context.Context, dir string) (images int, err error)
}

// TakeRestored imports the images that a restored backup left in a folder, and removes the folder. If that fails the
// folder stays for the next start, and apps that need one of the images report it as missing.
func TakeRestored(ctx context.Context, dir string, into Importer, log *slog.Logger) {
	if _, err := os.Stat(dir); err != nil {
		return
	}
	began := time.Now()
	n, err := into.Import(ctx, dir)
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		log.Error("images of a restored backup cannot be taken; trying again at the next start", "dir", dir, "taken", n, "err", err)
		return
	}
	log.Info("images of a restored backup taken", "images", n, "took", time.Since(began).Round(time.Millisecond))
}
