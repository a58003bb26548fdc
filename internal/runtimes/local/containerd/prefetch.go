package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"penstock/internal/runtimes/local"
	"penstock/internal/weights"
)

var _ local.Prefetcher = (*Driver)(nil)

// Prefetch implements local.Prefetcher. The files are read where the image's layers are, so that the pages are those
// that every replica maps, and they are charged to whoever reads first: to this process and not to a replica.
func (d *Driver) Prefetch(ctx context.Context, ref string) (int64, error) {
	ctx = inNamespace(ctx)
	image, err := d.resolve(ctx, ref)
	if err != nil {
		return 0, err
	}
	files, err := d.images.Weights(ctx, image)
	if err != nil || len(files) == 0 {
		return 0, err
	}
	view, err := d.unpacked(ctx, image)
	if err != nil {
		return 0, err
	}
	free, err := available()
	if err != nil {
		return 0, err
	}
	var total int64
	for _, f := range files {
		total += f.Size
	}
	// Half of what is free: to push out what others use would make them slower, not this one faster.
	if total > free/2 {
		return 0, fmt.Errorf("%s of weights and %s of memory free: want twice the weights free", weights.GiB(total), weights.GiB(free))
	}
	var read int64
	for _, f := range files {
		n, err := readThrough(ctx, view.lower, f.Path)
		read += n
		if err != nil {
			return read, fmt.Errorf("read %s: %w", f.Path, err)
		}
	}
	return read, nil
}

// readThrough reads a file of the topmost layer that has it. A link in the image is not followed: it could lead out of
// the layer.
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
		if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
			return 0, fmt.Errorf("want a file, got something else (%w)", err)
		}
		return io.CopyBuffer(io.Discard, bounded{ctx, file}, make([]byte, 1<<20))
	}
	return 0, nil // a layer above hides it
}

// bounded ends a long read with its context, and keeps io.Copy from splicing, which would not fill the page cache.
type bounded struct {
	ctx context.Context
	r   io.Reader
}

func (b bounded) Read(p []byte) (int, error) {
	if err := context.Cause(b.ctx); err != nil {
		return 0, err
	}
	return b.r.Read(p)
}

// available is the memory of this machine that can be had without swapping (proc.rst, MemAvailable).
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
