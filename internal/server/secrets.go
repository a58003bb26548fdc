package server

import (
	"context"
	"fmt"
	"path/filepath"

	"penstock/internal/pki"
	"penstock/internal/resource"
	"penstock/internal/seal"
	"penstock/internal/store"
)

// openBox opens what secret values are sealed in. Its key lies beside the database, so that a copy of the database
// alone tells none.
func openBox(data string) (*seal.Box, error) {
	key, err := pki.KeyFile(filepath.Join(data, "secrets.key"))
	if err != nil {
		return nil, err
	}
	return seal.New(key)
}

// secrets finds the values that containers get when they start.
type secrets struct {
	documents *store.Store
	box       *seal.Box
}

func (s secrets) values(ctx context.Context, id resource.ID) (map[string]resource.Secret, error) {
	keys, err := keyring(ctx, s.documents, id)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	all := map[string]resource.Secret{}
	for _, kept := range keys.Secrets {
		value, err := s.box.Open(kept.Purpose(keys.Owner), kept.Sealed)
		if err != nil {
			return nil, fmt.Errorf("secret %q of %s: %w", kept.Name, id.Base(), err)
		}
		all[kept.Name] = resource.Secret(value)
	}
	return all, nil
}

// keyring is that of an app or a job.
func keyring(ctx context.Context, documents *store.Store, id resource.ID) (resource.Keyring, error) {
	if id.Is(resource.TypeJob) {
		job, err := documents.Jobs().Get(ctx, id)
		return job.Keyring(), err
	}
	app, err := documents.Apps().Get(ctx, id)
	return app.Keyring(), err
}
