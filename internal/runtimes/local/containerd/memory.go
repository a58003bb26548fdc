package containerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// memory returns a folder in a file system in memory. All files with values of secrets are there, wherever the state
// folder is, so that no disk has them after the replica has gone:
//
//	c  containerd's state: the bundles of tasks, whose config.json has the variables
//	x  what the shim passes to runc for a command in a container, including its variables
//	v  the files of Secret volumes, by replica
func (d *Driver) memory(name string) string { return filepath.Join(d.cfg.State, "m", name) }

// mountMemory mounts the file system in memory at dir, or uses the one of an earlier process.
func mountMemory(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if mounted, err := isMountPoint(dir); err != nil {
		return err
	} else if !mounted {
		const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
		// Kernels before 6.4 cannot keep a tmpfs out of the swap space.
		err := unix.Mount("penstock", dir, "tmpfs", flags, "mode=0711,noswap")
		if errors.Is(err, unix.EINVAL) {
			err = unix.Mount("penstock", dir, "tmpfs", flags, "mode=0711")
		}
		if err != nil {
			return fmt.Errorf("mount a file system in memory at %s: %w", dir, err)
		}
	}
	// The roots of containers must walk through containerd's folder. Nobody needs to walk through the others.
	for name, mode := range map[string]os.FileMode{"c": 0o711, "x": 0o700, "v": 0o700} {
		if err := os.Mkdir(filepath.Join(dir, name), mode); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// freeMemory unmounts the file system once nothing needs it.
func (d *Driver) freeMemory() error {
	d.mu.Lock()
	used := len(d.containers) + len(d.sandboxes)
	d.mu.Unlock()
	if used > 0 {
		return nil
	}
	if err := unix.Unmount(d.memory(""), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount %s: %w", d.memory(""), err)
	}
	return nil
}
