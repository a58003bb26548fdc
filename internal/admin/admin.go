// Package admin serves /penstock/v1, the part of the API that does not exist in Azure: the server itself, what its apps
// use, and its images. Package wire has the requests and responses. docs/api.md describes the endpoints.
package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"penstock/internal/admin/wire"
	"penstock/internal/backup"
	"penstock/internal/decisions"
	"penstock/internal/leak"
	"penstock/internal/link"
	"penstock/internal/oci"
	"penstock/internal/oci/remote"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/scale"
	"penstock/internal/weights"
)

// Traffic returns what the ingresses have reported.
type Traffic interface {
	// Load returns the requests in flight by replica, and the waiting requests by revision.
	Load() (inFlight, waiting map[string]int)
	Rates() link.Rates
}

// Runtime returns what runs and what it uses.
type Runtime interface {
	Replicas(ctx context.Context) ([]resource.Replica, error)
	Standbys(ctx context.Context) ([]runtimes.Standby, error)
	Usage(ctx context.Context, replica string) (runtimes.Usage, error)
	Mapped(ctx context.Context, replica string) (runtimes.Mapped, error)
}

// Scaler decides how many replicas revisions have.
type Scaler interface {
	// Explain says why a revision has its number of replicas. ok is false if it can have none.
	Explain(revision resource.ID) (e scale.Explanation, ok bool)
	// ExplainJob returns what the rules of a job ask for. There are none if events do not start the job.
	ExplainJob(job resource.ID) []scale.Wish
	// Counts lists how many replicas each revision should have. It has only revisions that can have replicas.
	Counts() []scale.Count
}

// Decisions has past scaling decisions.
type Decisions interface {
	Read(ctx context.Context, q decisions.Query) ([]decisions.Decision, error)
}

// ImageStore holds the images of this server.
type ImageStore interface {
	List(ctx context.Context) ([]oci.Summary, error)
	Resolve(ctx context.Context, name string) (oci.Image, error)
	Delete(ctx context.Context, name string) error
	Weights(ctx context.Context, image oci.Image) ([]weights.File, error)
	Verify(ctx context.Context) (oci.Verified, error)
	Save(ctx context.Context, w io.Writer, names ...string) error
	Export(ctx context.Context, add func(name string, size int64, content io.Reader) error) error
}

// Puller pulls images from other registries.
type Puller interface {
	Pull(ctx context.Context, name string, login remote.Login) (oci.Image, oci.Progress, error)
	Active() []oci.Progress
}

// Pruner removes images that nothing needs.
type Pruner interface {
	Prune(ctx context.Context, o oci.Prune) (oci.Pruned, error)
}

// Loader loads images from an archive.
type Loader interface {
	Load(ctx context.Context, archive io.Reader, as string) (names []string, err error)
}

// Repairer pulls damaged images again.
type Repairer interface {
	Repair(ctx context.Context, damage []oci.Damage) (repaired []string, left map[string]string, err error)
}

// Images has what the endpoints for images need.
type Images struct {
	Store    ImageStore
	Puller   Puller
	Pruner   Pruner
	Loader   Loader
	Repairer Repairer
}

// Config has what the API needs. All fields are required unless they say otherwise.
type Config struct {
	// Status has the values that do not change while the server runs.
	Status  wire.Status
	Traffic Traffic
	Runtime Runtime
	// Revision finds a revision. Its error wraps resource.ErrNotFound when there is none.
	Revision func(ctx context.Context, id resource.ID) (resource.Revision, error)
	// Revisions lists the revisions of an app.
	Revisions func(ctx context.Context, app resource.ID) ([]resource.Revision, error)
	Scale     Scaler
	// Memory returns what is known about the memory of a revision's containers.
	Memory    func(revision resource.ID) []leak.Memory
	Decisions Decisions
	// Images is nil if the runtime keeps no images.
	Images *Images
	// Backup is the source of backups, without images and time.
	Backup backup.Source
	// Shutdown stops the server. If replicas is true it stops the replicas first.
	Shutdown func(ctx context.Context, replicas bool) error
	Log      *slog.Logger
}

type api struct {
	Config
	sampler *cpuSampler
}

// New returns the handler of /penstock/v1. It does not check tokens; the caller does.
func New(cfg Config) http.Handler {
	a := &api{Config: cfg, sampler: newCPUSampler(cfg.Runtime)}
	mux := http.NewServeMux()
	for _, e := range a.endpoints() {
		mux.HandleFunc(e.method+" "+e.path, e.handle)
	}
	return mux
}

// endpoint is a method and a path with their handler.
type endpoint struct {
	method, path string
	handle       http.HandlerFunc
}

func (a *api) endpoints() []endpoint {
	return []endpoint{
		{http.MethodGet, wire.StatusPath, a.status},
		{http.MethodGet, wire.UsagePath, a.usage},
		{http.MethodGet, wire.ScalePath, a.scale},
		{http.MethodGet, wire.StandbysPath, a.standbys},
		{http.MethodGet, wire.BackupPath, a.backup},
		{http.MethodPost, wire.ShutdownPath, a.shutdown},

		{http.MethodGet, wire.ImagesPath, a.listImages},
		{http.MethodGet, wire.ImagesPath + "/{name...}", a.inspectImage},
		{http.MethodDelete, wire.ImagesPath + "/{name...}", a.deleteImage},
		{http.MethodPost, wire.PrunePath, a.pruneImages},
		{http.MethodPost, wire.VerifyPath, a.verifyImages},
		{http.MethodGet, wire.PullsPath, a.listPulls},
		{http.MethodPost, wire.PullsPath, a.pullImage},
		{http.MethodGet, wire.LayoutPath, a.saveImages},
		{http.MethodPost, wire.LayoutPath, a.loadImages},
	}
}

func (a *api) status(w http.ResponseWriter, _ *http.Request) {
	status := a.Status
	inFlight, waiting := a.Traffic.Load()
	status.InFlight, status.Waiting = sum(inFlight), sum(waiting)
	a.respond(w, http.StatusOK, status)
}

func (a *api) shutdown(w http.ResponseWriter, r *http.Request) {
	containers := r.URL.Query().Get("containers")
	if containers != "" && containers != "stop" && containers != "keep" {
		a.fail(w, http.StatusBadRequest, "InvalidParameterValue", fmt.Errorf("containers: want stop or keep, got %q", containers))
		return
	}
	if err := a.Shutdown(r.Context(), containers == "stop"); err != nil {
		a.fail(w, http.StatusInternalServerError, "ShutdownFailed", err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// switches reads boolean query parameters. If one is invalid it responds with an error and returns false.
func (a *api) switches(w http.ResponseWriter, r *http.Request, fields map[string]*bool) bool {
	for name, field := range fields {
		s := r.URL.Query().Get(name)
		if s == "" {
			continue
		}
		var err error
		if *field, err = strconv.ParseBool(s); err != nil {
			a.fail(w, http.StatusBadRequest, "InvalidParameterValue", fmt.Errorf("%s: want true or false, got %q", name, strings.ToValidUTF8(s, "?")))
			return false
		}
	}
	return true
}

// fail responds with an error.
func (a *api) fail(w http.ResponseWriter, status int, code string, err error) {
	a.respond(w, status, wire.ErrorResponse{Error: wire.Error{Code: code, Message: err.Error()}})
}

func (a *api) respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		a.Log.Debug("response not delivered", "err", err)
	}
}

func sum(counts map[string]int) (total int) {
	for n := range maps.Values(counts) {
		total += n
	}
	return total
}
