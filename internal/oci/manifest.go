package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxManifest is the largest manifest or config that is read into memory: the size that the OCI distribution
	// specification 1.1, "Pushing Manifests", asks registries to accept at least.
	maxManifest = 4 << 20
	// maxReferences bounds the layers of an image and the images of an index. The kernel mounts far fewer layers
	// (overlayfs: 500), and without a bound 4 MiB of "{},{},..." would become hundreds of MiB of descriptors.
	maxReferences = 4096
)

// errNested refuses what no builder makes: without it a few small indexes can be walked in 4096^n ways.
var errNested = errors.New("want an index of images, got an index within an index")

// manifest is what an image manifest or index refers to.
type manifest struct {
	mediaType string
	index     bool
	config    ocispec.Descriptor   // of an image manifest
	layers    []ocispec.Descriptor // of an image manifest
	children  []ocispec.Descriptor // of an index
}

// descriptors is a list that refuses to grow without bound while it is read.
type descriptors []ocispec.Descriptor

func (d *descriptors) UnmarshalJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	open, err := dec.Token()
	if err != nil {
		return err
	}
	if open != json.Delim('[') {
		return errors.New("want a list of descriptors")
	}
	*d = descriptors{}
	for dec.More() {
		if len(*d) == maxReferences {
			return fmt.Errorf("want at most %d descriptors in a list", maxReferences)
		}
		var desc ocispec.Descriptor
		if err := dec.Decode(&desc); err != nil {
			return err
		}
		*d = append(*d, desc)
	}
	return nil
}

// parseManifest reads a manifest from outside. mediaType is what the sender said it is, or empty.
func parseManifest(raw []byte, mediaType string) (manifest, error) {
	var doc struct {
		SchemaVersion int                 `json:"schemaVersion"`
		MediaType     string              `json:"mediaType"`
		Config        *ocispec.Descriptor `json:"config"`
		Layers        *descriptors        `json:"layers"`
		Manifests     *descriptors        `json:"manifests"`
	}
	if len(raw) > maxManifest {
		return manifest{}, fmt.Errorf("want at most %d bytes, got %d", maxManifest, len(raw))
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return manifest{}, fmt.Errorf("want a JSON manifest: %w", err)
	}
	if doc.SchemaVersion != 2 {
		return manifest{}, fmt.Errorf("schemaVersion: want 2, got %d", doc.SchemaVersion)
	}
	if doc.MediaType != "" && mediaType != "" && doc.MediaType != mediaType {
		return manifest{}, fmt.Errorf("mediaType: want %q as in Content-Type, got %q", mediaType, doc.MediaType)
	}
	m := manifest{mediaType: doc.MediaType}
	if m.mediaType == "" {
		m.mediaType = mediaType
	}
	switch {
	case images.IsIndexType(m.mediaType):
		m.index = true
	case images.IsManifestType(m.mediaType):
	case m.mediaType == "" && doc.Manifests != nil:
		m.mediaType, m.index = ocispec.MediaTypeImageIndex, true
	case m.mediaType == "" && doc.Config != nil:
		m.mediaType = ocispec.MediaTypeImageManifest
	default:
		return manifest{}, fmt.Errorf("mediaType: want an OCI or Docker image manifest or index, got %q", clip(m.mediaType))
	}
	// A document that can be read both ways is one that two programs may read differently (CVE-2021-41190).
	if m.index {
		if doc.Manifests == nil || doc.Config != nil || doc.Layers != nil {
			return manifest{}, errors.New("an index: want manifests, and neither config nor layers")
		}
		m.children = *doc.Manifests
		return m, checkDescriptors("manifests", m.children)
	}
	if doc.Config == nil || doc.Layers == nil || doc.Manifests != nil {
		return manifest{}, errors.New("an image manifest: want config and layers, and no manifests")
	}
	m.config, m.layers = *doc.Config, *doc.Layers
	if err := checkDescriptor("config", m.config); err != nil {
		return manifest{}, err
	}
	return m, checkDescriptors("layers", m.layers)
}

func checkDescriptors(field string, descs []ocispec.Descriptor) error {
	for i, desc := range descs {
		if err := checkDescriptor(fmt.Sprintf("%s[%d]", field, i), desc); err != nil {
			return err
		}
	}
	return nil
}

func checkDescriptor(field string, desc ocispec.Descriptor) error {
	if _, err := parseDigest(desc.Digest.String()); err != nil {
		return fmt.Errorf("%s.%w", field, err)
	}
	if desc.Size < 0 {
		return fmt.Errorf("%s.size: want 0 or more, got %d", field, desc.Size)
	}
	if desc.MediaType == "" {
		return fmt.Errorf("%s.mediaType: it is missing", field)
	}
	return nil
}

// references are the descriptors that must be present for the manifest to be whole, config first.
func (m manifest) references() []ocispec.Descriptor {
	if m.index {
		return m.children
	}
	return append([]ocispec.Descriptor{m.config}, m.layers...)
}

// gcLabels are the labels by which containerd's garbage collector sees that the manifest holds what it refers to,
// spelled as containerd spells them for images it pulls.
func (m manifest) gcLabels() map[string]string {
	labels := make(map[string]string)
	seen := make(map[string]int)
	for _, desc := range m.references() {
		desc.Annotations = nil // one of them would change the label
		for _, key := range images.ChildGCLabels(desc) {
			n := seen[key]
			seen[key] = n + 1
			if n > 0 || strings.HasSuffix(key, ".") {
				key = fmt.Sprintf("%s%d", key, n)
			}
			labels[key] = desc.Digest.String()
		}
	}
	return labels
}

// imageConfig is what is read of an image's config. The rest, above all its history, is left in the blob.
type imageConfig struct {
	ocispec.Platform
	Config struct {
		User         string              `json:"User"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Env          []string            `json:"Env"`
		Entrypoint   []string            `json:"Entrypoint"`
		Cmd          []string            `json:"Cmd"`
		WorkingDir   string              `json:"WorkingDir"`
		Labels       map[string]string   `json:"Labels"`
	} `json:"config"`
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// parseConfig reads an image's config from outside and checks it against the number of its manifest's layers.
func parseConfig(raw []byte, layers int) (imageConfig, error) {
	var config imageConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		return imageConfig{}, fmt.Errorf("want a JSON image config: %w", err)
	}
	if got := len(config.RootFS.DiffIDs); got != layers {
		return imageConfig{}, fmt.Errorf("rootfs.diff_ids: want %d as there are layers, got %d", layers, got)
	}
	for i, id := range config.RootFS.DiffIDs {
		if _, err := parseDigest(id.String()); err != nil {
			return imageConfig{}, fmt.Errorf("rootfs.diff_ids[%d]: %w", i, err)
		}
	}
	return config, nil
}
