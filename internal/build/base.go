package build

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// base is the image below the layers of an image.yaml.
type base struct {
	layers []*layer
	config *v1.ConfigFile // nil if the base has only files
	hashed int64
	close  func() error
}

// openBase finds or builds the base. The caller closes it and its layers.
func openBase(ctx context.Context, store *cache, dir *os.Root, spec BaseSpec, opts Options) (*base, error) {
	switch {
	case spec.Debian != nil:
		d := &debian{cache: store, spec: *spec.Debian, epoch: opts.Epoch, refresh: opts.Refresh, say: func(what, detail string) {
			opts.report(Progress{Layer: what, Stage: StageTool, Detail: detail})
		}}
		layers, hashed, err := d.layers(ctx)
		if err != nil {
			return nil, fmt.Errorf("base.debian: %w", err)
		}
		return &base{layers: layers, hashed: hashed, close: nothing}, nil
	case spec.Image != "":
		b, err := baseFromRegistry(ctx, opts.Registry, spec.Image)
		if _, missing := errors.AsType[*missingError](err); missing && opts.Pull != nil && OfAnotherRegistry(spec.Image) {
			opts.report(Progress{Layer: "pulling " + spec.Image, Stage: StageTool})
			if err = opts.Pull(ctx, spec.Image); err == nil {
				b, err = baseFromRegistry(ctx, opts.Registry, spec.Image)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("base.image: %w", err)
		}
		return b, nil
	case spec.Layout != "":
		b, err := baseFromLayout(dir, spec.Layout)
		if err != nil {
			return nil, fmt.Errorf("base.layout: %w", err)
		}
		return b, nil
	case spec.RootFS != "":
		l, hashed, err := store.rootfs(ctx, dir, spec.RootFS, opts)
		if err != nil {
			return nil, fmt.Errorf("base.rootfs: %w", err)
		}
		return &base{layers: []*layer{l}, hashed: hashed, close: nothing}, nil
	}
	return &base{close: nothing}, nil
}

// missingError is the error if the server does not have the base.
type missingError struct{ image string }

func (e *missingError) Error() string {
	return fmt.Sprintf("want an image on this server, got %q, which does not exist", e.image)
}

// OfAnotherRegistry reports whether an image's name begins with the host of a registry, by Docker's rule.
func OfAnotherRegistry(image string) bool {
	host, _, below := strings.Cut(image, "/")
	return below && (strings.ContainsAny(host, ".:") || host == "localhost")
}

// baseFromRegistry uses an image on the server as the base. Its layers stay on the server.
func baseFromRegistry(ctx context.Context, from Registry, image string) (*base, error) {
	tag, u, err := from.tag(image)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(tag, remote.WithContext(ctx), remote.WithPlatform(platform()),
		remote.WithTransport(&wire{next: from.transport(), scheme: u.Scheme}))
	if err != nil {
		if statusOf(err) == http.StatusNotFound {
			return nil, &missingError{image}
		}
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	b, err := baseOf(manifest, config, func(d v1.Descriptor) (io.ReadCloser, error) {
		l, err := img.LayerByDigest(d.Digest)
		if err != nil {
			return nil, err
		}
		return l.Compressed()
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	return b, nil
}

func platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// layerTypes are the media types of layers that an engine can unpack, with the names of Docker and OCI.
var layerTypes = map[types.MediaType]types.MediaType{
	types.OCIUncompressedLayer:    types.OCIUncompressedLayer,
	types.OCILayer:                types.OCILayer,
	types.OCILayerZStd:            types.OCILayerZStd,
	types.DockerUncompressedLayer: types.OCIUncompressedLayer,
	types.DockerLayer:             types.OCILayer,
}

// baseOf takes over an image's layers and config. It checks only that manifest and config belong together. The engine checks
// the content of layers when it unpacks them.
func baseOf(manifest *v1.Manifest, config *v1.ConfigFile, open func(v1.Descriptor) (io.ReadCloser, error)) (*base, error) {
	if got, want := (v1.Platform{OS: config.OS, Architecture: config.Architecture}), platform(); cmp.Or(got.OS, want.OS) != want.OS || cmp.Or(got.Architecture, want.Architecture) != want.Architecture {
		return nil, fmt.Errorf("want an image for %s/%s, got one for %s/%s", want.OS, want.Architecture, clip(got.OS), clip(got.Architecture))
	}
	if len(manifest.Layers) != len(config.RootFS.DiffIDs) || len(manifest.Layers) > maxLayers {
		return nil, fmt.Errorf("want up to %d layers and the same number in manifest and config, got %d and %d", maxLayers, len(manifest.Layers), len(config.RootFS.DiffIDs))
	}
	b := &base{config: config, close: nothing}
	for i, d := range manifest.Layers {
		mediaType, ok := layerTypes[d.MediaType]
		if diffID := config.RootFS.DiffIDs[i]; !ok || d.Size < 0 || !isSHA256(d.Digest) || !isSHA256(diffID) || len(d.URLs) > 0 {
			return nil, fmt.Errorf("layer %d: want a tar, plain or compressed with gzip or zstd, with SHA-256 digests, got %s %s of %d bytes", i, clip(string(d.MediaType)), clip(d.Digest.String()), d.Size)
		}
		layerName := d.Annotations[layerAnnotation]
		if !layerNamePattern.MatchString(layerName) {
			layerName = fmt.Sprintf("base-%d", i+1)
		}
		b.layers = append(b.layers, &layer{
			name: layerName, cached: true,
			built:  blob{DiffID: config.RootFS.DiffIDs[i], Digest: d.Digest, Size: d.Size, MediaType: mediaType},
			open:   func(context.Context) (io.ReadCloser, error) { return open(d) },
			forget: nothing, close: nothing,
		})
	}
	return b, nil
}

func isSHA256(h v1.Hash) bool { return h.Algorithm == "sha256" && len(h.Hex) == 64 }

// parseImage parses manifest and config, and checks their digests.
func parseImage(target v1.Descriptor, read func(v1.Descriptor) ([]byte, error)) (*v1.Manifest, *v1.ConfigFile, error) {
	raw, err := read(target)
	if err != nil {
		return nil, nil, fmt.Errorf("manifest: %w", err)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, fmt.Errorf("manifest: %w", err)
	}
	raw, err = read(manifest.Config)
	if err != nil {
		return nil, nil, fmt.Errorf("config: %w", err)
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, fmt.Errorf("config: %w", err)
	}
	return manifest, config, nil
}

// configOver returns the config of an image with a base: values of the image.yaml replace those of the base, and the others
// stay. A new entrypoint removes the base's cmd, as in a Dockerfile.
func configOver(config *v1.ConfigFile, spec Spec, layers int) v1.ConfigFile {
	over := *config
	over.RootFS = v1.RootFS{Type: "layers"}
	over.History = historyOf(config, layers)
	c := &over.Config
	if spec.Entrypoint != nil {
		c.Entrypoint, c.Cmd = spec.Entrypoint, nil
	}
	if spec.Cmd != nil {
		c.Cmd = spec.Cmd
	}
	c.User, c.WorkingDir = cmp.Or(spec.User, c.User), cmp.Or(spec.WorkDir, c.WorkingDir)
	c.Env = slices.DeleteFunc(slices.Clone(c.Env), func(v string) bool {
		key, _, _ := strings.Cut(v, "=")
		_, again := spec.Env[key]
		return again
	})
	return over
}

// historyOf returns an image's history only if it has an entry for each layer, which tools expect.
func historyOf(config *v1.ConfigFile, layers int) []v1.History {
	told := 0
	for _, h := range config.History {
		if !h.EmptyLayer {
			told++
		}
	}
	if told != layers {
		return make([]v1.History, layers)
	}
	return slices.Clone(config.History)
}

// check returns an error if the image with its base exceeds the limits of an image.
func (img *image) check() error {
	if n := len(img.layers); n < 1 || n > maxLayers {
		return fmt.Errorf("want 1 to %d layers including those of the base, got %d", maxLayers, n)
	}
	return nil
}

var errNotAnImage = errors.New("want an OCI image layout: oci-layout, index.json and blobs/sha256")
