package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/oci"
	"penstock/internal/oci/remote"
)

// listPulls reports the progress of the current pulls.
func (a *api) listPulls(w http.ResponseWriter, _ *http.Request) {
	list := wire.List[wire.Pull]{Value: []wire.Pull{}}
	if a.Images != nil {
		for _, progress := range a.Images.Puller.Active() {
			list.Value = append(list.Value, wire.Pull(progress))
		}
	}
	a.respond(w, http.StatusOK, list)
}

const (
	// pullEvery is how often the client of a pull receives its progress.
	pullEvery = 200 * time.Millisecond
	// maxPullRequest is the maximum size of a request body.
	maxPullRequest = 64 << 10
)

// pullImage pulls an image. The response has one JSON line per progress report, and a last line with the result.
func (a *api) pullImage(w http.ResponseWriter, r *http.Request) {
	if !a.keepsImages(w) {
		return
	}
	var asked wire.PullRequest
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPullRequest))
	in.DisallowUnknownFields()
	if err := in.Decode(&asked); err != nil {
		a.fail(w, http.StatusBadRequest, "InvalidRequestContent", fmt.Errorf("want {\"image\": NAME, \"username\": ..., \"password\": ...}: %w", err))
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
		a.fail(w, http.StatusBadRequest, "InvalidParameterValue", err)
		return
	}
	login := remote.Login{}
	if asked.Username != "" {
		login = remote.NewLogin(asked.Username, asked.Password)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	done := make(chan wire.PullEnd, 1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() { done <- a.pull(ctx, asked.Image, login) }() // the loop below waits for it
	ticker := time.NewTicker(pullEvery)
	defer ticker.Stop()
	for {
		select {
		case end := <-done:
			if err := out.Encode(end); err != nil {
				a.Log.Debug("response not delivered", "err", err)
			}
			return
		case <-ticker.C:
			for _, progress := range a.Images.Puller.Active() {
				if progress.Image != ref.String() {
					continue
				}
				if err := errors.Join(out.Encode(wire.Pull(progress)), http.NewResponseController(w).Flush()); err != nil {
					cancel() // the client has left
				}
			}
		}
	}
}

func (a *api) pull(ctx context.Context, name string, login remote.Login) wire.PullEnd {
	began := time.Now()
	image, progress, err := a.Images.Puller.Pull(ctx, name, login)
	if err != nil {
		return wire.PullEnd{Error: &wire.Error{Code: pullCode(err), Message: err.Error()}}
	}
	moved := wire.Pull(progress)
	return wire.PullEnd{
		Image:  &wire.PulledImage{Name: image.Name, Digest: image.Digest.String(), Config: wire.ImageConfig(image.Config), Size: image.Size},
		Moved:  &moved,
		TookMS: time.Since(began).Milliseconds(),
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
