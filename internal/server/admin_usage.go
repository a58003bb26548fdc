package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// What GET /penstock/v1/usage answers.
type (
	usageView struct {
		At   time.Time      `json:"at"`
		Apps []appUsageView `json:"apps"`
	}
	appUsageView struct {
		ID      string `json:"id"` // "" for replicas that nobody knows the app of
		Name    string `json:"name"`
		Waiting int    `json:"waiting"` // requests that wait for a replica
		loadView
		Replicas []replicaUsageView `json:"replicas"`
	}
	replicaUsageView struct {
		Name     string `json:"name"`
		Revision string `json:"revision"`
		State    string `json:"state"`
		loadView
	}
	// loadView is a replica's, or its app's in all. Rates and latencies are of the last ten seconds.
	loadView struct {
		RequestsPerSecond float64 `json:"requestsPerSecond"`
		ErrorsPerSecond   float64 `json:"errorsPerSecond"`
		P50Ms             float64 `json:"p50Ms"`
		P95Ms             float64 `json:"p95Ms"`
		InFlight          int     `json:"inFlight"`
		CPU               float64 `json:"cpu"` // vCPUs in use
		Memory            uint64  `json:"memoryBytes"`
		MemoryLimit       uint64  `json:"memoryLimitBytes"`

		latency link.Latency
	}
)

func (v *loadView) count(rate link.Rate) {
	v.RequestsPerSecond += rate.Requests
	v.ErrorsPerSecond += rate.Errors
	v.latency.Merge(&rate.Latency)
}

func (v *loadView) addUp(other *loadView) {
	v.RequestsPerSecond += other.RequestsPerSecond
	v.ErrorsPerSecond += other.ErrorsPerSecond
	v.InFlight += other.InFlight
	v.CPU += other.CPU
	v.Memory += other.Memory
	v.MemoryLimit += other.MemoryLimit
	v.latency.Merge(&other.latency)
}

func (v *loadView) settle() {
	v.P50Ms = float64(v.latency.Quantile(0.5)) / float64(time.Millisecond)
	v.P95Ms = float64(v.latency.Quantile(0.95)) / float64(time.Millisecond)
}

func (a *admin) usage(w http.ResponseWriter, r *http.Request) {
	now, cpu, err := a.meter.read(r.Context())
	if err != nil {
		a.refuse(w, http.StatusInternalServerError, "UsageFailed", err)
		return
	}
	rates := a.hub.Rates()
	inFlight, waiting := a.hub.Load()
	apps := map[string]*appUsageView{}
	appOf := func(revision resource.ID) *appUsageView {
		var id string
		if !revision.IsZero() {
			id = revision.Parent().String()
		}
		if apps[id] == nil {
			apps[id] = &appUsageView{ID: id, Name: revision.Parent().Base(), Replicas: []replicaUsageView{}}
		}
		return apps[id]
	}
	for _, replica := range now.replicas {
		u := now.usage[replica.Name]
		v := replicaUsageView{Name: replica.Name, Revision: replica.Revision.Base(), State: string(replica.State), loadView: loadView{
			InFlight: inFlight[replica.Name], CPU: cpu[replica.Name], Memory: u.WorkingSet, MemoryLimit: u.MemoryLimit,
		}}
		v.count(rates.Replicas[replica.Name])
		v.settle()
		app := appOf(replica.Revision)
		app.Replicas = append(app.Replicas, v)
		app.addUp(&v.loadView)
	}
	for key, n := range waiting {
		if revision, err := resource.ParseID(key); err == nil { // an app without a revision has requests of no app waiting
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
	answer := usageView{At: now.at, Apps: []appUsageView{}}
	for _, app := range apps {
		app.settle()
		slices.SortFunc(app.Replicas, func(x, y replicaUsageView) int { return strings.Compare(x.Name, y.Name) })
		answer.Apps = append(answer.Apps, *app)
	}
	slices.SortFunc(answer.Apps, func(x, y appUsageView) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID))
	})
	a.answer(w, http.StatusOK, answer)
}

// meter turns the CPU time that replicas have used into how much they use now. It reads only when it is asked.
type meter struct {
	runtime runtimes.Runtime

	mu         sync.Mutex // held while it reads: who comes second would read the same
	base, last reading
}

type reading struct {
	at       time.Time
	replicas []resource.Replica
	usage    map[string]runtimes.Usage
}

const (
	// meterSpan is the least time between two readings that make a rate: the kernel accounts in ticks of up to 10 ms.
	meterSpan = 500 * time.Millisecond
	// meterOld is from when a reading says nothing about now.
	meterOld = 10 * time.Second
)

// read returns a new reading, and the vCPUs that each replica used since one before it. The first call takes meterSpan.
func (m *meter) read(ctx context.Context) (reading, map[string]float64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.last.at) >= meterSpan {
		m.base = m.last
	}
	if time.Since(m.base.at) > meterOld {
		var err error
		if m.base, err = m.take(ctx); err != nil {
			return reading{}, nil, err
		}
		pause := time.NewTimer(meterSpan)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
			return reading{}, nil, context.Cause(ctx)
		}
	}
	now, err := m.take(ctx)
	if err != nil {
		return reading{}, nil, err
	}
	m.last = now
	cpu := map[string]float64{}
	for name, u := range now.usage {
		if before, ok := m.base.usage[name]; ok && u.CPUNanos >= before.CPUNanos {
			cpu[name] = float64(u.CPUNanos-before.CPUNanos) / float64(now.at.Sub(m.base.at))
		}
	}
	return now, cpu, nil
}

func (m *meter) take(ctx context.Context) (reading, error) {
	replicas, err := m.runtime.Replicas(ctx)
	if err != nil {
		return reading{}, fmt.Errorf("usage: %w", err)
	}
	r := reading{at: time.Now(), replicas: replicas, usage: make(map[string]runtimes.Usage, len(replicas))}
	for _, replica := range replicas {
		// One that has just gone, or has no container yet, uses nothing.
		if u, err := m.runtime.Usage(ctx, replica.Name); err == nil {
			r.usage[replica.Name] = u
		}
	}
	return r, nil
}
