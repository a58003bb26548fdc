// Package appsecrets reads the secret values of apps and jobs: it finds the sealed values in the store and opens them.
package appsecrets

import (
	"context"
	"fmt"
	"slices"

	"penstock/internal/resource"
	"penstock/internal/seal"
	"penstock/internal/store"
)

// Reader reads secret values. It is safe for concurrent use.
type Reader struct {
	documents *store.Store
	box       *seal.Box
}

// New returns a Reader of the secrets in documents, which are sealed in box.
func New(documents *store.Store, box *seal.Box) *Reader {
	return &Reader{documents: documents, box: box}
}

// Keyring returns the sealed secrets of an app or a job, and the registries whose passwords are among them. The error
// wraps resource.ErrNotFound if there is no such app or job.
func (r *Reader) Keyring(ctx context.Context, id resource.ID) (resource.Keyring, error) {
	if id.Is(resource.TypeJob) {
		job, err := r.documents.Jobs().Get(ctx, id)
		return job.Keyring(), err
	}
	app, err := r.documents.Apps().Get(ctx, id)
	return app.Keyring(), err
}

// Values returns all secrets of an app or a job by name. Its containers get them when they start.
func (r *Reader) Values(ctx context.Context, id resource.ID) (map[string]resource.Secret, error) {
	keys, err := r.Keyring(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	all := map[string]resource.Secret{}
	for _, kept := range keys.Secrets {
		value, err := r.open(keys, kept)
		if err != nil {
			return nil, err
		}
		all[kept.Name] = value
	}
	return all, nil
}

// Value returns one secret of a keyring. The error wraps resource.ErrNotFound if the keyring has no secret of that
// name.
func (r *Reader) Value(keys resource.Keyring, name string) (resource.Secret, error) {
	at := slices.IndexFunc(keys.Secrets, func(s resource.AppSecret) bool { return s.Name == name })
	if at < 0 {
		return "", fmt.Errorf("secret %q of %s: %w", name, keys.Owner.Base(), resource.ErrNotFound)
	}
	return r.open(keys, keys.Secrets[at])
}

func (r *Reader) open(keys resource.Keyring, kept resource.AppSecret) (resource.Secret, error) {
	value, err := r.box.Open(kept.Purpose(keys.Owner), kept.Sealed)
	if err != nil {
		return "", fmt.Errorf("secret %q of %s: %w", kept.Name, keys.Owner.Base(), err)
	}
	return resource.Secret(value), nil
}
