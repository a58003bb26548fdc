// Package unpack writes an image's layers into folders. A layer is an untrusted archive: nothing is written outside its
// folder, and the disk space, memory and time that it can use are limited.
package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits limit the layers of one image together.
type Limits struct {
	Bytes   int64 // total size of the files
	Entries int64 // number of files, folders and links
}

const (
	// maxPath is the kernel's PATH_MAX. maxDepth keeps the walk to an entry short, because each step is a system call
	// and an archive can have a million entries.
	maxPath  = 4096
	maxDepth = 256
	// maxNames limits the total size of the names and attributes of all entries. They are held in memory while a layer
	// is unpacked.
	maxNames = 256 << 20
	// entryBytes is the maximum size of an entry in the archive without its content: headers and padding.
	entryBytes = 4096
)

// Applier unpacks the layers of one image. It is a diff.Applier and unpacks one layer after the other.
type Applier struct {
	blobs  content.Provider
	limits Limits
	used   struct{ bytes, entries, names int64 }
}

// New returns an Applier for layers in a content store.
func New(blobs content.Provider, limits Limits) *Applier {
	return &Applier{blobs: blobs, limits: limits}
}

// Apply unpacks a layer to a mount and returns the descriptor of its uncompressed archive.
func (a *Applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, _ ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	if !images.IsLayerType(desc.MediaType) || strings.HasSuffix(desc.MediaType, "+encrypted") {
		return ocispec.Descriptor{}, fmt.Errorf("want a layer as a tar archive, got %q", desc.MediaType)
	}
	root, opts, err := place(mounts)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	blob, err := a.blobs.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer blob.Close()
	plain, err := decompress(content.NewReader(blob))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer plain.Close()
	digester := digest.SHA256.Digester()
	in := &bounded{
		ended: func() error { return context.Cause(ctx) }, from: io.TeeReader(plain, digester.Hash()),
		left: a.limits.Bytes - a.used.bytes + (a.limits.Entries-a.used.entries)*entryBytes,
		full: fmt.Errorf("it goes on after %d bytes, more than an archive of its limits can have", a.limits.Bytes),
	}
	if _, err := archive.Apply(ctx, root, in, append(opts, archive.WithFilter(a.admit))...); err != nil {
		return ocispec.Descriptor{}, named(err)
	}
	// Bytes after the end of the archive are part of the layer's digest.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digester.Digest(), Size: in.read}, nil
}

// named replaces the reader's error for a truncated archive by a clear one.
func named(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("want a tar archive to its end: %w", err)
	}
	return err
}

// place returns the folder for a layer. The overlay's upper folder is written directly, without mounting it.
func place(mounts []mount.Mount) (root string, opts []archive.ApplyOpt, err error) {
	if len(mounts) != 1 {
		return "", nil, fmt.Errorf("want one mount to unpack to, got %d", len(mounts))
	}
	m := mounts[0]
	if m.Type == "bind" {
		return m.Source, nil, nil
	}
	if m.Type == "overlay" {
		opts = append(opts, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
		for _, o := range m.Options {
			if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
				root = upper
			}
			if lower, ok := strings.CutPrefix(o, "lowerdir="); ok {
				opts = append(opts, archive.WithParents(strings.Split(lower, ":")))
			}
		}
	}
	if root == "" {
		return "", nil, fmt.Errorf("want an overlay or a bind mount to unpack to, got %s", m.Type)
	}
	return root, opts, nil
}

// admit reports whether an entry is unpacked. It is called before anything of the entry is.
func (a *Applier) admit(h *tar.Header) (bool, error) {
	bad := func(format string, args ...any) (bool, error) {
		return false, fmt.Errorf("entry %q: %s", clip(h.Name), fmt.Sprintf(format, args...))
	}
	if len(h.Name) > maxPath || len(h.Linkname) > maxPath {
		return bad("want names of at most %d bytes", maxPath)
	}
	if strings.Count(h.Name, "/") > maxDepth || strings.Count(h.Linkname, "/") > maxDepth {
		return bad("want at most %d folders above it", maxDepth)
	}
	if strings.ContainsRune(h.Name, 0) || strings.ContainsRune(h.Linkname, 0) {
		return bad("want a name without NUL")
	}
	a.used.entries++
	if a.used.entries > a.limits.Entries {
		return bad("the image has more than %d files, which is all that it may have", a.limits.Entries)
	}
	a.used.names += int64(len(h.Name) + len(h.Linkname))
	for key, value := range h.PAXRecords {
		a.used.names += int64(len(key) + len(value))
		// The kernel's own attributes of overlay folders could redirect one folder of the machine to another.
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && (strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.overlay.")) {
			return bad("attribute %q is not taken from an image", clip(name))
		}
	}
	if a.used.names > maxNames {
		return bad("the names and attributes of the image have more than %d bytes together", maxNames)
	}
	if h.Size < 0 || h.Size > a.limits.Bytes-a.used.bytes {
		return bad("it has %d bytes; of the %d that the image may have unpacked, %d are left", h.Size, a.limits.Bytes, a.limits.Bytes-a.used.bytes)
	}
	if h.Typeflag == tar.TypeReg {
		a.used.bytes += h.Size
	}
	// Containers get their devices from the runtime. Devices in an image are not needed on this machine's disk.
	return h.Typeflag != tar.TypeChar && h.Typeflag != tar.TypeBlock, nil
}

// bounded returns an error if the archive is longer than it should be, or if its context ends.
type bounded struct {
	ended      func() error // not nil once nobody waits for it
	from       io.Reader
	left, read int64
	full       error
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ended(); err != nil {
		return 0, err
	}
	n, err := b.from.Read(p)
	b.read += int64(n)
	if b.left -= int64(n); b.left < 0 {
		return 0, b.full
	}
	return n, err
}

// clip shortens an untrusted name for an error message.
func clip(s string) string {
	const shown = 200
	if len(s) <= shown {
		return s
	}
	return s[:shown] + "..."
}
