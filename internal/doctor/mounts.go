package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// apart runs f in a new mount namespace, so that its mounts are invisible to others and disappear afterwards.
func apart(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked. It ends with the goroutine, and the namespace ends with it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			result <- fmt.Errorf("new mount namespace: %w", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			result <- fmt.Errorf("make mounts private: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// layers creates the folders of an overlay mount, with one file in the lower one.
func layers(dir string) error {
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "lower", "file"), []byte("x"), 0o600)
}

func overlayOptions(dir string, more ...string) []mount.Mount {
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: append([]string{
		"lowerdir=" + filepath.Join(dir, "lower"), "upperdir=" + filepath.Join(dir, "upper"), "workdir=" + filepath.Join(dir, "work"),
	}, more...)}}
}

func overlay(_ context.Context, o Options) []Finding {
	dir, remove, err := scratch(o)
	if err != nil {
		return fail("containers cannot run from images", asRoot, "%v", err)
	}
	defer remove()
	err = apart(func() error {
		if err := layers(dir); err != nil {
			return err
		}
		merged := filepath.Join(dir, "merged")
		if err := mount.All(overlayOptions(dir), merged); err != nil {
			return err
		}
		// Writing to a file of the lower folder fails if the file system cannot be the upper one of an overlay.
		err := os.WriteFile(filepath.Join(merged, "file"), []byte("y"), 0o600)
		return errors.Join(err, unix.Unmount(merged, 0))
	})
	if err != nil {
		return fail("containers cannot run from images", asRoot+", with a data folder on ext4, xfs or btrfs", "%v", err)
	}
	return ok("mounts at %s", home(o.Data))
}

// mapped is a host user ID that a container's root could be mapped to.
const mapped = 1_000_000

func userNamespaces(_ context.Context, o Options) []Finding {
	const means = "root in a container is root on the machine, with fewer capabilities"
	dir, remove, err := scratch(o)
	if err != nil {
		return fail(means, asRoot, "%v", err)
	}
	defer remove()
	err = apart(func() error {
		if err := layers(dir); err != nil {
			return err
		}
		for _, name := range []string{"upper", "work"} {
			if err := os.Chown(filepath.Join(dir, name), mapped, mapped); err != nil {
				return err
			}
		}
		mapping := fmt.Sprintf("0:%d:65536", mapped)
		merged := filepath.Join(dir, "merged")
		if err := mount.All(overlayOptions(dir, "uidmap="+mapping, "gidmap="+mapping), merged); err != nil {
			return err
		}
		defer mount.UnmountAll(merged, unix.MNT_DETACH)
		info, err := os.Stat(filepath.Join(merged, "file"))
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != mapped {
			return fmt.Errorf("a file of root is shown with owner %d, want %d", st.Uid, mapped)
		}
		return nil
	})
	if err != nil {
		return warn(means, "use Linux 5.19 or newer, and allow user namespaces (user.max_user_namespaces above 0)", "%v", err)
	}
	return ok("overlay with mapped user IDs can be mounted")
}

// imageSize is the smallest size for which mkfs.ext4 creates a file system with a journal.
const imageSize = 16 << 20

func loop(ctx context.Context, o Options) []Finding {
	const means = "the kernel does not limit the disk space of replicas"
	program, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		return warn(means, "install e2fsprogs", "mkfs.ext4 not found")
	}
	dir, remove, err := scratch(o)
	if err != nil {
		return warn(means, asRoot, "%v", err)
	}
	defer remove()
	image := filepath.Join(dir, "image")
	if err := makeImage(ctx, program, image); err != nil {
		return warn(means, "", "%v", err)
	}
	err = apart(func() error { return mountImage(image, filepath.Join(dir, "mounted")) })
	if err != nil {
		return warn(means, "load the loop and ext4 modules: modprobe loop ext4", "%v", err)
	}
	return ok("ext4 image can be mounted with direct I/O")
}

func makeImage(ctx context.Context, program, image string) error {
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, imageSize); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, program, "-q", "-F", "-b", "4096", image).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func mountImage(image, target string) error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("free loop device: %w", err)
	}
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer backing.Close()
	device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	// The device releases the file when its last user has gone, even after a crash.
	err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
		Fd: uint32(backing.Fd()), Size: 4096,
		Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO},
	})
	if err != nil {
		return fmt.Errorf("set up %s: %w", device.Name(), err)
	}
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device.Name(), target, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device.Name(), err)
	}
	return unix.Unmount(target, 0)
}
