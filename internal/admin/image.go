package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"penstock/internal/admin/wire"
	"penstock/internal/oci"
	"penstock/internal/weights"
)

func (a *api) inspectImage(w http.ResponseWriter, r *http.Request) {
	if !a.keepsImages(w) {
		return
	}
	image, err := a.Images.Store.Resolve(r.Context(), r.PathValue("name"))
	switch {
	case errors.Is(err, oci.ErrNotFound):
		a.fail(w, http.StatusNotFound, "ImageNotFound", err)
		return
	case err != nil:
		a.fail(w, http.StatusBadRequest, "ImageNotReadable", err)
		return
	}
	details, err := a.imageDetails(r.Context(), image)
	if err != nil {
		a.fail(w, http.StatusInternalServerError, "ImageStoreFailed", err)
		return
	}
	a.respond(w, http.StatusOK, details)
}

func (a *api) imageDetails(ctx context.Context, image oci.Image) (wire.ImageDetails, error) {
	details := wire.ImageDetails{Models: []wire.Model{}, Replicas: []wire.ImageReplica{}}
	list, err := a.Images.Store.List(ctx)
	if err != nil {
		return details, err
	}
	at := slices.IndexFunc(list, func(s oci.Summary) bool { return s.Name == image.Name })
	if at < 0 { // the request names a digest
		at = slices.IndexFunc(list, func(s oci.Summary) bool { return s.Digest == image.Digest })
	}
	if at < 0 {
		return details, fmt.Errorf("image %q: it was deleted meanwhile", image.Name)
	}
	details.Image = imageOnWire(list[at])
	files, err := a.Images.Store.Weights(ctx, image)
	if err != nil {
		return details, err
	}
	for _, m := range weights.Models(files) {
		details.Models = append(details.Models, wire.Model{
			Path: m.Path, Format: string(m.Format), Files: m.Files, Parameters: m.Parameters, Bytes: m.Bytes, Type: m.Type,
			Problem: m.Problem, Needs: m.Needs(),
		})
	}
	replicas, err := a.Runtime.Replicas(ctx)
	if err != nil {
		return details, err
	}
	for _, replica := range replicas {
		revision, err := a.Revision(ctx, replica.Revision)
		if err != nil || !slices.Contains(slices.Collect(maps.Values(revision.Images)), image.Digest.String()) {
			continue // the revision of a stray replica is unknown
		}
		mapped, err := a.Runtime.Mapped(ctx, replica.Name)
		if err != nil {
			a.Log.Debug("memory of a replica cannot be read", "replica", replica.Name, "err", err)
		}
		if mapped.RSS == 0 {
			continue // none of its processes runs
		}
		details.Replicas = append(details.Replicas, wire.ImageReplica{
			Name: replica.Name, Revision: replica.Revision.Base(), RSS: mapped.RSS, PSS: mapped.PSS,
		})
	}
	return details, nil
}

func imageOnWire(s oci.Summary) wire.Image {
	image := wire.Image{
		Name: s.Name, Digest: s.Digest.String(), Created: s.Created, Size: s.Size, Unique: s.Unique, Shared: s.Shared,
		Layers: []wire.Layer{}, Problem: s.Problem,
	}
	for _, l := range s.Layers {
		image.Layers = append(image.Layers, wire.Layer{
			Name: l.Name, Digest: l.Digest.String(), MediaType: l.MediaType, Size: l.Size, SharedWith: l.SharedWith,
		})
	}
	return image
}
