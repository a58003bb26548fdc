package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"penstock/internal/backup"
)

// backup streams a backup of the server. One that fails on the way is cut, and lacks the end that makes it one.
func (a *admin) backup(w http.ResponseWriter, r *http.Request) {
	images := r.URL.Query().Get("images")
	if images != "" && images != "true" && images != "false" {
		a.refuse(w, http.StatusBadRequest, "InvalidParameterValue", fmt.Errorf("images: want true or false, got %q", images))
		return
	}
	source := backup.Source{
		Info:     backup.Info{Version: a.options.Version, Created: time.Now().UTC().Truncate(time.Second), Instance: a.options.Instance},
		Data:     a.options.Data,
		Database: a.documents.Backup,
	}
	if images == "true" {
		if a.machine.images == nil {
			a.refuse(w, http.StatusBadRequest, "InvalidParameterValue", errors.New("images: want false, as the fake runtime keeps none"))
			return
		}
		source.Images = a.machine.images.Export
	}
	began := time.Now()
	w.Header().Set("Content-Type", "application/x-tar")
	if err := backup.Write(r.Context(), w, source); err != nil {
		a.log.Error("backup failed; what was sent of it is refused by restore", "err", err)
		panic(http.ErrAbortHandler) // net/http's one way to end a response so that the client sees that it is not whole
	}
	a.log.Info("backup made", "images", images == "true", "took", time.Since(began).Round(time.Millisecond))
}

// takeImages takes the images that a restored backup brought into the store. What cannot be taken is kept for the next
// start; apps that need it say that it is missing.
func takeImages(ctx context.Context, o ControlOptions, m *machine) {
	dir := filepath.Join(o.Data, backup.ImportDir)
	if _, err := os.Stat(dir); err != nil || m.importImages == nil {
		return
	}
	began := time.Now()
	n, err := m.importImages(ctx, dir)
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		o.Log.Error("images of a restored backup cannot be taken; it is tried again at the next start", "dir", dir, "taken", n, "err", err)
		return
	}
	o.Log.Info("images of a restored backup taken", "images", n, "took", time.Since(began).Round(time.Millisecond))
}
