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
	// maxManifest is the maximum size of a manifest or config that is read into memory. The OCI distribution
	// specification 1.1, "Pushing Manifests", requires registries to accept at least this size.
	maxManifest = 4 << 20
	// maxReferences is the maximum number of layers of an image and of images in an index. The kernel mounts far fewer
	// layers (overlayfs: 500). Without a limit, 4 MiB of "{},{},..." would become hundreds of MiB of descriptors.
	maxReferences = 4096
)

// errNested rejects an index within an index where an image is to be run. The registry stores one level of them, as the
// specification demands, but nothing says which image of them this machine should run.
var errNested = errors.New("want an index of images, got an index within an index")

// errDeep rejects indexes that are nested deeper. A few small ones could be traversed in 4096^n ways.
var errDeep = errors.New("want an index of images, or of indexes of images, got a deeper one")

// manifest is what an image manifest or index refers to.
type manifest struct {
	mediaType string
	index     bool
	config    ocispec.Descriptor   // of an image manifest
	layers    []ocispec.Descriptor // of an image manifest
	children  []ocispec.Descriptor // of an index
}

// descriptors is a list whose length is limited while it is decoded.
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

// parseManifest parses an untrusted manifest. mediaType is what the sender declared, or empty.
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
	// Two programs could read a document with both kinds of content differently (CVE-2021-41190).
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

// references returns the descriptors that must be present for the manifest to be complete, config first.
func (m manifest) references() []ocispec.Descriptor {
	if m.index {
		return m.children
	}
	return append([]ocispec.Descriptor{m.config}, m.layers...)
}

// gcLabels returns the labels that tell containerd's garbage collector what the manifest refers to. They are the same
// as containerd's labels for images that it pulls.
func (m manifest) gcLabels() map[string]string {
	labels := make(map[string]string)
	seen := make(map[string]int)
	for _, desc := range m.references() {
		desc.Annotations = nil // an annotation could change the label
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

// imageConfig has the fields that are read from an image's config. The others, mainly the history, are ignored.
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

// parseConfig parses an untrusted image config and checks it against the number of layers in its manifest.
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
