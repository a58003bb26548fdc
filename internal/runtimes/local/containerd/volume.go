package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// volumeMode allows every user of a replica's containers to write to its volumes, as in Kubernetes, because images run
// as any user.
const volumeMode = 0o777

// bindVolumes creates the volumes that a container mounts, unless its sandbox already has them. It binds them below the
// container's run folder, where the container's root, which has no rights on the host, can reach them.
//
// The files in a volume come from untrusted programs, which may be changing them right now. So a path in a volume is
// walked step by step from open folders, never through a symbolic link, and the result is bound by its descriptor.
func (d *Driver) bindVolumes(c *container, s *sandbox, mounts []local.Mount) error {
	for i, m := range mounts {
		err := d.bindVolume(c, s, i, m)
		if at, ok := errors.AsType[*fs.PathError](err); ok && !m.Type.OfStorage() {
			err = at.Err // its path is one of this machine, which says nothing to users
		}
		if err != nil {
			return fmt.Errorf("volume %q: %w", m.Volume, err)
		}
	}
	return nil
}

func (d *Driver) bindVolume(c *container, s *sandbox, i int, m local.Mount) error {
	var folder *os.File
	var err error
	switch m.Type {
	case resource.EmptyDir:
		folder, err = d.openVolume(s, m.VolumeMount)
	case resource.SecretFiles:
		folder, err = d.openSecrets(c, s, i, m.Volume, m.Part())
	case resource.AzureFile, resource.NfsAzureFile:
		folder, err = openStorage(m)
	default:
		err = fmt.Errorf("volumes of type %q cannot be mounted here", m.Type)
	}
	if err != nil {
		return err
	}
	defer folder.Close()
	target := c.volume(i)
	var found unix.Stat_t
	if err := unix.Fstat(int(folder.Fd()), &found); err != nil {
		return err
	}
	switch found.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = os.MkdirAll(target, 0o711)
	case unix.S_IFREG:
		if err = os.MkdirAll(filepath.Dir(target), 0o711); err == nil {
			err = os.WriteFile(target, nil, 0o600)
		}
	default:
		err = fmt.Errorf("subPath %q: want a folder or a file", m.SubPath)
	}
	if err != nil {
		return err
	}
	attributes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if readOnly(m) {
		attributes.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if m.Type.OfStorage() && s.FirstID != 0 {
		// Each replica has its own range of users. In a storage, user 1000 of each replica is user 1000 of the machine,
		// and root is root.
		users, err := usersOf(s)
		if err != nil {
			return err
		}
		defer users.Close()
		attributes.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attributes.Userns_fd = uint64(users.Fd())
	}
	if err := bind(folder, target, attributes); err != nil {
		if errors.Is(err, unix.EINVAL) && attributes.Userns_fd != 0 {
			err = fmt.Errorf("the file system of %s cannot map the owners of files (idmapped mounts): %w", m.Storage.Folder, err)
		}
		return err
	}
	return nil
}

// usersOf returns a user namespace with which a mount shows the machine's users as those of a sandbox.
func usersOf(s *sandbox) (*os.File, error) {
	mapping := fmt.Sprintf("0:%d:%d", s.FirstID, idCount)
	return mount.GetUsernsFD(mapping, mapping)
}

// readOnly reports whether a container may only read a mount. The container's root cannot change that: the kernel locks
// flags of mounts that a more privileged namespace has made.
func readOnly(m local.Mount) bool { return m.Type == resource.SecretFiles || m.Storage.ReadOnly }

// bind mounts an open folder or file at target, without anything that is mounted inside it.
func bind(what *os.File, target string, attributes unix.MountAttr) error {
	tree, err := unix.OpenTree(int(what.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("bind: clone the mount: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attributes); err != nil {
		return fmt.Errorf("bind: set the mount's attributes: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// openVolume opens the folder or file that a mount refers to, and creates missing folders.
func (d *Driver) openVolume(s *sandbox, m resource.VolumeMount) (*os.File, error) {
	at := filepath.Join(d.diskDir(s.Replica), "volumes")
	if err := os.MkdirAll(at, 0o711); err != nil {
		return nil, err
	}
	dir, err := os.OpenFile(at, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	// Not joined: with a joined path, a subPath of ../other would lead to another volume.
	steps := []string{m.Volume}
	if part := m.Part(); part != "" {
		steps = append(steps, strings.Split(part, "/")...)
	}
	return walk(dir, steps, int(s.FirstID))
}

// openStorage opens what a mount of a storage shows. The operator's path may contain symbolic links; paths in the
// folder may not.
func openStorage(m local.Mount) (*os.File, error) {
	dir, err := os.OpenFile(m.Storage.Folder, unix.O_PATH|unix.O_DIRECTORY, 0)
	part := m.Part()
	if err != nil || part == "" {
		return dir, err
	}
	owner := 0
	if m.Storage.ReadOnly {
		owner = nobody
	}
	return walk(dir, strings.Split(part, "/"), owner)
}

// With owner nobody, no folders are created.
const nobody = -1

// walk descends from dir, which it closes, one folder at a time. It creates missing folders for owner.
func walk(dir *os.File, steps []string, owner int) (*os.File, error) {
	for _, name := range steps {
		next, err := step(dir, name, owner)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

// step opens the entry with that name in a folder. If there is none, it creates a folder for owner.
func step(dir *os.File, name string, owner int) (*os.File, error) {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return nil, fmt.Errorf("want the name of a folder, got %q", name)
	}
	open := func(flags uint64) (*os.File, error) {
		fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
			Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		if errors.Is(err, unix.ELOOP) {
			return nil, fmt.Errorf("%q is a symbolic link, which is not followed", name)
		}
		if err != nil {
			return nil, fmt.Errorf("open %q: %w", name, err)
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	if owner == nobody {
		return open(unix.O_PATH)
	}
	err := unix.Mkdirat(int(dir.Fd()), name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return open(unix.O_PATH)
	}
	if err != nil {
		return nil, fmt.Errorf("make %q: %w", name, err)
	}
	// By its descriptor: the entry may have been replaced by now.
	made, err := open(unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(made.Chown(owner, owner), made.Chmod(volumeMode)); err != nil {
		made.Close()
		return nil, err
	}
	return made, nil
}

func (c *container) volume(i int) string { return filepath.Join(c.path("volumes"), strconv.Itoa(i)) }

func (d *Driver) unbindVolumes(c *container) error {
	if _, err := os.Lstat(c.path("volumes")); err == nil {
		if err := unmountBelow(c.path("volumes")); err != nil {
			return err
		}
	}
	return os.RemoveAll(d.partsDir(c))
}

// withVolumes mounts what bindVolumes has bound. runc resolves the paths inside the container's root. A mount that lies
// inside another one comes after it.
func withVolumes(c *container, mounts []local.Mount) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		var list []specs.Mount
		for i, m := range mounts {
			options := []string{"bind", "rw", "nosuid", "nodev", "rprivate"}
			if readOnly(m) {
				options[1] = "ro"
			}
			list = append(list, specs.Mount{Destination: path.Clean(m.Path), Type: "bind", Source: c.volume(i), Options: options})
		}
		slices.SortFunc(list, func(a, b specs.Mount) int { return cmp.Compare(a.Destination, b.Destination) })
		s.Mounts = append(s.Mounts, list...)
		return nil
	}
}
