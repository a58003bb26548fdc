package weights

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Layer describes the model files in a layer of an image.
type Layer struct {
	Files []File `json:"files"`
	// Hidden lists the files and folders of lower layers that this one removes. A trailing / means the folder's content.
	Hidden []string `json:"hidden,omitempty"`
}

const (
	// maxEntries limits how many files of a layer are checked. The largest Python images have 200,000.
	maxEntries = 4 << 20
	// maxFiles limits how many model files of a layer are reported.
	maxFiles = 4096
)

// ScanAt looks for model files in an uncompressed layer of size bytes. It skips the content of files, so a layer of 24 GiB
// takes as long as one of 24 KiB.
func ScanAt(ctx context.Context, layer io.ReaderAt, size int64) (Layer, error) {
	section := io.NewSectionReader(layer, 0, size)
	return scan(ctx, section, func(_ *tar.Reader, h *tar.Header) (File, bool) {
		at, err := section.Seek(0, io.SeekCurrent)
		if err != nil || at+h.Size > size {
			return File{}, false
		}
		return Read(clean(h.Name), io.NewSectionReader(section, at, h.Size), h.Size)
	})
}

// Scan is ScanAt for a layer from a decompressor. It reads the whole layer.
func Scan(ctx context.Context, layer io.Reader) (Layer, error) {
	return scan(ctx, layer, func(t *tar.Reader, h *tar.Header) (File, bool) {
		return readStream(clean(h.Name), onlyReader{t}, h.Size)
	})
}

// onlyReader hides all methods of a reader except Read.
type onlyReader struct{ io.Reader }

func scan(ctx context.Context, layer io.Reader, look func(*tar.Reader, *tar.Header) (File, bool)) (Layer, error) {
	found := Layer{Files: []File{}}
	t := tar.NewReader(layer)
	for n := 0; ; n++ {
		if err := context.Cause(ctx); err != nil {
			return Layer{}, err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return Layer{}, fmt.Errorf("look for weights in a layer: %w", err)
		}
		if n > maxEntries {
			return Layer{}, fmt.Errorf("look for weights in a layer: it has more than %d files", maxEntries)
		}
		// Names of removed files follow the OCI image specification, layer.md, "Whiteouts".
		dir, base := path.Split(clean(h.Name))
		if removed, ok := strings.CutPrefix(base, ".wh."); ok {
			if len(found.Hidden) < maxEntries/4 {
				if base == ".wh..wh..opq" {
					found.Hidden = append(found.Hidden, dir)
				} else {
					found.Hidden = append(found.Hidden, dir+removed)
				}
			}
			continue
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if f, ok := look(t, h); ok && len(found.Files) < maxFiles {
			found.Files = append(found.Files, f)
		}
	}
}

func clean(name string) string { return path.Clean("/" + name) }

// Image returns the files that are visible in a stack of layers, given from the lowest up.
func Image(layers []Layer) []File {
	var files []File
	for _, layer := range layers {
		files = slices.DeleteFunc(files, func(f File) bool {
			return slices.ContainsFunc(layer.Hidden, func(hidden string) bool {
				dir := strings.TrimSuffix(hidden, "/") + "/"
				return f.Path == hidden || strings.HasPrefix(f.Path, dir)
			}) || slices.ContainsFunc(layer.Files, func(above File) bool { return above.Path == f.Path })
		})
		files = append(files, layer.Files...)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files
}
