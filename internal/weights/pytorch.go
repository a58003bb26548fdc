package weights

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"io"
	"path"
)

// pytorch reads the format of torch.save since version 1.6: a zip file with the pickle data.pkl and one file per storage. The
// pickle comes first and is not compressed, so it can also be read from a stream.
func pytorch(h *header, at io.ReaderAt, sum tally) error {
	size := h.left
	if ok, err := firstIsPickle(h); err != nil {
		return err
	} else if ok {
		return unpickle(h, sum)
	}
	if at == nil {
		return errNotOurs // nothing shows that it is a model
	}
	files, err := zip.NewReader(&directory{r: at, left: maxDirectory}, size)
	if err != nil {
		return errNotOurs
	}
	for _, f := range files.File {
		if path.Base(f.Name) != pickleName {
			continue
		}
		if f.UncompressedSize64 > maxHeader {
			return errTooLarge
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		return unpickle(newHeader(r, int64(f.UncompressedSize64)), sum)
	}
	return errNotOurs
}

const (
	pickleName = "data.pkl"
	// maxDirectory limits the size of a zip file's directory. It is enough for about 150,000 storages.
	maxDirectory = 16 << 20
)

// directory is a reader that fails when more is read than a directory may have.
type directory struct {
	r    io.ReaderAt
	left int
}

var errDirectory = errors.New("the zip file's directory is too large")

func (d *directory) ReadAt(b []byte, off int64) (int, error) {
	if d.left -= len(b); d.left < 0 {
		return 0, errDirectory
	}
	return d.r.ReadAt(b, off)
}

// firstIsPickle reads the local header of the first file (APPNOTE 4.3.7) and reports whether the uncompressed pickle follows.
func firstIsPickle(h *header) (bool, error) {
	var b [30]byte
	if err := h.fill(b[:]); err != nil {
		return false, err
	}
	method := binary.LittleEndian.Uint16(b[8:])
	name, err := h.bytes(int64(binary.LittleEndian.Uint16(b[26:])))
	if err != nil {
		return false, err
	}
	if err := h.skip(int64(binary.LittleEndian.Uint16(b[28:]))); err != nil {
		return false, err
	}
	return method == zip.Store && path.Base(string(name)) == pickleName, nil
}
