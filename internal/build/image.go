package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layerAnnotation is the annotation in the manifest with a layer's name, which the server shows in lists.
const layerAnnotation = "penstock.layer"

// image is the image to push: its layers, config and manifest.
type image struct {
	base     *base
	layers   []*layer
	config   []byte
	manifest []byte
	digest   v1.Hash
}

// assemble creates config and manifest. Their bytes depend only on image.yaml and the layers.
func (img *image) assemble(spec Spec, epoch time.Time) error {
	created := v1.Time{Time: epoch.UTC()}
	config := v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, User: spec.User, WorkingDir: spec.WorkDir},
	}
	if img.base.config != nil {
		config = configOver(img.base.config, spec, len(img.base.layers))
	}
	config.Created = created
	for key, value := range spec.Labels {
		if config.Config.Labels == nil {
			config.Config.Labels = make(map[string]string)
		}
		config.Config.Labels[key] = value
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Env)) {
		config.Config.Env = append(config.Config.Env, key+"="+spec.Env[key])
	}
	for _, port := range spec.Ports {
		if config.Config.ExposedPorts == nil {
			config.Config.ExposedPorts = make(map[string]struct{})
		}
		config.Config.ExposedPorts[strconv.Itoa(port)+"/tcp"] = struct{}{}
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for _, l := range img.layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.built.DiffID)
		if l.madeBy != "" {
			config.History = append(config.History, v1.History{Created: created, CreatedBy: l.madeBy})
		}
		manifest.Layers = append(manifest.Layers, v1.Descriptor{
			MediaType: l.built.MediaType, Digest: l.built.Digest, Size: l.built.Size,
			Annotations: map[string]string{layerAnnotation: l.name},
		})
	}
	var err error
	if img.config, err = json.Marshal(config); err != nil {
		return fmt.Errorf("image config: %w", err)
	}
	manifest.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: sum(img.config), Size: int64(len(img.config))}
	if img.manifest, err = json.Marshal(manifest); err != nil {
		return fmt.Errorf("image manifest: %w", err)
	}
	img.digest = sum(img.manifest)
	return nil
}

func sum(raw []byte) v1.Hash {
	h := newHasher()
	_, _ = h.Write(raw) // a hash takes everything
	return h.sum()
}

// close closes the folders from which layers are read.
func (img *image) close() error {
	var errs []error
	for _, l := range img.layers {
		errs = append(errs, l.close())
	}
	if img.base != nil {
		errs = append(errs, img.base.close())
	}
	return errors.Join(errs...)
}
