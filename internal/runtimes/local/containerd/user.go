package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	images "penstock/internal/oci"
)

// userFileLimit bounds /etc/passwd and /etc/group of an image. A distribution's have some thousands of bytes.
const userFileLimit = 1 << 20

// withImage sets what the image says: the user, variables and the working folder. containerd's own option would open
// /etc/passwd and /etc/group whatever they are; with a pipe in their place it would wait for ever.
func withImage(who specs.User, config images.Config) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Process.User = who
		s.Process.Env = slices.Clone(config.Env)
		s.Process.Cwd = "/"
		if config.WorkDir != "" {
			s.Process.Cwd = config.WorkDir
		}
		return nil
	}
}

// withHome sets HOME if nothing else does. Otherwise runc would read it from the container's /etc/passwd at the start,
// and again for each command that is run in the container, and would wait for ever if that is a pipe by then.
func withHome(home string) oci.SpecOpts {
	return func(ctx context.Context, client oci.Client, c *containers.Container, s *specs.Spec) error {
		s.Process.Env = slices.DeleteFunc(s.Process.Env, func(v string) bool { return v == "HOME=" }) // as runc does
		return withUnlessSet("HOME="+home)(ctx, client, c, s)
	}
}

// lookUpUser finds an image's user, a name or number with an optional group (Dockerfile reference, USER), in the files
// below root.
func lookUpUser(root, wanted string) (who specs.User, home string, err error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return who, "", fmt.Errorf("open root file system: %w", err)
	}
	defer unix.Close(dir)
	passwd, err := readInside(dir, "etc/passwd")
	if err != nil {
		return who, "", err
	}
	group, err := readInside(dir, "etc/group")
	if err != nil {
		return who, "", err
	}
	found, err := user.GetExecUser(wanted, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return who, "", fmt.Errorf("user %q of the image: %w", wanted, err)
	}
	named, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Uid == found.Uid })
	if err != nil {
		return who, "", fmt.Errorf("/etc/passwd of the image: %w", err)
	}
	name := strconv.Itoa(found.Uid)
	if len(named) > 0 {
		name = named[0].Name
	}
	groups, err := user.ParseGroupFilter(bytes.NewReader(group), func(g user.Group) bool { return slices.Contains(g.List, name) })
	if err != nil {
		return who, "", fmt.Errorf("/etc/group of the image: %w", err)
	}
	who = specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid), AdditionalGids: []uint32{uint32(found.Gid)}}
	for _, g := range groups {
		if id := uint32(g.Gid); !slices.Contains(who.AdditionalGids, id) {
			who.AdditionalGids = append(who.AdditionalGids, id)
		}
	}
	return who, found.Home, nil
}

// readInside reads a regular file of an image, or nothing if it has none. Symbolic links are followed inside the image
// only. The file is opened for reading after it is known what it is, because opening a pipe waits, and opening a device
// can do anything.
func readInside(root int, path string) ([]byte, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("/%s of the image: %w", path, err)
	}
	defer unix.Close(fd)
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return nil, fmt.Errorf("/%s of the image: %w", path, err)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("/%s of the image: want a regular file, got %s", path, fileKind(info.Mode))
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, fmt.Errorf("/%s of the image: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, userFileLimit+1))
	if err != nil {
		return nil, fmt.Errorf("/%s of the image: %w", path, err)
	}
	if len(b) > userFileLimit {
		return nil, fmt.Errorf("/%s of the image: want at most %d bytes, got %d", path, userFileLimit, info.Size)
	}
	return b, nil
}

func fileKind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "a named pipe"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFDIR:
		return "a folder"
	default:
		return "a device"
	}
}
