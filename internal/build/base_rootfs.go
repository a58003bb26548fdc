package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// rootfs returns the layer of a root file system, from the cache or newly packed. The root file system is a folder or a tar,
// which may be compressed. Owners, permissions, times of files and hard links are kept.
func (c *cache) rootfs(ctx context.Context, dir *os.Root, from string, opts Options) (l *layer, hashed int64, err error) {
	begin := time.Now()
	local := filepath.FromSlash(from)
	info, err := dir.Stat(local)
	if err != nil {
		return nil, 0, err
	}
	fingerprint, err := rootfsFingerprint(ctx, dir, local, info, opts.Epoch)
	if err != nil {
		return nil, 0, err
	}
	built, file, cached := c.lookup(fingerprint, Zstd)
	if !cached {
		opts.report(Progress{Layer: "packing " + from, Stage: StageTool})
		if built, file, hashed, err = c.packRootFS(ctx, dir, local, info, opts.Epoch); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", from, err)
		}
		// A file that changed while it was read must not be remembered with its old state.
		again, err := rootfsFingerprint(ctx, dir, local, info, opts.Epoch)
		if err != nil {
			return nil, 0, err
		}
		if again != fingerprint {
			return nil, 0, &changedError{from}
		}
		if err := c.remember(fingerprint, built); err != nil {
			return nil, 0, err
		}
	}
	return &layer{
		name: "rootfs", madeBy: "penstock build: " + from, built: built, cached: cached, took: time.Since(begin),
		open:   func(context.Context) (io.ReadCloser, error) { return os.Open(file) },
		forget: func() error { return c.forget(fingerprint, file) },
		close:  nothing,
	}, hashed, nil
}

func (c *cache) packRootFS(ctx context.Context, dir *os.Root, from string, info fs.FileInfo, epoch time.Time) (b blob, file string, hashed int64, err error) {
	tree := &rootfs{
		epoch: epoch, made: time.Unix(math.MaxInt32, 0),
		drop: func(name string, _ byte) bool { return strings.HasPrefix(name, "dev/") }, // each container gets its own /dev
	}
	file, err = c.write("layers", func(f *os.File) (string, error) {
		plain, packed := newHasher(), newHasher()
		compressor, err := newCompressor(Zstd, io.MultiWriter(packed, f))
		if err != nil {
			return "", err
		}
		err = readRootFS(ctx, dir, from, info, func(in io.Reader) error {
			_, err := tree.pack(ctx, in, io.MultiWriter(plain, compressor))
			return err
		})
		if err := errors.Join(err, compressor.Close()); err != nil {
			return "", err
		}
		b = blob{DiffID: plain.sum(), Digest: packed.sum(), Size: packed.size, MediaType: mediaTypes[Zstd]}
		hashed = plain.size + packed.size
		return c.layerPath(b), nil
	})
	return b, file, hashed, err
}

// readRootFS passes the tree on as a tar.
func readRootFS(ctx context.Context, dir *os.Root, from string, info fs.FileInfo, read func(io.Reader) error) error {
	if info.IsDir() {
		r, w := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.CloseWithError(tarOf(ctx, dir, from, w))
		}()
		err := read(r)
		_ = r.CloseWithError(err) // which ends the writer
		<-done
		return err
	}
	f, err := openFile(dir, from)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, copyBuffer)
	magic, _ := in.Peek(4) // a file that is too short is not a tar
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}): // RFC 1952 2.3.1
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		return read(unpacked)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878 3.1.1
		unpacked, err := zstd.NewReader(in)
		if err != nil {
			return err
		}
		defer unpacked.Close()
		return read(unpacked)
	}
	return read(in)
}

// tarOf writes a folder as a tar. The same folder gives the same bytes.
func tarOf(ctx context.Context, dir *os.Root, from string, w io.Writer) error {
	root, err := dir.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	t := &tree{root: root}
	tw := tar.NewWriter(w)
	linked := make(map[inode]string)
	buf := make([]byte, copyBuffer)
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || p == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = root.Readlink(filepath.FromSlash(p)); err != nil {
				return err
			}
		}
		if info.Mode()&fs.ModeSocket != 0 { // a tar cannot contain sockets
			return fmt.Errorf("%s: want files, folders and links, got a socket", p)
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name, h.Uname, h.Gname = p, "", ""
		if id, links, ok := fileID(info); ok && links > 1 && info.Mode().IsRegular() {
			if first, again := linked[id]; again {
				h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			} else {
				linked[id] = p
			}
		}
		if err := tw.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
			return err
		}
		return t.copyFile(ctx, tw, entry{path: p, info: info}, buf, func(int) {})
	})
	return errors.Join(err, tw.Close())
}

// rootfsFingerprint identifies the state of the tree without reading files.
func rootfsFingerprint(ctx context.Context, dir *os.Root, from string, info fs.FileInfo, epoch time.Time) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "rootfs %d %d\n", layerFormat, epoch.Unix())
	add := func(p string, info fs.FileInfo) {
		id, _, _ := fileID(info)
		fmt.Fprintf(h, "%q %o %d %d %v %d\n", p, info.Mode(), info.Size(), info.ModTime().UnixNano(), id, changed(info).UnixNano())
	}
	if !info.IsDir() {
		now, err := dir.Stat(from)
		if err != nil {
			return "", err
		}
		add(".", now)
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	root, err := dir.OpenRoot(from)
	if err != nil {
		return "", err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		add(p, info)
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)), err
}
