package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"penstock/internal/oci"
	"penstock/internal/oci/remote"
	"penstock/internal/resource"
)

func (a *admin) imageRoutes(mux *http.ServeMux) {
	// With the fake runtime there is no store to ask.
	stored := func(handle http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if a.machine.images == nil {
				a.refuse(w, http.StatusNotFound, "ImageNotFound", errors.New("the fake runtime keeps no images"))
				return
			}
			handle(w, r)
		}
	}
	mux.HandleFunc("GET /penstock/v1/images", a.listImages)
	mux.HandleFunc("GET /penstock/v1/images/{name...}", a.inspectImage)
	mux.HandleFunc("DELETE /penstock/v1/images/{name...}", stored(a.deleteImage))
	mux.HandleFunc("GET /penstock/v1/pulls", a.listPulls)
	mux.HandleFunc("POST /penstock/v1/pulls", stored(a.pullImage))
	mux.HandleFunc("POST /penstock/v1/images/prune", stored(a.pruneImages))
	mux.HandleFunc("POST /penstock/v1/images/verify", stored(a.verifyImages))
	mux.HandleFunc("GET /penstock/v1/layout", stored(a.saveImages))
	mux.HandleFunc("POST /penstock/v1/layout", stored(a.loadImages))
}

func (a *admin) listImages(w http.ResponseWriter, r *http.Request) {
	list := []oci.Summary{}
	if a.machine.images != nil {
		var err error
		if list, err = a.machine.images.List(r.Context()); err != nil {
			a.refuse(w, http.StatusInternalServerError, "ImageStoreFailed", err)
			return
		}
	}
	a.answer(w, http.StatusOK, map[string]any{"value": list})
}

