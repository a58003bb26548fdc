package admin

import (
	"errors"
	"net/http"

	"penstock/internal/admin/wire"
	"penstock/internal/oci"
)

// keepsImages responds with an error and returns false if there is no image store.
func (a *api) keepsImages(w http.ResponseWriter) bool {
	if a.Images == nil {
		a.fail(w, http.StatusNotFound, "ImageNotFound", errors.New("the fake runtime keeps no images"))
	}
	return a.Images != nil
}

func (a *api) listImages(w http.ResponseWriter, r *http.Request) {
	list := wire.List[wire.Image]{Value: []wire.Image{}}
	if a.Images != nil {
		found, err := a.Images.Store.List(r.Context())
		if err != nil {
			a.fail(w, http.StatusInternalServerError, "ImageStoreFailed", err)
			return
		}
		for _, s := range found {
			list.Value = append(list.Value, imageOnWire(s))
		}
	}
	a.respond(w, http.StatusOK, list)
}

func (a *api) deleteImage(w http.ResponseWriter, r *http.Request) {
	if !a.keepsImages(w) {
		return
	}
	switch err := a.Images.Store.Delete(r.Context(), r.PathValue("name")); {
	case errors.Is(err, oci.ErrNotFound):
		a.fail(w, http.StatusNotFound, "ImageNotFound", err)
	case err != nil:
		a.fail(w, http.StatusBadRequest, "ImageNotDeleted", err)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// pruneImages removes images that nothing needs.
func (a *api) pruneImages(w http.ResponseWriter, r *http.Request) {
	var o oci.Prune
	if !a.keepsImages(w) || !a.switches(w, r, map[string]*bool{"dryRun": &o.DryRun, "all": &o.All}) {
		return
	}
	done, err := a.Images.Pruner.Prune(r.Context(), o)
	if err != nil {
		a.fail(w, http.StatusInternalServerError, "ImageStoreFailed", err)
		return
	}
	pruned := wire.Pruned{Images: []wire.PrunedImage{}, Bytes: done.Bytes}
	for _, i := range done.Images {
		pruned.Images = append(pruned.Images, wire.PrunedImage{Name: i.Name, Digest: i.Digest.String(), Why: i.Why, Bytes: i.Bytes})
	}
	a.respond(w, http.StatusOK, pruned)
}

// verifyImages reads every blob. With repair, damaged blobs are removed, and pulled again if they came from a registry.
func (a *api) verifyImages(w http.ResponseWriter, r *http.Request) {
	repair := false
	if !a.keepsImages(w) || !a.switches(w, r, map[string]*bool{"repair": &repair}) {
		return
	}
	found, err := a.Images.Store.Verify(r.Context())
	if err != nil {
		a.fail(w, http.StatusInternalServerError, "ImageStoreFailed", err)
		return
	}
	verified := wire.Verified{Blobs: found.Blobs, Bytes: found.Bytes, Damage: []wire.Damage{}, Repaired: []string{}, Left: map[string]string{}}
	for _, d := range found.Damage {
		verified.Damage = append(verified.Damage, wire.Damage{Digest: d.Digest.String(), Fault: d.Fault, Images: d.Images})
	}
	if repair && len(found.Damage) > 0 {
		if verified.Repaired, verified.Left, err = a.Images.Repairer.Repair(r.Context(), found.Damage); err != nil {
			a.fail(w, http.StatusInternalServerError, "ImageStoreFailed", err)
			return
		}
	}
	a.respond(w, http.StatusOK, verified)
}

// saveImages streams the named images, or all images, as an OCI image layout.
func (a *api) saveImages(w http.ResponseWriter, r *http.Request) {
	if !a.keepsImages(w) {
		return
	}
	names := r.URL.Query()["name"]
	for _, name := range names {
		switch _, err := a.Images.Store.Resolve(r.Context(), name); {
		case errors.Is(err, oci.ErrNotFound):
			a.fail(w, http.StatusNotFound, "ImageNotFound", err)
			return
		case err != nil && !errors.Is(err, oci.ErrPlatform):
			a.fail(w, http.StatusBadRequest, "ImageNotReadable", err)
			return
		}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := a.Images.Store.Save(r.Context(), w, names...); err != nil {
		a.Log.Error("images could not be saved; the archive that was sent has no end", "err", err)
		panic(http.ErrAbortHandler) // the only way in net/http to show the client that a response is incomplete
	}
}

// loadImages loads an OCI image layout from a tar archive.
func (a *api) loadImages(w http.ResponseWriter, r *http.Request) {
	if !a.keepsImages(w) {
		return
	}
	names, err := a.Images.Loader.Load(r.Context(), r.Body, r.URL.Query().Get("name"))
	if err != nil {
		a.fail(w, http.StatusBadRequest, "ImageNotLoaded", err)
		return
	}
	a.respond(w, http.StatusOK, wire.Loaded{Images: names})
}
