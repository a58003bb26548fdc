package unpack

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// zstdWindow is the largest window that is accepted. RFC 8878 section 3.1.1.1.2 asks decoders to support 8 MiB, and
	// the zstd program accepts up to 128 MiB by default.
	zstdWindow = 128 << 20
	readAhead  = 64 << 10
)

// decompress detects the compression of a layer by its first bytes. The media type may be wrong, as in images of old
// builders.
func decompress(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, readAhead)
	head, err := in.Peek(10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch compression.DetectCompression(head) {
	case compression.Uncompressed:
		return io.NopCloser(in), nil
	case compression.Gzip:
		return gzip.NewReader(in)
	case compression.Zstd:
		d, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("want a tar archive, plain or in gzip or zstd, got one that begins with %x", head)
}
