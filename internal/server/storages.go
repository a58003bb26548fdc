package server

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

// storages finds the folders that the storages of environments are on this machine. No client of the API chooses one: it
// is the one that the operator named, or else one below the data folder.
type storages struct {
	documents *store.Store
	root      string            // of those that nobody named
	named     map[string]string // folder by "environment/storage", in lower case
}

// folder is asked at each start of a container that mounts a storage.
func (s storages) folder(ctx context.Context, environment resource.ID, name string) (local.Storage, error) {
	found, err := s.documents.Storages().Get(ctx, environment.Child("storages", name))
	if err != nil {
		return local.Storage{}, err
	}
	at := local.Storage{ReadOnly: found.Access == resource.ReadOnly}
	if at.Folder = s.named[strings.ToLower(environment.Base()+"/"+name)]; at.Folder != "" {
		return at, usable(at)
	}
	// By all of the name: environments of two groups may have the same.
	at.Folder = s.root
	for _, part := range []string{environment.Subscription, environment.Group, environment.Base(), found.ID.Base()} {
		if !filepath.IsLocal(part) || strings.Contains(part, "/") || part == "." {
			return at, fmt.Errorf("want the name of a folder, got %q", part)
		}
		at.Folder = filepath.Join(at.Folder, strings.ToLower(part))
	}
	if err := os.MkdirAll(filepath.Dir(at.Folder), 0o700); err != nil {
		return at, err
	}
	if err := os.Mkdir(at.Folder, 0o700); err == nil {
		// As an SMB share in Azure: whoever an image runs as may write. No user of this machine gets to it.
		return at, os.Chmod(at.Folder, 0o777)
	} else if !os.IsExist(err) {
		return at, err
	}
	return at, nil
}

// usable says what is wrong with a folder that the operator named.
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
		return fmt.Errorf("the server's setting storages: want a folder, %s is none", real)
	}
	if at.ReadOnly {
		return nil
	}
	// The root of a container can leave a program there that runs as root for whoever starts it. In the container that
	// means nothing; on the machine it must not be had.
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
