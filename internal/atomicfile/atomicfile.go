// Package atomicfile replaces files whole: a reader sees the old content or the new content and nothing between, also
// after a crash or a loss of power.
//
// The order is what makes it last: the content is written beside the file and synced, then renamed over it, then the
// folder is synced. Without the last step the file system may forget the rename.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// Write replaces the file at path, or makes it. When Write returns nil, the content survives a loss of power. The file
// gets exactly this mode, whatever the umask is.
func Write(path string, content []byte, mode os.FileMode) error {
	f, err := Create(path, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return errors.Join(err, f.Discard())
	}
	return f.Commit()
}

// WriteUnsynced is Write without the syncs, which take milliseconds each: a reader sees the old content or the new, but
// a loss of power may leave either or an empty file. It is for what describes running processes, which end with the
// machine.
func WriteUnsynced(path string, content []byte, mode os.FileMode) error {
	f, err := Create(path, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.File.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// File is the new content of a file while it is being written. It ends with Commit or Discard.
type File struct {
	*os.File
	path string
	over bool
}

// Create begins new content for the file at path. Until Commit the file at path stays as it is.
func Create(path string, mode os.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return &File{File: f, path: path}, nil
}

// Commit puts the content in place and closes the file. When it fails before the rename, the old content stays.
func (f *File) Commit() error {
	if f.over {
		return os.ErrClosed
	}
	f.over = true
	if err := errors.Join(f.Sync(), f.File.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(filepath.Dir(f.path))
}

// Discard removes the new content. After Commit it does nothing, so that it can be deferred.
func (f *File) Discard() error {
	if f.over {
		return nil
	}
	f.over = true
	return errors.Join(f.File.Close(), os.Remove(f.Name()))
}

// Rename moves a file or folder whose content is synced already to another name in the same folder, so that the new name
// survives a loss of power.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
