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

// disks gives each sandbox a file system of a limited size: a sparse image file on a loop device. Its usage is read
// with one statfs, and at the limit a program gets "no space left on device". Project quotas would need a kernel that
// is built with them, which is rarer than loop devices.
type disks struct {
	templates string
	mkfs      string // "" if this machine cannot limit disks

	mu sync.Mutex // only one template is created at a time
}

// Space that the file system uses for itself: the journal, the superblocks, and 2 % for tables.
const (
	diskFixed  = 10 << 20
	diskTables = 50 // one part in this many
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

// attach makes dir a folder with limit bytes of space. If it existed before, its files are still there. Without a
// limit, or if this machine cannot enforce one, dir is an ordinary folder.
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

// detach unmounts and removes what attach created.
func (d *disks) detach(ctx context.Context, image, dir string) error {
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
	return removeTree(ctx, dir)
}

// template returns an empty file system of the given size. Copying its few blocks takes a millisecond; creating a file
// system takes ten.
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
	// With few inodes, a small journal and no space reserved for root, 97 % of the image is usable.
	mkfs := exec.CommandContext(ctx, d.mkfs, "-q", "-F", "-b", "4096", "-i", "65536", "-J", "size=8", "-m", "0", "-O", "^resize_inode", tmp)
	if out, err := mkfs.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("%s: %w: %s", d.mkfs, err, bytes.TrimSpace(out)), os.Remove(tmp))
	}
	return path, os.Rename(tmp, path)
}

// copySparse copies a file's data and keeps its holes.
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
			return nil // the rest of the file is a hole
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

// mountImage mounts an image through a loop device, which the kernel frees when the image is unmounted. So no device
// can leak.
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
	// discard returns the blocks of removed files to the host.
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
	// Direct I/O prevents the host from caching each block twice. File systems that do not support it use the cache.
	flags := []uint32{unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO, unix.LO_FLAGS_AUTOCLEAR}
	const tries = 64 // others can take a device that was free a moment ago
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
