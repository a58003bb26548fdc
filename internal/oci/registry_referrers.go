package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// subjectLabel marks the record of a manifest that refers to another one as its subject, like a signature. Its value is
// the digest of the subject.
const subjectLabel = "penstock/subject"

// maxReferrers is the maximum number of referrers in a response. Clients read the whole response.
const maxReferrers = 1000

// referrer is a manifest in a list of referrers.
type referrer struct {
	ArtifactType string              `json:"artifactType"`
	Config       *ocispec.Descriptor `json:"config"`
	Subject      *ocispec.Descriptor `json:"subject"`
	Annotations  map[string]string   `json:"annotations"`
}

// subjectOf returns the subject of a manifest, or "" if it has none.
func subjectOf(raw []byte) (digest.Digest, error) {
	var doc referrer
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", err
	}
	if doc.Subject == nil {
		return "", nil
	}
	return doc.Subject.Digest, checkDescriptor("subject", *doc.Subject)
}

// listedReferrers adds the referrers that have no record of their own, because an index of the repository keeps them.
func (r *Registry) listedReferrers(ctx context.Context, repository string, subject digest.Digest, known []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var found []digest.Digest
	err := r.stores.Content.Walk(ctx, func(info content.Info) error {
		found = append(found, info.Digest)
		return nil
	}, fmt.Sprintf("labels.%q==%s", subjectLabel, subject))
	if err != nil {
		return nil, err
	}
	for _, d := range found {
		if slices.ContainsFunc(known, func(k ocispec.Descriptor) bool { return k.Digest == d }) {
			continue
		}
		ref, err := inRepository(repository, d.String())
		if err != nil {
			return nil, err
		}
		child, _, ok, err := r.stores.listed(ctx, ref)
		if err != nil {
			return nil, err
		}
		if ok {
			known = append(known, child)
		}
	}
	return known, nil
}

// referrers responds with the manifests of a repository whose subject is dgst. The list can be empty.
func (r *Registry) referrers(w http.ResponseWriter, req *http.Request, repository, dgst string) error {
	d, err := parseDigest(dgst)
	if err != nil {
		return refuse(http.StatusBadRequest, "DIGEST_INVALID", "%v", err)
	}
	ctx := req.Context()
	records, err := r.stores.Images.List(ctx, fmt.Sprintf("labels.%q==%s", subjectLabel, d))
	if err != nil {
		return err
	}
	wanted := req.URL.Query().Get("artifactType")
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	var targets []ocispec.Descriptor
	for _, record := range records {
		if ref, ok := fromStoreName(record.Name); ok && ref.repository() == repository {
			targets = append(targets, record.Target)
		}
	}
	if targets, err = r.listedReferrers(ctx, repository, d, targets); err != nil {
		return err
	}
	for _, target := range targets {
		if slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == target.Digest }) {
			continue // a second name of the same manifest
		}
		raw, mediaType, err := r.manifestBlob(ctx, target)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		var doc referrer
		if err := json.Unmarshal(raw, &doc); err != nil {
			return err
		}
		// The specification requires this for manifests without an artifact type.
		if doc.ArtifactType == "" && doc.Config != nil {
			doc.ArtifactType = doc.Config.MediaType
		}
		if wanted != "" && doc.ArtifactType != wanted {
			continue
		}
		if len(index.Manifests) == maxReferrers {
			return fmt.Errorf("referrers of %s: want at most %d, got more", d, maxReferrers)
		}
		index.Manifests = append(index.Manifests, ocispec.Descriptor{
			MediaType: mediaType, Digest: target.Digest, Size: int64(len(raw)), ArtifactType: doc.ArtifactType, Annotations: doc.Annotations,
		})
	}
	slices.SortFunc(index.Manifests, func(a, b ocispec.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return writeJSON(w, ocispec.MediaTypeImageIndex, index)
}
