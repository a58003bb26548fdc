package admin

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// appUsage adds up the load of an app's replicas.
type appUsage struct {
	wire.AppUsage
	latency link.Latency
}

func (a *appUsage) add(replica wire.ReplicaUsage, latency *link.Latency) {
	a.Replicas = append(a.Replicas, replica)
	a.RequestsPerSecond += replica.RequestsPerSecond
	a.ErrorsPerSecond += replica.ErrorsPerSecond
	a.InFlight += replica.InFlight
	a.CPU += replica.CPU
	a.MemoryBytes += replica.MemoryBytes
	a.MemoryLimitBytes += replica.MemoryLimitBytes
	a.latency.Merge(latency)
}

func setLatencies(load *wire.Load, latency *link.Latency) {
	load.P50Ms = float64(latency.Quantile(0.5)) / float64(time.Millisecond)
	load.P95Ms = float64(latency.Quantile(0.95)) / float64(time.Millisecond)
}

func (a *api) usage(w http.ResponseWriter, r *http.Request) {
	now, cpu, err := a.sampler.sample(r.Context())
	if err != nil {
		a.fail(w, http.StatusInternalServerError, "UsageFailed", err)
		return
	}
	rates := a.Traffic.Rates()
	inFlight, waiting := a.Traffic.Load()
	apps := map[string]*appUsage{}
	appOf := func(revision resource.ID) *appUsage {
		var id string
		if !revision.IsZero() {
			id = revision.Parent().String()
		}
		if apps[id] == nil {
			apps[id] = &appUsage{AppUsage: wire.AppUsage{ID: id, Name: revision.Parent().Base(), Replicas: []wire.ReplicaUsage{}}}
		}
		return apps[id]
	}
	for _, replica := range now.replicas {
		used, rate := now.usage[replica.Name], rates.Replicas[replica.Name]
		v := wire.ReplicaUsage{Name: replica.Name, Revision: replica.Revision.Base(), State: string(replica.State), Load: wire.Load{
			RequestsPerSecond: rate.Requests, ErrorsPerSecond: rate.Errors, InFlight: inFlight[replica.Name],
			CPU: cpu[replica.Name], MemoryBytes: used.WorkingSet, MemoryLimitBytes: used.MemoryLimit,
		}}
		setLatencies(&v.Load, &rate.Latency)
		appOf(replica.Revision).add(v, &rate.Latency)
	}
	for _, c := range a.Scale.Counts() {
		app := appOf(c.Revision)
		app.Wanted += c.Wanted
		app.Reason = c.Reason
	}
	for key, n := range waiting {
		if revision, err := resource.ParseID(key); err == nil { // the key is not an ID if requests wait for an app that has no revision
			appOf(revision).Waiting += n
		}
	}
	for key, perSecond := range rates.Refused {
		if revision, err := resource.ParseID(key); err == nil && perSecond > 0 {
			app := appOf(revision)
			app.RequestsPerSecond += perSecond
			app.ErrorsPerSecond += perSecond
		}
	}
	usage := wire.Usage{At: now.at, Apps: []wire.AppUsage{}}
	for _, app := range apps {
		setLatencies(&app.Load, &app.latency)
		slices.SortFunc(app.Replicas, func(x, y wire.ReplicaUsage) int { return strings.Compare(x.Name, y.Name) })
		usage.Apps = append(usage.Apps, app.AppUsage)
	}
	slices.SortFunc(usage.Apps, func(x, y wire.AppUsage) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID))
	})
	a.respond(w, http.StatusOK, usage)
}
