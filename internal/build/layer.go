package build

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// layerFormat is part of every fingerprint. It grows when the same files come to give other bytes: after a change
// here, or of the compressors.
const layerFormat = 1

// copyBuffer is large enough for a disk and small beside everything else.
const copyBuffer = 1 << 20

// layer is a layer of the image that is built, ready to be pushed.
type layer struct {
	name   string
	madeBy string // for the image's history; empty when the history is that of a base
	built  blob
	cached bool
	took   time.Duration
	open   func(ctx context.Context) (io.ReadCloser, error) // what moves, when the server does not have it
	forget func() error                                     // drops what the cache has of it, for it turned out to be wrong
	close  func() error
}

func nothing() error { return nil }

// files are what a layer of image.yaml is packed from.
type files struct {
	spec  LayerSpec
	tree  *tree
	epoch time.Time
}

// blob is what is known of a packed layer.
type blob struct {
	DiffID    v1.Hash         `json:"diffID"` // digest of the tar
	Digest    v1.Hash         `json:"digest"` // digest of what is moved
	Size      int64           `json:"size"`   // of what is moved
	MediaType types.MediaType `json:"mediaType"`
}

var mediaTypes = map[Compression]types.MediaType{
	None: types.OCIUncompressedLayer,
	Gzip: types.OCILayer,
	Zstd: types.OCILayerZStd,
}

// hasher takes the digest and size of what is written.
type hasher struct {
	hash hash.Hash
	size int64
}

func newHasher() *hasher { return &hasher{hash: sha256.New()} }

func (h *hasher) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	return h.hash.Write(p)
}

func (h *hasher) sum() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.hash.Sum(nil))}
}

// pack reads the layer's files once and writes the packed layer to w, or only takes its digest when the layer is not
// compressed and w is nil. It returns the bytes that were hashed.
func (l *files) pack(ctx context.Context, w io.Writer, read func(n int)) (b blob, hashed int64, err error) {
	plain := newHasher()
	b.MediaType = mediaTypes[l.spec.Compression]
	if l.spec.Compression == None {
		if err := l.writeTar(ctx, plain, read); err != nil {
			return blob{}, 0, err
		}
		b.DiffID, b.Digest, b.Size = plain.sum(), plain.sum(), plain.size
		return b, plain.size, nil
	}
	packed := newHasher()
	compressor, err := newCompressor(l.spec.Compression, io.MultiWriter(packed, w))
	if err != nil {
		return blob{}, 0, err
	}
	err = l.writeTar(ctx, io.MultiWriter(plain, compressor), read)
	if err := errors.Join(err, compressor.Close()); err != nil {
		return blob{}, 0, err
	}
	b.DiffID, b.Digest, b.Size = plain.sum(), packed.sum(), packed.size
	return b, plain.size + packed.size, nil
}

// newCompressor returns a compressor whose output depends on its input only: no names, times or threads.
func newCompressor(c Compression, w io.Writer) (io.WriteCloser, error) {
	if c == Zstd {
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}
	return gzip.NewWriterLevel(w, gzip.DefaultCompression)
}

// writeTar writes the layer's files, the folders above them first. The bytes follow from the entries alone.
func (l *files) writeTar(ctx context.Context, w io.Writer, read func(n int)) error {
	tw := tar.NewWriter(w)
	target := strings.Trim(l.spec.To, "/")
	if l.tree.file && strings.HasSuffix(l.spec.To, "/") {
		target = path.Join(target, path.Base(l.spec.From))
	}
	for i := range len(target) {
		if target[i] == '/' {
			if err := tw.WriteHeader(l.header(target[:i]+"/", tar.TypeDir, 0o755, 0, 0)); err != nil {
				return err
			}
		}
	}
	buf := make([]byte, copyBuffer)
	for _, e := range l.tree.entries {
		name := path.Join(target, e.path)
		if l.tree.file {
			name = target
		}
		if name == "." || name == "" { // the root of the image
			continue
		}
		if err := l.writeEntry(ctx, tw, name, e, buf, read); err != nil {
			return err
		}
	}
	return tw.Close()
}

func (l *files) writeEntry(ctx context.Context, tw *tar.Writer, name string, e entry, buf []byte, read func(n int)) error {
	switch mode := e.info.Mode(); {
	case mode.IsDir():
		return tw.WriteHeader(l.header(name+"/", tar.TypeDir, 0o755, l.spec.UID, l.spec.GID))
	case mode&fs.ModeSymlink != 0:
		h := l.header(name, tar.TypeSymlink, 0o777, l.spec.UID, l.spec.GID)
		h.Linkname = filepath.ToSlash(e.link)
		return tw.WriteHeader(h)
	default:
		perm := int64(0o644)
		if mode&0o111 != 0 {
			perm = 0o755
		}
		h := l.header(name, tar.TypeReg, perm, l.spec.UID, l.spec.GID)
		h.Size = e.info.Size()
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		return l.tree.copyFile(ctx, tw, e, buf, read)
	}
}

func (l *files) header(name string, kind byte, mode int64, uid, gid int) *tar.Header {
	return &tar.Header{Typeflag: kind, Name: name, Mode: mode, Uid: uid, Gid: gid, ModTime: l.epoch}
}

// copyFile writes a file's content if it is still the file that was found.
func (t *tree) copyFile(ctx context.Context, w io.Writer, e entry, buf []byte, read func(n int)) error {
	f, err := t.root.Open(filepath.FromSlash(e.path))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(info, e.info) || info.Size() != e.info.Size() || !info.ModTime().Equal(e.info.ModTime()) {
		return &changedError{e.path}
	}
	for left := info.Size(); left > 0; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := f.Read(buf[:min(left, int64(len(buf)))])
		if n > 0 {
			left -= int64(n)
			read(n)
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && left > 0:
			return &changedError{e.path}
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
	}
	return nil
}

// changedError says that a file was changed while it was packed.
type changedError struct{ path string }

func (e *changedError) Error() string {
	return fmt.Sprintf("%s changed while it was read; build again when nothing writes to it", e.path)
}
