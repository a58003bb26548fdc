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

// layerFormat is part of every fingerprint. It is increased when the same files give different bytes, after a change of this
// package or of the compressors.
const layerFormat = 1

// copyBuffer is large enough for efficient disk reads and small compared with everything else.
const copyBuffer = 1 << 20

// layer is a layer of the image, ready to be pushed.
type layer struct {
	name   string
	madeBy string // for the image's history; empty if the base has the history
	built  blob
	cached bool
	took   time.Duration
	open   func(ctx context.Context) (io.ReadCloser, error) // opens the bytes to send, if the server does not have them
	forget func() error                                     // removes a damaged layer from the cache
	close  func() error
}

func nothing() error { return nil }

// files is the source of a layer of image.yaml.
type files struct {
	spec  LayerSpec
	tree  *tree
	epoch time.Time
}

// blob describes a packed layer.
type blob struct {
	DiffID    v1.Hash         `json:"diffID"` // digest of the tar
	Digest    v1.Hash         `json:"digest"` // digest of the packed layer
	Size      int64           `json:"size"`   // of the packed layer
	MediaType types.MediaType `json:"mediaType"`
}

var mediaTypes = map[Compression]types.MediaType{
	None: types.OCIUncompressedLayer,
	Gzip: types.OCILayer,
	Zstd: types.OCILayerZStd,
}

// hasher computes digest and size of what is written to it.
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

// pack reads the layer's files once and writes the packed layer to w. If w is nil and the layer is not compressed, it only
// computes the digest. It returns the number of hashed bytes.
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

// newCompressor returns a compressor whose output depends only on its input, not on names, times or threads.
func newCompressor(c Compression, w io.Writer) (io.WriteCloser, error) {
	if c == Zstd {
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}
	return gzip.NewWriterLevel(w, gzip.DefaultCompression)
}

// writeTar writes the layer's files, preceded by their parent folders. The bytes depend only on the entries.
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

// copyFile writes a file's content if the file has not changed since it was found.
func (t *tree) copyFile(ctx context.Context, w io.Writer, e entry, buf []byte, read func(n int)) error {
	f, err := openFile(t.root, e.path)
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

// changedError reports that a file changed while it was packed.
type changedError struct{ path string }

func (e *changedError) Error() string {
	return fmt.Sprintf("%s changed while it was read; build again when no program writes to it", e.path)
}
