package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// disks gives each sandbox a file system of its own size: a sparse image file on a loop device. Its use is one statfs,
// and at its limit a program sees "no space left on device" and nothing else. Project quotas would need a kernel built
// with them, which is rarer than loop devices.
type disks struct {
	templates string
	mkfs      string // "" when this machine cannot limit disks

	mu sync.Mutex // one template is made at a time
}

// What the file system keeps of an image for itself: its journal and superblocks, and tables of 2 %.
const (
	diskFixed  = 10 << 20
	diskTables = 50 // one part in
)

func openDisks(templates string, log *slog.Logger) *disks {
	d := &disks{templates: templates}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err == nil {
		_, err = os.Stat("/dev/loop-control")
	}
	if err != nil {
		log.Warn("this machine lacks mkfs.ext4 or loop devices, so what replicas write to disk has no limit", "err", err)
		return d
	}
	d.mkfs = mkfs
	return d
}

// attach makes dir a place to write to of limit bytes, as it was left if it was there before. Without a limit, or where
// none can be kept, it is a plain folder.
func (d *disks) attach(ctx context.Context, image, dir string, limit int64) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if limit <= 0 || d.mkfs == "" {
		return nil
	}
	if mounted, err := isMountPoint(dir); err != nil || mounted {
		return err
	}
	if _, err := os.Stat(image); errors.Is(err, fs.ErrNotExist) {
		template, err := d.template(ctx, limit)
		if err != nil {
			return fmt.Errorf("disk of %d bytes: %w", limit, err)
		}
		if err := copySparse(image, template); err != nil {
			return fmt.Errorf("disk of %d bytes: %w", limit, err)
		}
	}
	return mountImage(image, dir)
}

// detach unmounts and removes what attach made.
func (d *disks) detach(image, dir string) error {
	for {
		err := unix.Unmount(dir, 0)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(dir, unix.MNT_DETACH)
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // nothing is mounted there
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	if err := os.Remove(image); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// template is an empty file system of that size; copying its few blocks takes a millisecond, making one ten.
func (d *disks) template(ctx context.Context, limit int64) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	size := (limit+limit/diskTables+diskFixed)>>20<<20 + 1<<20 // whole MiB
	path := filepath.Join(d.templates, "ext4-"+strconv.FormatInt(size, 10))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(d.templates, 0o700); err != nil {
		return "", err
	}
	tmp := path + ".new"
	f, err := os.Create(tmp)
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return "", err
	}
	// Few inodes, a small journal and no reserve for root leave 97 % of the image to its user.
	mkfs := exec.CommandContext(ctx, d.mkfs, "-q", "-F", "-b", "4096", "-i", "65536", "-J", "size=8", "-m", "0", "-O", "^resize_inode", tmp)
	if out, err := mkfs.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("%s: %w: %s", d.mkfs, err, bytes.TrimSpace(out)), os.Remove(tmp))
	}
	return path, os.Rename(tmp, path)
}

// copySparse copies a file's data and leaves its holes.
func copySparse(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(copyData(dst, src, info.Size()), dst.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

func copyData(dst, src *os.File, size int64) error {
	if err := dst.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); ; {
		data, err := src.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		hole, err := src.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, data), io.NewSectionReader(src, data, hole-data)); err != nil {
			return err
		}
		at = hole
	}
}

// mountImage mounts through a loop device that the kernel frees with the mount, so that none can be forgotten.
func mountImage(image, dir string) error {
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	loop, err := loopOf(f)
	if err != nil {
		return fmt.Errorf("loop device for %s: %w", image, err)
	}
	defer loop.Close() // not before the mount: an unused device is freed at once
	// discard gives the blocks of removed files back to the host.
	if err := unix.Mount(loop.Name(), dir, "ext4", unix.MS_NODEV|unix.MS_NOATIME, "noinit_itable,discard"); err != nil {
		return fmt.Errorf("mount %s: %w", image, err)
	}
	return nil
}

func loopOf(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	// Direct I/O keeps the host from caching each block twice; a file system that cannot do it is cached.
	flags := []uint32{unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO, unix.LO_FLAGS_AUTOCLEAR}
	const tries = 64 // others take the device that was free a moment ago
	for try := 0; ; try++ {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		loop, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		cfg := unix.LoopConfig{Fd: uint32(f.Fd()), Size: 4096, Info: unix.LoopInfo64{Flags: flags[0]}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &cfg)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		switch {
		case errors.Is(err, unix.EBUSY) && try < tries:
		case errors.Is(err, unix.EINVAL) && len(flags) > 1:
			flags = flags[1:]
		default:
			return nil, err
		}
	}
}

func isMountPoint(dir string) (bool, error) {
	var own, above unix.Stat_t
	if err := unix.Stat(dir, &own); err != nil {
		return false, err
	}
	if err := unix.Stat(filepath.Dir(dir), &above); err != nil {
		return false, err
	}
	return own.Dev != above.Dev, nil
}
