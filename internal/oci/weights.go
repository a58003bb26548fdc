package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"penstock/internal/weights"
)

const (
	// maxScanned is the number of layers whose models are cached.
	maxScanned = 1024
	// maxUnpacked limits how much of a compressed layer is read. It is more than twice the largest image that Azure
	// accepts on a dedicated profile.
	maxUnpacked = 512 << 30
)

// scanned caches what layers contain. Layers never change, so entries do not become outdated.
type scanned struct {
	mu     sync.Mutex
	layers map[digest.Digest]weights.Layer
}

func (s *scanned) get(d digest.Digest) (weights.Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	layer, ok := s.layers[d]
	return layer, ok
}

func (s *scanned) put(d digest.Digest, layer weights.Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layers == nil || len(s.layers) >= maxScanned {
		s.layers = map[digest.Digest]weights.Layer{}
	}
	s.layers[d] = layer
}

// Weights returns the model files of an image, by path. An uncompressed layer is read in place, whatever its size is. A
// compressed layer must be read whole once.
func (im *Images) Weights(ctx context.Context, image Image) ([]weights.File, error) {
	ctx = inNamespace(ctx)
	found, err := im.forPlatform(ctx, image.Record.Target)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", image.Name, err)
	}
	layers := make([]weights.Layer, 0, len(found.layers))
	for _, desc := range found.layers {
		layer, known := im.scanned.get(desc.Digest)
		if !known {
			if layer, err = im.scan(ctx, desc); err != nil {
				return nil, fmt.Errorf("image %q: layer %s: %w", image.Name, desc.Digest, err)
			}
			im.scanned.put(desc.Digest, layer)
		}
		layers = append(layers, layer)
	}
	return weights.Image(layers), nil
}

func (im *Images) scan(ctx context.Context, desc ocispec.Descriptor) (weights.Layer, error) {
	blob, err := im.stores.Content.ReaderAt(ctx, desc)
	if err != nil {
		return weights.Layer{}, err
	}
	defer blob.Close()
	// The media type of a layer may be wrong, so check its first bytes.
	magic := make([]byte, 16)
	if _, err := blob.ReadAt(magic, 0); err != nil && !errors.Is(err, io.EOF) {
		return weights.Layer{}, err
	}
	if compression.DetectCompression(magic) == compression.Uncompressed {
		return weights.ScanAt(ctx, blob, blob.Size())
	}
	stream, err := compression.DecompressStream(content.NewReader(blob))
	if err != nil {
		return weights.Layer{}, err
	}
	defer stream.Close()
	return weights.Scan(ctx, io.LimitReader(stream, maxUnpacked))
}
