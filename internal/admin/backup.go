package admin

import (
	"errors"
	"net/http"
	"time"

	"penstock/internal/backup"
)

// backup streams a backup of the server. If it fails midway the response is cut off, and restore refuses a backup
// without its end.
func (a *api) backup(w http.ResponseWriter, r *http.Request) {
	images := false
	if !a.switches(w, r, map[string]*bool{"images": &images}) {
		return
	}
	source := a.Backup
	source.Info.Created = time.Now().UTC().Truncate(time.Second)
	if images {
		if a.Images == nil {
			a.fail(w, http.StatusBadRequest, "InvalidParameterValue", errors.New("images: want false, as the fake runtime keeps none"))
			return
		}
		source.Images = a.Images.Store.Export
	}
	began := time.Now()
	w.Header().Set("Content-Type", "application/x-tar")
	if err := backup.Write(r.Context(), w, source); err != nil {
		a.Log.Error("backup failed; restore refuses the part that was sent", "err", err)
		panic(http.ErrAbortHandler) // the only way in net/http to show the client that a response is incomplete
	}
	a.Log.Info("backup made", "images", images, "took", time.Since(began).Round(time.Millisecond))
}