func (a *admin) deleteImage(w http.ResponseWriter, r *http.Request) {
	switch err := a.machine.images.Delete(r.Context(), r.PathValue("name")); {
	case errors.Is(err, oci.ErrNotFound):
		a.refuse(w, http.StatusNotFound, "ImageNotFound", err)
	case err != nil:
		a.refuse(w, http.StatusBadRequest, "ImageNotDeleted", err)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// listPulls tells how far the images have come that are on their way.
func (a *admin) listPulls(w http.ResponseWriter, _ *http.Request) {
	list := []oci.Progress{}
	if a.machine.puller != nil {
		list = a.machine.puller.Active()
	}
	a.answer(w, http.StatusOK, map[string]any{"value": list})
}

// tellEvery is how often a pull's client is told how far it has come.
const tellEvery = 200 * time.Millisecond

// pulled is the last line of a pull's answer.
type pulled struct {
	Image  *oci.Image        `json:"image,omitempty"`
	Moved  *oci.Progress     `json:"moved,omitempty"`
	TookMS int64             `json:"tookMs,omitempty"`
	Error  map[string]string `json:"error,omitempty"`
}

// pullImage pulls an image and answers with a JSON line for each step that it has come, the last one with its end.
func (a *admin) pullImage(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Image    string          `json:"image"`
		Username string          `json:"username"`
		Password resource.Secret `json:"password"`
	}
	in := json.NewDecoder(io.LimitReader(r.Body, 64<<10))
	in.DisallowUnknownFields()
	if err := in.Decode(&asked); err != nil {
		a.refuse(w, http.StatusBadRequest, "InvalidRequestContent", fmt.Errorf("want {\"image\": NAME, \"username\": ..., \"password\": ...}: %w", err))
		return
	}
	ref, err := oci.ParseReference(asked.Image)
	if err == nil && ref.Host == "" {
		err = fmt.Errorf("image %q: want a name with the host of its registry, as in docker.io/library/%s", asked.Image, asked.Image)
	}
	if err == nil && (asked.Username == "") != (asked.Password == "") {
		err = errors.New("want username and password, or neither")
	}
	if err != nil {
		a.refuse(w, http.StatusBadRequest, "InvalidParameterValue", err)
		return
	}
	login := remote.Login{}
	if asked.Username != "" {
		login = remote.NewLogin(asked.Username, asked.Password.Reveal())
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	done := make(chan pulled, 1)
	ctx, cancel := context.WithCancel(r.Context())
	go func() { // waited for by reading done to its end below
		began := time.Now()
		image, moved, err := a.machine.puller.Pull(ctx, asked.Image, login)
		if err != nil {
			done <- pulled{Error: map[string]string{"code": pullCode(err), "message": err.Error()}}
			return
		}
		done <- pulled{Image: &image, Moved: &moved, TookMS: time.Since(began).Milliseconds()}
	}()
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		select {
		case end := <-done:
			cancel()
			if err := out.Encode(end); err != nil {
				a.log.Debug("answer not delivered", "err", err)
			}
			return
		case <-ticker.C:
			for _, far := range a.machine.puller.Active() {
				if far.Image != ref.String() {
					continue
				}
				// A client that has gone ends ctx, and that the pull.
				if err := errors.Join(out.Encode(far), http.NewResponseController(w).Flush()); err != nil {
					cancel()
				}
			}
		}
	}
}

func pullCode(err error) string {
	switch {
	case errors.Is(err, remote.ErrUnauthorized):
		return "ImagePullUnauthorized"
	case errors.Is(err, oci.ErrNotFound):
		return "ImageNotFound"
	case errors.Is(err, oci.ErrPlatform):
		return "ImagePlatformMismatch"
	}
	return "ImagePullFailed"
}

// switches reads parameters that are on or off, and says whether all of them are.
func (a *admin) switches(w http.ResponseWriter, r *http.Request, fields map[string]*bool) bool {
	for name, field := range fields {
		s := r.URL.Query().Get(name)
		if s == "" {
			continue
		}
		var err error
		if *field, err = strconv.ParseBool(s); err != nil {
			a.refuse(w, http.StatusBadRequest, "InvalidParameterValue", fmt.Errorf("%s: want true or false, got %q", name, strings.ToValidUTF8(s, "?")))
			return false
		}
	}
	return true
}

// pruneImages removes what nobody needs.
func (a *admin) pruneImages(w http.ResponseWriter, r *http.Request) {
	var o oci.Prune
	if !a.switches(w, r, map[string]*bool{"dryRun": &o.DryRun, "all": &o.All}) {
		return
	}
	done, err := a.machine.collector.Prune(r.Context(), o)
	if err != nil {
		a.refuse(w, http.StatusInternalServerError, "ImageStoreFailed", err)
		return
	}
	a.answer(w, http.StatusOK, done)
}

// verifyImages reads every blob; with repair what is damaged is dropped, and pulled again where it came from a registry.
func (a *admin) verifyImages(w http.ResponseWriter, r *http.Request) {
	repair := false
	if !a.switches(w, r, map[string]*bool{"repair": &repair}) {
		return
	}
	ctx := r.Context()
	found, err := a.machine.images.Verify(ctx)
	if err != nil {
		a.refuse(w, http.StatusInternalServerError, "ImageStoreFailed", err)
		return
	}
	answer := struct {
		oci.Verified
		Repaired []string          `json:"repaired"` // images that are whole again
		Left     map[string]string `json:"left"`     // images that are not, and what to do
	}{found, []string{}, map[string]string{}}
	if repair && len(found.Damage) > 0 {
		if answer.Repaired, answer.Left, err = a.machine.repair(ctx, a.documents, found.Damage); err != nil {
			a.refuse(w, http.StatusInternalServerError, "ImageStoreFailed", err)
			return
		}
	}
	a.answer(w, http.StatusOK, answer)
}

// saveImages streams an OCI layout of the images that are named, or of all.
func (a *admin) saveImages(w http.ResponseWriter, r *http.Request) {
	names := r.URL.Query()["name"]
	for _, name := range names {
		switch _, err := a.machine.images.Resolve(r.Context(), name); {
		case errors.Is(err, oci.ErrNotFound):
			a.refuse(w, http.StatusNotFound, "ImageNotFound", err)
			return
		case err != nil && !errors.Is(err, oci.ErrPlatform):
			a.refuse(w, http.StatusBadRequest, "ImageNotReadable", err)
			return
		}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := a.machine.images.Save(r.Context(), w, names...); err != nil {
		a.log.Error("images could not be saved; what was sent of them has no end", "err", err)
		panic(http.ErrAbortHandler) // net/http's one way to end a response so that the client sees that it is not whole
	}
}

// loadImages takes an OCI layout as a tar archive.
func (a *admin) loadImages(w http.ResponseWriter, r *http.Request) {
	names, err := a.machine.load(r.Context(), r.Body, r.URL.Query().Get("name"))
	if err != nil {
		a.refuse(w, http.StatusBadRequest, "ImageNotLoaded", err)
		return
	}
	a.answer(w, http.StatusOK, map[string]any{"images": names})
}
