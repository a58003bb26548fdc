package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"penstock/internal/oci"
	"penstock/internal/runtimes"
	"penstock/internal/weights"
)

// What GET /penstock/v1/images/{name} answers.
type (
	imageView struct {
		oci.Summary
		// Models are what the headers of the image's model files say, the largest first.
		Models   []modelView        `json:"models"`
		Replicas []replicaImageView `json:"replicas"`
	}
	modelView struct {
		weights.Model
		// Needs is the memory, in bytes, that a replica should have to serve it.
		Needs int64 `json:"needs"`
	}
	// replicaImageView is a replica that runs the image.
	replicaImageView struct {
		Name     string `json:"name"`
		Revision string `json:"revision"`
		runtimes.Mapped
	}
)

func (a *admin) inspectImage(w http.ResponseWriter, r *http.Request) {
	if a.machine.images == nil {
		a.refuse(w, http.StatusNotFound, "ImageNotFound", errors.New("the fake runtime keeps no images"))
		return
	}
	image, err := a.machine.images.Resolve(r.Context(), r.PathValue("name"))
	switch {
	case errors.Is(err, oci.ErrNotFound):
		a.refuse(w, http.StatusNotFound, "ImageNotFound", err)
		return
	case err != nil:
		a.refuse(w, http.StatusBadRequest, "ImageNotReadable", err)
		return
	}
	view, err := a.viewImage(r.Context(), image)
	if err != nil {
		a.refuse(w, http.StatusInternalServerError, "ImageStoreFailed", err)
		return
	}
	a.answer(w, http.StatusOK, view)
}

func (a *admin) viewImage(ctx context.Context, image oci.Image) (imageView, error) {
	view := imageView{Models: []modelView{}, Replicas: []replicaImageView{}}
	list, err := a.machine.images.List(ctx)
	if err != nil {
		return view, err
	}
	at := slices.IndexFunc(list, func(s oci.Summary) bool { return s.Name == image.Name })
	if at < 0 { // asked for by digest
		at = slices.IndexFunc(list, func(s oci.Summary) bool { return s.Digest == image.Digest })
	}
	if at < 0 {
		return view, fmt.Errorf("image %q: it was deleted meanwhile", image.Name)
	}
	view.Summary = list[at]
	found, err := models(ctx, a.machine.images, image)
	if err != nil {
		return view, err
	}
	for _, m := range found {
		view.Models = append(view.Models, modelView{m, m.Needs()})
	}
	replicas, err := a.engine.Replicas(ctx)
	if err != nil {
		return view, err
	}
	for _, replica := range replicas {
		revision, err := a.documents.Revisions().Get(ctx, replica.Revision)
		if err != nil || !slices.Contains(slices.Collect(maps.Values(revision.Images)), image.Digest.String()) {
			continue // a stray's revision is not known
		}
		mapped, err := a.engine.Mapped(ctx, replica.Name)
		if err != nil {
			a.log.Debug("memory of a replica cannot be read", "replica", replica.Name, "err", err)
		}
		if mapped.RSS == 0 {
			continue // none of its processes runs yet, or any more
		}
		view.Replicas = append(view.Replicas, replicaImageView{replica.Name, replica.Revision.Base(), mapped})
	}
	return view, nil
}
