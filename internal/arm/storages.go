package arm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"penstock/internal/arm/app"
	"penstock/internal/resource"
	"penstock/internal/store"
)

func storageKind() kind[resource.Storage] {
	return kind[resource.Storage]{
		resourceType: resource.TypeStorage, vars: []string{"environment", "storage"}, noun: "storage", code: "ManagedEnvironmentStorage",
		table: func(s *store.Store) documents[resource.Storage] { return s.Storages() },
		meta:  func(s *resource.Storage) *resource.Meta { return &s.Meta },
		parent: func(c *call) error {
			_, err := environmentKind().find(c)
			return err
		},
		// az reads a storage before it sets one, and recognises by this code that it does not exist.
		absent: func(id resource.ID) error {
			return refuse(http.StatusNotFound, codeNoStorage, "Storage %s not found under managed environment %s.", id.Base(), id.Parent().Base())
		},
		read:      app.ReadStorage,
		change:    changeStorage,
		removable: func(c *call, s resource.Storage) error { return c.unused(s) },
		answer:    func(_ *call, s resource.Storage) (any, error) { return app.NewStorage(s), nil },
		put:       http.StatusOK,
	}
}

// codeNoStorage is Azure's code for a storage that does not exist.
const codeNoStorage = "ManagedEnvironmentStorageNotFound"

// changeStorage copies what is wanted into a storage. As in Azure, only the key can be changed.
func changeStorage(c *call, s *resource.Storage, exists bool, wanted *resource.Storage) error {
	if exists {
		if field, was, want := s.Moved(*wanted); field != "" {
			return refuse(http.StatusBadRequest, "ManagedEnvironmentStorageInvalidValue",
				"%s: only the key of the storage '%s' can be changed; want %q, got %q. Delete the storage and create it again.", field, s.ID.Base(), was, want)
		}
	} else if wanted.Kind == resource.AzureFile && wanted.Key == "" {
		return &resource.InvalidError{Faults: []resource.Fault{{
			Code: "ManagedEnvironmentStorageInvalidValue", Field: "properties.azureFile.accountKey",
			Message: "want the key of the storage account, got nothing; a folder of this machine needs none, so any text will do",
		}}}
	}
	sealed := s.Sealed
	if wanted.Key != "" {
		sealed = c.Secrets.Seal(wanted.Purpose(), wanted.Key.Reveal())
	}
	meta := s.Meta
	*s = *wanted
	s.Meta, s.Key, s.Sealed = meta, "", sealed
	return nil
}

// unused refuses to delete a storage that an app or a job mounts, also if only an older running revision mounts it.
func (c *call) unused(s resource.Storage) error {
	ctx := c.r.Context()
	apps, err := c.appsIn(ctx, s.ID.Parent())
	if err != nil {
		return err
	}
	var users []string
	for _, a := range apps {
		if mounts(a.Template, s.ID.Base()) {
			users = append(users, fmt.Sprintf("container app '%s'", a.ID.Base()))
			continue
		}
		revisions, err := c.Store.Revisions().List(ctx, store.Scope{Parent: a.ID})
		if err != nil {
			return err
		}
		for _, rev := range revisions {
			if rev.Active() && mounts(rev.Template, s.ID.Base()) {
				users = append(users, fmt.Sprintf("revision '%s'", rev.Name()))
			}
		}
	}
	jobs, err := c.Store.Jobs().List(ctx, store.Scope{})
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.Environment.Key() == s.ID.Parent().Key() && mounts(j.Template, s.ID.Base()) {
			users = append(users, fmt.Sprintf("job '%s'", j.ID.Base()))
		}
	}
	if len(users) == 0 {
		return nil
	}
	return refuse(http.StatusConflict, "ManagedEnvironmentStorageInUse",
		"The storage '%s' cannot be deleted: %s mounts it; deploy without it, or delete that, first.", s.ID.Base(), strings.Join(users, ", "))
}

func mounts(t resource.Template, storage string) bool {
	return slices.ContainsFunc(t.Volumes, func(v resource.Volume) bool { return v.Type.OfStorage() && strings.EqualFold(v.Storage, storage) })
}

// checkStorages refuses volumes of storages that the environment does not have. No other write happens meanwhile.
func (c *call) checkStorages(ctx context.Context, environment resource.ID, t resource.Template) error {
	var faults []resource.Fault
	for i, v := range t.Volumes {
		if !v.Type.OfStorage() {
			continue
		}
		field := fmt.Sprintf("template.volumes[%d].", i)
		s, err := c.Store.Storages().Get(ctx, environment.Child("storages", v.Storage))
		switch {
		case errors.Is(err, resource.ErrNotFound):
			faults = append(faults, resource.Fault{Code: codeNoStorage, Field: field + "storageName",
				Message: fmt.Sprintf("Storage %s not found under managed environment %s.", v.Storage, environment.Base())})
		case err != nil:
			return err
		case s.Kind != v.Type:
			faults = append(faults, resource.Fault{Code: "ContainerAppInvalidValue", Field: field + "storageType",
				Message: fmt.Sprintf("want %s, the type of the storage '%s', got %s", s.Kind, v.Storage, v.Type)})
		}
	}
	if len(faults) > 0 {
		return &resource.InvalidError{Faults: faults}
	}
	return nil
}
