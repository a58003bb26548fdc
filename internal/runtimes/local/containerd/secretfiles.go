package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"penstock/internal/resource"
)

// A volume of secrets has the same layout as in Kubernetes (pkg/volume/util/atomic_writer.go). All of its files change
// in one step, and programs that watch for changes see them:
//
//	..1234      the files
//	..data      -> ..1234; replaced by a rename when there are new files
//	key.pem     -> ..data/key.pem
//	tls         -> ..data/tls, when there is tls/key.pem
const (
	dataLink = "..data"
	newLink  = "..data_tmp"
)

// The modes are Kubernetes' defaults (no defaultMode). No other users can reach the files: only root can enter the
// folder above, and a container sees only its own volumes.
const (
	secretMode       = 0o644
	secretFolderMode = 0o755
)

// secretsDir returns the folder with a sandbox's volumes of secrets. It also holds, under names that no volume can
// have, the copies for mounts of parts of a volume.
func (d *Driver) secretsDir(replica string) string { return filepath.Join(d.memory("v"), replica) }

// PutSecrets implements local.Driver.
func (d *Driver) PutSecrets(_ context.Context, replica, volume string, files map[string]resource.Secret) (changed bool, err error) {
	s, err := d.sandbox(replica)
	if err != nil {
		return false, fmt.Errorf("put secrets: %w", err)
	}
	if volume == "" || strings.HasPrefix(volume, ".") || strings.Contains(volume, "/") {
		return false, fmt.Errorf("put secrets: want the name of a volume, got %q", volume)
	}
	for name := range files {
		if !filepath.IsLocal(name) || path.Clean(name) != name || strings.HasPrefix(name, ".") {
			return false, fmt.Errorf("put secrets: want the path of a file in the volume, got %q", name)
		}
	}
	if changed, err = putSecrets(filepath.Join(d.secretsDir(replica), volume), files, int(s.FirstID)); err != nil {
		return false, fmt.Errorf("put secrets: %w", err)
	}
	return changed, nil
}

// putSecrets makes dir contain exactly these files. Calls for the same replica must not be concurrent.
func putSecrets(dir string, files map[string]resource.Secret, owner int) (changed bool, err error) {
	if err := makeOwned(dir, owner); err != nil {
		return false, err
	}
	now, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if now != "" {
		have, err := readSecrets(filepath.Join(dir, now))
		if err != nil {
			return false, err
		}
		if maps.Equal(have, files) {
			return false, tidySecrets(dir, now, files)
		}
	}
	next, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return false, err
	}
	if err := writeSecrets(next, files, owner); err != nil {
		return false, errors.Join(err, os.RemoveAll(next))
	}
	if err := link(filepath.Base(next), dir, dataLink); err != nil {
		return false, errors.Join(err, os.RemoveAll(next))
	}
	return true, tidySecrets(dir, filepath.Base(next), files)
}

// link creates or replaces a symbolic link in one step.
func link(to, dir, name string) error {
	tmp := filepath.Join(dir, newLink)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}

// tidySecrets creates the links for the folder now, and removes what belongs to an earlier one.
func tidySecrets(dir, now string, files map[string]resource.Secret) error {
	wanted := map[string]bool{dataLink: true, now: true}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		wanted[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if wanted[e.Name()] {
			delete(wanted, e.Name())
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if err := link(dataLink+"/"+name, dir, name); err != nil {
			return err
		}
	}
	return nil
}

func writeSecrets(dir string, files map[string]resource.Secret, owner int) error {
	if err := errors.Join(os.Chown(dir, owner, owner), os.Chmod(dir, secretFolderMode)); err != nil {
		return err
	}
	for name, value := range files {
		if err := makeFolders(dir, path.Dir(name), owner); err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.WriteFile(to, []byte(value.Reveal()), secretMode); err != nil {
			return err
		}
		if err := errors.Join(os.Chown(to, owner, owner), os.Chmod(to, secretMode)); err != nil {
			return err
		}
	}
	return nil
}

// makeFolders creates the missing folders of a path in dir.
func makeFolders(dir, name string, owner int) error {
	if name == "." {
		return nil
	}
	for part := range strings.SplitSeq(name, "/") {
		dir = filepath.Join(dir, part)
		if err := makeOwned(dir, owner); err != nil {
			return err
		}
	}
	return nil
}

func makeOwned(dir string, owner int) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, secretFolderMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return errors.Join(os.Chown(dir, owner, owner), os.Chmod(dir, secretFolderMode))
}

func readSecrets(dir string) (map[string]resource.Secret, error) {
	files := map[string]resource.Secret{}
	err := filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		value, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, at)
		files[name] = resource.Secret(value)
		return err
	})
	return files, err
}

// openSecrets opens what a mount of a volume of secrets shows. For a path in the volume, that is a copy: a mount keeps
// showing the file that it was created for, and that file is removed when the secrets change.
func (d *Driver) openSecrets(c *container, s *sandbox, i int, volume, subPath string) (*os.File, error) {
	at := filepath.Join(d.secretsDir(s.Replica), volume)
	if subPath != "" {
		all, err := readSecrets(filepath.Join(at, dataLink) + "/")
		if err != nil {
			return nil, err
		}
		part := map[string]resource.Secret{}
		for name, value := range all {
			if name == subPath || strings.HasPrefix(name, subPath+"/") {
				part[name] = value
			}
		}
		if len(part) == 0 {
			return nil, fmt.Errorf("subPath %q: want a file or folder of the volume, which has %q", subPath, slices.Sorted(maps.Keys(all)))
		}
		to := filepath.Join(d.partsDir(c), fmt.Sprint(i))
		if err := makeOwned(to, int(s.FirstID)); err != nil {
			return nil, err
		}
		if err := writeSecrets(to, part, int(s.FirstID)); err != nil {
			return nil, err
		}
		at = filepath.Join(to, subPath)
	}
	return os.OpenFile(at, unix.O_PATH|unix.O_NOFOLLOW, 0)
}

// partsDir returns the folder with the copies for a container's mounts of parts of volumes of secrets.
func (d *Driver) partsDir(c *container) string {
	return filepath.Join(d.secretsDir(c.replica), "."+c.key)
}
