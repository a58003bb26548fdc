package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"penstock/internal/load"
)

// Options configures a run.
type Options struct {
	Exe       string // this program
	Version   string // version of this program
	GoVersion string
	Ingress   IngressFunc

	Only        []string      // names of contenders; empty means all
	Rounds      int           // number of rounds of requests
	Round       time.Duration // time for each contender in a round
	Connections int
	Streams     int   // number of concurrent event streams; 0: not measured
	Idle        int   // number of idle connections; 0: not measured
	Transfer    int64 // bytes per upload and download; 0: not measured
	Progress    func(what string)
}

// Row is the result of one contender. Values from several rounds are medians. Values that were not measured are 0.
type Row struct {
	Name    string `json:"name"`
	Version string `json:"version"`

	CPU       float64 `json:"cpuMicrosPerRequest"`    // with all connections; in the direct row, of the replica
	CPUOne    float64 `json:"cpuMicrosPerRequestOne"` // with one connection
	PerSecond float64 `json:"requestsPerSecond"`
	P50       float64 `json:"p50Ms"`
	P99       float64 `json:"p99Ms"`
	P50One    float64 `json:"p50OneMs"`    // with one connection
	Added     float64 `json:"addedMicros"` // compared with P50One of the direct row in the same round
	Memory    int64   `json:"memoryBytes"` // after the last round
	Failed    int64   `json:"failed"`      // failed requests, streams and transfers

	EventDelay    float64 `json:"eventDelayMs"` // median time from writing an event to reading it
	EventDelayP99 float64 `json:"eventDelayP99Ms"`
	StreamsOpen   int     `json:"streamsOpen"`
	StreamsMemory int64   `json:"streamsMemoryBytes"`
	IdleOpen      int     `json:"idleOpen"`
	IdleMemory    int64   `json:"idleMemoryBytes"`

	UploadRate     float64 `json:"uploadMBPerSecond"`
	UploadMemory   int64   `json:"uploadPeakBytes"`
	UploadCPU      float64 `json:"uploadCpuSecondsPerGB"`
	DownloadRate   float64 `json:"downloadMBPerSecond"`
	DownloadMemory int64   `json:"downloadPeakBytes"`
	DownloadCPU    float64 `json:"downloadCpuSecondsPerGB"`
}

// Result is the result of a run.
type Result struct {
	Started     time.Time `json:"started"`
	CPUs        int       `json:"cpus"`
	Rounds      int       `json:"rounds"`
	Seconds     float64   `json:"secondsPerRound"`
	Connections int       `json:"connections"`
	Transfer    int64     `json:"transferBytes"`
	Rows        []Row     `json:"rows"`
	OverNginx   float64   `json:"cpuOverNginx"` // our CPU time divided by nginx's, median of the rounds; 0: not measured
	OverGo      float64   `json:"cpuOverReverseProxy"`
	Missing     []string  `json:"missing"`
}

// runner is a run in progress.
type runner struct {
	Options
	all     []contender
	procs   []*process // by contender; for the direct one it is the replica
	rows    []Row
	samples [][]sample // by contender and round
}

// sample is the result of one contender in one round.
type sample struct{ cpu, cpuOne, perSecond, p50, p99, p50One float64 }

// Run measures everything that the options select.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	r := &runner{Options: o}
	all, missing := contenders(o)
	for _, c := range all {
		if len(o.Only) == 0 || slices.Contains(o.Only, c.name) || c.name == nameDirect {
			r.all = append(r.all, c)
		}
	}
	for _, name := range o.Only {
		if !slices.ContainsFunc(all, func(c contender) bool { return c.name == name }) {
			return nil, errors.Join(fmt.Errorf("%s cannot be measured here", name), errors.New(fmt.Sprint(missing)))
		}
	}
	dir, err := os.MkdirTemp("", "penstock-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Some contenders run as another user and only use the folders below.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	defer func() {
		for _, p := range r.procs {
			err = errors.Join(err, p.stop())
		}
	}()
	started := time.Now()
	if err := r.start(ctx, dir); err != nil {
		return nil, err
	}
	if err := r.requests(ctx); err != nil {
		return nil, err
	}
	// Memory used for many connections is not all released afterwards, so these steps come last.
	for _, step := range []func(context.Context, int) error{r.events, r.transfers, r.streams, r.idle} {
		for i := range r.all {
			if err := step(ctx, i); err != nil {
				return nil, fmt.Errorf("%s: %w", r.all[i].name, err)
			}
		}
	}
	result = &Result{
		Started: started.UTC().Truncate(time.Second), CPUs: runtime.NumCPU(), Rounds: o.Rounds, Seconds: o.Round.Seconds(),
		Connections: o.Connections, Transfer: o.Transfer, Rows: r.rows, Missing: missing,
		OverNginx: r.over(nameNginx), OverGo: r.over(nameGo),
	}
	return result, nil
}

