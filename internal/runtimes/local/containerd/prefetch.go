package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"penstock/internal/runtimes/local"
	"penstock/internal/weights"
)

var _ local.Prefetcher = (*Driver)(nil)

// Prefetch implements local.Prefetcher. It reads the files in the image's layers, so the cached pages are the ones that
// every replica maps. They are charged to the first reader: this process, and not a replica.
func (d *Driver) Prefetch(ctx context.Context, ref string) (total, read int64, err error) {
	ctx = inNamespace(ctx)
	image, err := d.resolve(ctx, ref)
	if err != nil {
		return 0, 0, err
	}
	files, err := d.images.Weights(ctx, image)
	if err != nil || len(files) == 0 {
		return 0, 0, err
	}
	view, err := d.unpacked(ctx, image)
	if err != nil {
		return 0, 0, err
	}
	// One at a time: the second replica of an image then finds what the first has read.
	select {
	case d.prefetching <- struct{}{}:
		defer func() { <-d.prefetching }()
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
	free, err := available()
	if err != nil {
		return 0, 0, err
	}
	for _, f := range files {
		total += f.Size
	}
	// At most half of the free memory: if other pages were evicted, others would become slower and this start no
	// faster.
	if total > free/2 {
		return 0, 0, fmt.Errorf("%s of weights and %s of memory free: want twice the weights free", weights.GiB(total), weights.GiB(free))
	}
	for _, f := range files {
		n, err := readThrough(ctx, view.lower, f.Path)
		read += n
		if err != nil {
			return total, read, fmt.Errorf("read %s: %w", f.Path, err)
		}
	}
	return total, read, nil
}

// readThrough reads a file from the topmost layer that has it. It does not follow links in the image, because they
// could lead out of the layer.
func readThrough(ctx context.Context, layers []string, path string) (int64, error) {
	for _, layer := range layers {
		root, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		fd, err := unix.Openat2(root, strings.TrimPrefix(path, "/"), &unix.OpenHow{
			Flags: unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		unix.Close(root)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		file := os.NewFile(uintptr(fd), path)
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return 0, err
		}
		if !info.Mode().IsRegular() {
			return 0, fmt.Errorf("want a file, got %s", info.Mode())
		}
		return fill(ctx, file, info.Size())
	}
	return 0, nil // a layer above hides the file
}

// fill reads the parts of a file that are not in the page cache.
func fill(ctx context.Context, file *os.File, size int64) (read int64, err error) {
	const window = 4 << 20
	buf := make([]byte, window)
	for at := int64(0); at < size; at += window {
		if err := context.Cause(ctx); err != nil {
			return read, err
		}
		n := min(window, size-at)
		if cached, err := inCache(file, at, n); err != nil {
			return read, err
		} else if cached {
			continue
		}
		got, err := file.ReadAt(buf[:n], at)
		read += int64(got)
		if err != nil && !errors.Is(err, io.EOF) {
			return read, err
		}
	}
	return read, nil
}

// inCache reports whether all pages of a part of a file are in the page cache (mincore(2)).
func inCache(file *os.File, at, n int64) (bool, error) {
	pages, err := unix.Mmap(int(file.Fd()), at, int(n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return false, err
	}
	defer unix.Munmap(pages)
	page := os.Getpagesize()
	resident := make([]byte, (int(n)+page-1)/page)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&pages[0])), uintptr(n), uintptr(unsafe.Pointer(&resident[0])))
	if errno != 0 {
		return false, errno
	}
	for _, r := range resident {
		if r&1 == 0 {
			return false, nil
		}
	}
	return true, nil
}

// available returns how much memory this machine can give without swapping (proc.rst, MemAvailable).
func available() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			var kb int64
			if _, err := fmt.Sscan(value, &kb); err != nil {
				return 0, fmt.Errorf("MemAvailable: %w", err)
			}
			return kb << 10, nil
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}
