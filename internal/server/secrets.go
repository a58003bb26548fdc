package server

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

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

func (s secrets) value(ctx context.Context, id resource.ID, name string) (resource.Secret, error) {
	app, err := s.documents.Apps().Get(ctx, id)
	if err != nil {
		return "", fmt.Errorf("secret %q: %w", name, err)
	}
	kept := app.Configuration.Secrets
	at := slices.IndexFunc(kept, func(k resource.AppSecret) bool { return k.Name == name })
	if at < 0 {
		return "", fmt.Errorf("secret %q of app %s: %w; set it, or deploy a revision that does not refer to it", name, id.Base(), resource.ErrNotFound)
	}
	value, err := s.box.Open(kept[at].Purpose(app.ID), kept[at].Sealed)
	if err != nil {
		return "", fmt.Errorf("secret %q of app %s: %w", name, id.Base(), err)
	}
	return resource.Secret(value), nil
}