// start starts the replica and then all contenders.
func (r *runner) start(ctx context.Context, dir string) error {
	r.rows, r.samples = make([]Row, len(r.all)), make([][]sample, len(r.all))
	for i, c := range r.all {
		r.rows[i].Name, r.rows[i].Version = c.name, c.version
		own := filepath.Join(dir, c.name)
		if err := os.Mkdir(own, 0o755); err != nil {
			return err
		}
		var p *process
		var err error
		if c.start == nil {
			p, err = startPart(ctx, r.Exe, PartReplica, "")
		} else {
			p, err = c.start(ctx, own, r.procs[0].addr)
		}
		if err != nil {
			return fmt.Errorf("start %s: %w", c.name, err)
		}
		r.procs = append(r.procs, p)
	}
	return nil
}

// ask sends requests to a contender.
func (r *runner) ask(ctx context.Context, i int, req load.Request, plan load.Plan) (*load.Summary, error) {
	req.URL = "http://" + r.procs[i].addr + req.URL
	req.Major, req.Timeout = 1, time.Minute
	req.Header = http.Header{"Host": {host}, "Accept": {"*/*"}}
	plan.Count = 1 << 40
	l, err := load.New(ctx, req, plan, nil)
	if err != nil {
		return nil, err
	}
	s, _, err := l.Run(ctx)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	r.rows[i].Failed += s.Failed
	if s.Succeeded == 0 {
		return nil, fmt.Errorf("no answer was whole: %+v", s.Errors)
	}
	return s, nil
}

const warmUp = 300 * time.Millisecond

// requests measures rounds of requests with small responses.
func (r *runner) requests(ctx context.Context) error {
	small := func(i, clients int, d time.Duration) (cpu float64, s *load.Summary, err error) {
		before, err := r.procs[i].cpu()
		if err != nil {
			return 0, nil, err
		}
		if s, err = r.ask(ctx, i, load.Request{URL: "/"}, load.Plan{Clients: clients, Duration: d}); err != nil {
			return 0, nil, err
		}
		after, err := r.procs[i].cpu()
		return float64((after - before).Microseconds()) / float64(s.Requests), s, err
	}
	for round := range r.Rounds {
		for i, c := range r.all {
			r.Progress(fmt.Sprintf("round %d of %d: %s", round+1, r.Rounds, c.name))
			if _, _, err := small(i, r.Connections, warmUp); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			cpu, many, err := small(i, r.Connections, r.Round)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			cpuOne, one, err := small(i, 1, r.Round/2)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			r.samples[i] = append(r.samples[i], sample{cpu, cpuOne, many.PerSecond, many.Latency.P50, many.Latency.P99, one.Latency.P50})
		}
	}
	for i := range r.all {
		row := &r.rows[i]
		of := func(value func(round int) float64) float64 {
			var all []float64
			for round := range r.samples[i] {
				all = append(all, value(round))
			}
			return median(all)
		}
		row.CPU = of(func(n int) float64 { return r.samples[i][n].cpu })
		row.CPUOne = of(func(n int) float64 { return r.samples[i][n].cpuOne })
		row.PerSecond = of(func(n int) float64 { return r.samples[i][n].perSecond })
		row.P50 = of(func(n int) float64 { return r.samples[i][n].p50 })
		row.P99 = of(func(n int) float64 { return r.samples[i][n].p99 })
		row.P50One = of(func(n int) float64 { return r.samples[i][n].p50One })
		row.Added = of(func(n int) float64 { return (r.samples[i][n].p50One - r.samples[0][n].p50One) * 1000 })
		var err error
		if row.Memory, err = r.procs[i].memory(); err != nil {
			return err
		}
	}
	return nil
}

// over returns our CPU time per request divided by a contender's.
func (r *runner) over(peer string) float64 {
	find := func(name string) []sample {
		i := slices.IndexFunc(r.all, func(c contender) bool { return c.name == name })
		if i < 0 {
			return nil
		}
		return r.samples[i]
	}
	ours, theirs := find(namePenstock), find(peer)
	var ratios []float64
	for n := range min(len(ours), len(theirs)) {
		if theirs[n].cpu > 0 { // otherwise the round was too short for the kernel's clock
			ratios = append(ratios, ours[n].cpu/theirs[n].cpu)
		}
	}
	return median(ratios)
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(all))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
