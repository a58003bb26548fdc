package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"

	"penstock/internal/link"
	"penstock/internal/runtimes/local"
	"penstock/internal/store"
)

// admin is the part of the API that Azure has no counterpart of: the server itself and its images.
type admin struct {
	options   ControlOptions
	documents *store.Store
	machine   *machine
	engine    *local.Engine
	// shutdown ends the server; with replicas it ends them first.
	shutdown func(ctx context.Context, replicas bool) error
	hub      *link.Hub
	meter    meter
	log      *slog.Logger
}

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /penstock/v1/status", a.status)
	mux.HandleFunc("GET /penstock/v1/usage", a.usage)
	mux.HandleFunc("GET /penstock/v1/backup", a.backup)
	mux.HandleFunc("POST /penstock/v1/shutdown", a.stop)
	a.imageRoutes(mux)
	return mux
}

func (a *admin) status(w http.ResponseWriter, _ *http.Request) {
	inFlight, waiting := a.hub.Load()
	a.answer(w, http.StatusOK, map[string]any{
		"inFlight":  sum(inFlight),
		"waiting":   sum(waiting),
		"instance":  a.options.Instance,
		"runtime":   a.options.Runtime,
		"domain":    a.options.Domain,
		"httpPort":  a.options.PublicHTTP,
		"httpsPort": a.options.PublicHTTPS,
		"tcpHost":   a.options.TCPHost,
	})
}

func (a *admin) stop(w http.ResponseWriter, r *http.Request) {
	containers := r.URL.Query().Get("containers")
	if containers != "" && containers != "stop" && containers != "keep" {
		a.refuse(w, http.StatusBadRequest, "InvalidParameterValue", fmt.Errorf("containers: want stop or keep, got %q", containers))
		return
	}
	if err := a.shutdown(r.Context(), containers == "stop"); err != nil {
		a.refuse(w, http.StatusInternalServerError, "ShutdownFailed", err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *admin) refuse(w http.ResponseWriter, status int, code string, err error) {
	a.answer(w, status, map[string]any{"error": map[string]string{"code": code, "message": err.Error()}})
}

func (a *admin) answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		a.log.Debug("answer not delivered", "err", err)
	}
}

func sum(counts map[string]int) (total int) {
	for n := range maps.Values(counts) {
		total += n
	}
	return total
}
