package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"penstock/internal/oci"
	"penstock/internal/oci/remote"
	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/store"
)

// Registries says how registries of others are reached.
type Registries struct {
	Insecure []string            // spoken to over plain http
	Mirrors  map[string][]string // asked before the registry
	CA       string              // file of certificates that are trusted beside the system's; "": none
}

func (r Registries) client(o ControlOptions) (*remote.Client, error) {
	cfg := remote.Config{Insecure: r.Insecure, Mirrors: r.Mirrors, Proxy: http.ProxyFromEnvironment, Log: o.Log}
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

// diskSpare is what pulls leave of a disk, for the database and logs on it.
const diskSpare = 1 << 30

// freeOn tells what pulls may fill of the disk that a folder is on.
func freeOn(dir string) func() (int64, error) {
	return func() (int64, error) {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return 0, fmt.Errorf("space on the disk of %s: %w", dir, err)
		}
		return max(int64(s.Bavail)*s.Bsize-diskSpare, 0), nil
	}
}

// login is what a keyring has for the registry of an image.
func (m *machine) login(keys resource.Keyring, image string) (remote.Login, error) {
	ref, err := oci.ParseReference(image)
	if err != nil || ref.Host == "" {
		return remote.Login{}, err
	}
	for _, registry := range keys.Registries {
		if registry.Username == "" || remote.Host(registry.Server) != remote.Host(ref.Host) {
			continue
		}
		at := slices.IndexFunc(keys.Secrets, func(s resource.AppSecret) bool { return s.Name == registry.PasswordSecretRef })
		if at < 0 {
			return remote.Login{}, fmt.Errorf("password for %s: secret %q of %s: %w", registry.Server, registry.PasswordSecretRef, keys.Owner.Base(), resource.ErrNotFound)
		}
		password, err := m.box.Open(keys.Secrets[at].Purpose(keys.Owner), keys.Secrets[at].Sealed)
		if err != nil {
			return remote.Login{}, fmt.Errorf("password for %s: %w", registry.Server, err)
		}
		return remote.NewLogin(registry.Username, password), nil
	}
	return remote.Login{}, nil
}

// Digest says which image a reference means now.
func (m *machine) Digest(ctx context.Context, keys resource.Keyring, ref string) (string, error) {
	if m.puller == nil {
		image, err := m.driver.Image(ctx, ref)
		if errors.Is(err, local.ErrImageNotFound) {
			err = missing{err}
		}
		return image.Digest, err
	}
	login, err := m.login(keys, ref)
	if err != nil {
		return "", err
	}
	digest, err := m.puller.Resolve(ctx, ref, login)
	if errors.Is(err, oci.ErrNotFound) {
		err = missing{err}
	}
	return digest.String(), err
}

// fetch brings an image of an app or a job here.
func (m *machine) fetch(documents *store.Store) func(ctx context.Context, app resource.ID, image string) (int64, error) {
	if m.puller == nil {
		return nil
	}
	return func(ctx context.Context, id resource.ID, image string) (int64, error) {
		keys, err := keyring(ctx, documents, id)
		if err != nil && !errors.Is(err, resource.ErrNotFound) {
			return 0, err
		}
		login, err := m.login(keys, image)
		if err != nil {
			return 0, err
		}
		_, moved, err := m.puller.Pull(ctx, image, login)
		switch {
		case errors.Is(err, remote.ErrUnauthorized):
			err = fmt.Errorf("%w, %w: %w", local.ErrImageNotFound, local.ErrImageUnauthorized, err)
		case errors.Is(err, oci.ErrNotFound), errors.Is(err, oci.ErrPlatform):
			err = fmt.Errorf("%w: %w", local.ErrImageNotFound, err)
		}
		return moved.Wire, err
	}
}

// neededImages are those that revisions may start replicas of, active or kept to be activated again; those of executions
// that are under way, and of the last of each job, whose next one most likely wants the same.
func neededImages(documents *store.Store) func(ctx context.Context) (map[digest.Digest]bool, error) {
	return func(ctx context.Context) (map[digest.Digest]bool, error) {
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
			for _, d := range e.Revision.Images {
				needed[digest.Digest(d)] = true
			}
		}
		return needed, nil
	}
}

// repair drops damaged blobs and pulls the images that had them, with the logins of the apps that name their registry.
func (m *machine) repair(ctx context.Context, documents *store.Store, damage []oci.Damage) (repaired []string, left map[string]string, err error) {
	repaired, left = []string{}, map[string]string{}
	images := map[string]bool{}
	if err := m.images.Drop(ctx, damage); err != nil {
		return repaired, left, err
	}
	for _, d := range damage {
		for _, name := range d.Images {
			images[name] = true
		}
	}
	// Only when nobody holds the damaged file any more does another one take its place.
	if err := m.collector.Collect(ctx); err != nil {
		return repaired, left, err
	}
	apps, err := documents.Apps().List(ctx, store.Scope{})
	if err != nil {
		return repaired, left, err
	}
	for _, name := range slices.Sorted(maps.Keys(images)) {
		ref, err := oci.ParseReference(name)
		if err != nil || ref.Host == "" {
			left[name] = "push it again"
			continue
		}
		err = nil
		logins := map[remote.Login]bool{{}: true}
		for _, app := range apps {
			if login, err := m.login(app.Keyring(), name); err == nil {
				logins[login] = true
			}
		}
		for login := range logins {
			if _, _, err = m.puller.Pull(ctx, name, login); err == nil {
				break
			}
		}
		if err != nil {
			left[name] = err.Error()
			continue
		}
		repaired = append(repaired, name)
	}
	return repaired, left, nil
}
