// Package storages finds the folder on this machine that is behind a storage of an environment.
package storages

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
	"penstock/internal/store"
)

// Folders finds the folders of storages. Clients of the API cannot choose a folder: it is the one that the operator
// configured for the storage, or one below the data folder.
type Folders struct {
	documents *store.Store
	root      string            // for storages without a configured folder
	named     map[string]string // folder by "environment/storage", in lower case
}

// New returns the folders of the storages in documents. named has the configured folders by "environment/storage" in
// lower case. All others are below root.
func New(documents *store.Store, root string, named map[string]string) *Folders {
	return &Folders{documents: documents, root: root, named: named}
}

// Folder returns the folder of a storage. If the operator has not configured one, Folder creates it when needed. It is
// called at each start of a container that mounts the storage. The error wraps resource.ErrNotFound if the environment
// has no such storage.
func (s *Folders) Folder(ctx context.Context, environment resource.ID, name string) (local.Storage, error) {
	found, err := s.documents.Storages().Get(ctx, environment.Child("storages", name))
	if err != nil {
		return local.Storage{}, err
	}
	at := local.Storage{ReadOnly: found.Access == resource.ReadOnly}
	if at.Folder = s.named[strings.ToLower(environment.Base()+"/"+name)]; at.Folder != "" {
		return at, usable(at)
	}
	// The path has every part of the ID, because environments of two groups may have the same name.
	at.Folder = s.root
	for _, part := range []string{environment.Subscription, environment.Group, environment.Base(), found.ID.Base()} {
		if !filepath.IsLocal(part) || strings.Contains(part, "/") || part == "." {
			return at, fmt.Errorf("storage %s: want a part that can name a folder, got %q", found.ID, part)
		}
		at.Folder = filepath.Join(at.Folder, strings.ToLower(part))
	}
	if err := os.MkdirAll(filepath.Dir(at.Folder), 0o700); err != nil {
		return at, err
	}
	if err := os.Mkdir(at.Folder, 0o700); err == nil {
		// Any user of a container can write, as on an SMB share in Azure. Users of this machine cannot enter the folder
		// above it.
		return at, os.Chmod(at.Folder, 0o777)
	} else if !os.IsExist(err) {
		return at, err
	}
	return at, nil
}

// usable returns what is wrong with a folder that the operator configured.
func usable(at local.Storage) error {
	real, err := filepath.EvalSymlinks(at.Folder)
	if err != nil {
		return fmt.Errorf("the server's setting storages: %w", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return fmt.Errorf("the server's setting storages: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("the server's setting storages: want a folder, %s is not one", real)
	}
	if at.ReadOnly {
		return nil
	}
	// The root user of a container can write a set-user-id program into the folder. A user of this machine who can
	// reach it would become root of the machine.
	var fs unix.Statfs_t
	if err := unix.Statfs(real, &fs); err != nil {
		return fmt.Errorf("the server's setting storages: %s: %w", real, err)
	}
	if fs.Flags&unix.ST_NOSUID != 0 {
		return nil
	}
	for dir := real; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("the server's setting storages: %w", err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return nil
		}
		if dir == "/" {
			return fmt.Errorf("the server's setting storages: every user of this machine can enter %s, and containers can leave set-user-id programs there; "+
				"run chmod o-x on it or on a folder above it, mount it with nosuid, or make the storage ReadOnly", real)
		}
	}
}
