package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxDocument is the largest index, manifest or config that is read. Registries accept manifests of 4 MiB
// (distribution-spec 1.1, "Pushing Manifests").
const maxDocument = 4 << 20

// layoutFiles are the files of an OCI image layout (image-spec 1.1, image-layout.md), in a folder or in a tar.
type layoutFiles interface {
	open(name string) (io.ReadCloser, error)
	close() error
}

// baseFromLayout uses an image in a layout as the base. Its blobs are read only if the server does not have them.
func baseFromLayout(dir *os.Root, from string) (*base, error) {
	files, err := openLayout(dir, filepath.FromSlash(from))
	if err != nil {
		return nil, err
	}
	b, err := layoutImage(files)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", from, err), files.close())
	}
	b.close = files.close
	return b, nil
}

func openLayout(dir *os.Root, from string) (layoutFiles, error) {
	info, err := dir.Stat(from)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		root, err := dir.OpenRoot(from)
		if err != nil {
			return nil, err
		}
		return layoutFolder{root}, nil
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("want a folder or a tar, got %q, which is %s", from, kind(info.Mode()))
	}
	f, err := openFile(dir, from)
	if err != nil {
		return nil, err
	}
	t := &layoutTar{file: f}
	if err := t.scan(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", from, err), f.Close())
	}
	return t, nil
}

// layoutImage finds the one image for this machine.
func layoutImage(files layoutFiles) (*base, error) {
	raw, err := readDocument(files, "index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotAnImage
	}
	if err != nil {
		return nil, err
	}
	read := func(d v1.Descriptor) ([]byte, error) { return readBlob(files, d) }
	target, err := pickImage(raw, read, false)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	manifest, config, err := parseImage(target, read)
	if err != nil {
		return nil, err
	}
	return baseOf(manifest, config, func(d v1.Descriptor) (io.ReadCloser, error) { return files.open(blobName(d.Digest)) })
}

// pickImage finds the image for this machine in an index, which may contain one more level of indexes.
func pickImage(raw []byte, read func(v1.Descriptor) ([]byte, error), nested bool) (v1.Descriptor, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return v1.Descriptor{}, err
	}
	var found []v1.Descriptor
	for _, d := range index.Manifests {
		switch {
		case d.Platform != nil && (d.Platform.OS != "linux" || d.Platform.Architecture != platform().Architecture):
		case d.MediaType.IsImage():
			found = append(found, d)
		case d.MediaType.IsIndex() && !nested:
			raw, err := read(d)
			if err != nil {
				return v1.Descriptor{}, err
			}
			inner, err := pickImage(raw, read, true)
			if err != nil {
				return v1.Descriptor{}, err
			}
			found = append(found, inner)
		}
	}
	if len(found) != 1 {
		return v1.Descriptor{}, fmt.Errorf("want one image for %s, got %d", platform(), len(found))
	}
	return found[0], nil
}

func blobName(h v1.Hash) string { return path.Join("blobs", "sha256", h.Hex) }

// readBlob reads a document and checks its digest.
func readBlob(files layoutFiles, d v1.Descriptor) ([]byte, error) {
	if !isSHA256(d.Digest) {
		return nil, fmt.Errorf("want a SHA-256 digest, got %q", clip(d.Digest.String()))
	}
	raw, err := readDocument(files, blobName(d.Digest))
	if err != nil {
		return nil, err
	}
	if sum(raw) != d.Digest {
		return nil, fmt.Errorf("%s: the content does not match the digest", d.Digest)
	}
	return raw, nil
}

func readDocument(files layoutFiles, name string) ([]byte, error) {
	f, err := files.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxDocument {
		return nil, fmt.Errorf("%s: want at most %d bytes, got more", name, maxDocument)
	}
	return raw, nil
}

type layoutFolder struct{ root *os.Root }

func (l layoutFolder) open(name string) (io.ReadCloser, error) {
	return openFile(l.root, name)
}
func (l layoutFolder) close() error { return l.root.Close() }

// layoutTar reads files directly from an uncompressed tar.
type layoutTar struct {
	file  *os.File
	files map[string]*io.SectionReader
}

func (l *layoutTar) open(name string) (io.ReadCloser, error) {
	section, ok := l.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(section, 0, section.Size())), nil
}

func (l *layoutTar) close() error { return l.file.Close() }

// scan finds the offsets of files. The tar reader does not read ahead, so after a header the file position is where the
// content begins.
func (l *layoutTar) scan() error {
	l.files = make(map[string]*io.SectionReader)
	for r := tar.NewReader(l.file); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("want an uncompressed tar: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if len(l.files) == maxEntries {
			return fmt.Errorf("want at most %d files, got more", maxEntries)
		}
		at, err := l.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if h.Size > math.MaxInt64-at {
			return errors.New("want a complete tar, got one that ends within a file")
		}
		l.files[path.Clean(h.Name)] = io.NewSectionReader(l.file, at, h.Size)
	}
}
