package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// mountRoot mounts a container's root file system: the image's layers with a writable layer on the sandbox's disk.
// containerd's own snapshots would lie outside that disk, and so outside its limit.
func (d *Driver) mountRoot(ctx context.Context, c *container, s *sandbox, v view) error {
	upper, work, root := filepath.Join(d.writable(c), "upper"), filepath.Join(d.writable(c), "work"), c.path("rootfs")
	// What an earlier container of that name wrote.
	if err := removeTree(ctx, d.writable(c)); err != nil {
		return err
	}
	for _, dir := range []string{upper, work, root} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := []string{
		"lowerdir=" + strings.Join(v.lower, ":"), "upperdir=" + upper, "workdir=" + work,
	}
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		options = append(options, "index=off") // layers are shared by overlays that do not know about each other
	}
	if s.FirstID != 0 {
		// The owners of the layers are mapped. New files in the upper folder belong to the mapped IDs themselves.
		for _, dir := range []string{upper, work} {
			if err := os.Chown(dir, int(s.FirstID), int(s.FirstID)); err != nil {
				return err
			}
		}
		mapping := fmt.Sprintf("0:%d:%d", s.FirstID, idCount)
		options = append(options, "uidmap="+mapping, "gidmap="+mapping)
	}
	if err := mount.All([]mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}, root); err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	return nil
}

// unmountRoot removes the root file system. What was written to it stays on the sandbox's disk: if the container is
// created again, it is removed then, and otherwise it goes with the disk, which needs no look at what is on it.
func (d *Driver) unmountRoot(c *container) error {
	for _, at := range []string{"rootfs", hostFilesAt} {
		if err := mount.UnmountAll(c.path(at), unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", c.path(at), err)
		}
	}
	return nil
}

// writable returns a container's folder on its sandbox's disk.
func (d *Driver) writable(c *container) string { return filepath.Join(d.diskDir(c.replica), c.key) }

// unmountBelow unmounts everything in a folder, the deepest mounts first.
func unmountBelow(dir string) error {
	if err := mount.UnmountRecursive(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount what is in %s: %w", dir, err)
	}
	return nil
}
