package scaling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"penstock/internal/admin/wire"
	"penstock/internal/load"
	"penstock/internal/resource"
)

// Server is the server that is measured.
type Server interface {
	// Deploy writes an app, waits until it is ready, and returns its URL.
	Deploy(ctx context.Context, name string, properties []byte) (url string, err error)
	Delete(ctx context.Context, name string) error
	Scale(ctx context.Context, name string) (wire.Scale, error)
	// Events and Requests are all that the server has recorded of an app, oldest first.
	Events(ctx context.Context, name string) ([]Event, error)
	Requests(ctx context.Context, name string) ([]Request, error)
}

// Event is a system event.
type Event struct {
	At       time.Time
	Reason   string
	Replica  string
	Duration time.Duration
}

// Request is an access record.
type Request struct {
	Start   time.Time
	Held    time.Duration // before it got a place on a replica
	Status  int
	Flags   string
	Details string
	Replica string
}

// Options are those of all benchmarks.
type Options struct {
	Server   Server
	Progress func(what string)
	Quick    bool // shorter, for a first look: the figures say less
}

// Machine is where a benchmark ran, and how busy it was.
type Machine struct {
	CPUs       int     `json:"cpus"`
	LoadBefore float64 `json:"loadBefore"` // of one minute
	LoadAfter  float64 `json:"loadAfter"`
}

// Here is this machine before a benchmark.
func Here() Machine { return Machine{CPUs: runtime.NumCPU(), LoadBefore: loadAverage()} }

// End reads how busy the machine is after the benchmark.
func (m *Machine) End() { m.LoadAfter = loadAverage() }

func (m Machine) String() string {
	return fmt.Sprintf("%d CPUs, load %.1f before and %.1f after", m.CPUs, m.LoadBefore, m.LoadAfter)
}

// loadAverage is 0 where there is no such file.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	n, _ := strconv.ParseFloat(first, 64)
	return n
}

// spec is an app that is measured.
type spec struct {
	name      string
	behaviour resource.Behaviour
	start     time.Duration // until a replica listens
	target    int           // of its http rule, and the requests that a replica gets at a time
	min, max  int
	line      int // requests that may wait
	cooldown  int // seconds
	window    time.Duration
}

// image is the fake runtime's: it answers after ?delay=.
const image = "fake/echo"

func (s spec) body() ([]byte, error) {
	type m = map[string]any
	tags := map[string]string{
		"penstock.behaviour": string(s.behaviour), "penstock.max-concurrency": strconv.Itoa(s.target), "penstock.queue-limit": strconv.Itoa(s.line),
		"penstock.queue-timeout": queueTimeout.String(),
	}
	if s.window > 0 {
		tags["penstock.scale-in-window"] = s.window.String()
	}
	return json.Marshal(m{"tags": tags, "properties": m{
		"configuration": m{"ingress": m{"external": true, "targetPort": 8080, "allowInsecure": true}},
		"template": m{
			"containers": []m{{
				"name": "app", "image": image, "resources": m{"cpu": 0.25, "memory": "0.5Gi"},
				"env": []m{{"name": "FAKE_START_DELAY", "value": s.start.String()}},
			}},
			"scale": m{
				"minReplicas": s.min, "maxReplicas": s.max, "cooldownPeriod": s.cooldown,
				"rules": []m{{"name": "users", "http": m{"metadata": m{"concurrentRequests": strconv.Itoa(s.target)}}}},
			},
		},
	}})
}

// queueTimeout is longer than any benchmark, so that what waits is counted and not refused for its time.
const queueTimeout = 10 * time.Minute

// app is a deployed one.
type app struct {
	spec
	Options
	url string
}

// deploy makes an app, which the function that it returns deletes.
func deploy(ctx context.Context, o Options, s spec) (_ *app, remove func() error, err error) {
	body, err := s.body()
	if err != nil {
		return nil, nil, err
	}
	url, err := o.Server.Deploy(ctx, s.name, body)
	if err != nil {
		return nil, nil, fmt.Errorf("deploy %s: %w", s.name, err)
	}
	return &app{s, o, url}, func() error { return o.Server.Delete(context.WithoutCancel(ctx), s.name) }, nil
}

// requests is what is sent.
type requests struct {
	plan    load.Plan
	service time.Duration // of each; 0: its ContextTokens are microseconds
}

// send sends them all.
func (a *app) send(ctx context.Context, r requests) (*load.Summary, error) {
	return a.sendUntil(ctx, ctx, r)
}

// sendUntil sends until one ends.
func (a *app) sendUntil(ctx, one context.Context, r requests) (*load.Summary, error) {
	req := load.Request{URL: a.url + "/?delay=" + r.service.String(), Major: 1, Timeout: queueTimeout}
	if r.service == 0 {
		req.URL, req.Template = a.url+"/?delay=body", "{{.ContextTokens}}us"
	}
	l, err := load.New(ctx, req, r.plan, nil)
	if err != nil {
		return nil, err
	}
	sum, _, err := l.Run(one)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return sum, err
}

// scale is what the server says of the app's only revision.
func (a *app) scale(ctx context.Context) (wire.RevisionScale, error) {
	s, err := a.Server.Scale(ctx, a.name)
	if err != nil {
		return wire.RevisionScale{}, err
	}
	if len(s.Revisions) != 1 {
		return wire.RevisionScale{}, fmt.Errorf("app %s: want one revision that scales, got %d", a.name, len(s.Revisions))
	}
	return s.Revisions[0], nil
}

// lookEvery is how often the server is asked while something is awaited. Times are those that the server recorded.
const lookEvery = 100 * time.Millisecond

// until looks until is says yes.
func (a *app) until(ctx context.Context, what string, limit time.Duration, is func(wire.RevisionScale) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("app %s: not %s within %s", a.name, what, limit))
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		s, err := a.scale(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if is(s) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// changes collects the changes of the count until the function that it returns is called. The server keeps the last few only.
func (a *app) changes(ctx context.Context) (stop func() ([]wire.ScaleChange, error)) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var all []wire.ScaleChange
	var failed error
	look := func(ctx context.Context) error {
		s, err := a.scale(ctx)
		for _, c := range s.Changes {
			if len(all) == 0 || c.At.After(all[len(all)-1].At) {
				all = append(all, c)
			}
		}
		return err
	}
	wg.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			if err := look(ctx); err != nil && ctx.Err() == nil {
				failed = err
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() ([]wire.ScaleChange, error) {
		cancel()
		wg.Wait()
		if failed == nil {
			failed = look(context.WithoutCancel(ctx))
		}
		return all, failed
	}
}

// records are the access records since a time. They are written within a second of a request's end.
func (a *app) records(ctx context.Context, since time.Time, want int) (list []Request, err error) {
	const limit = time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("app %s: not all of %d requests are recorded within %s", a.name, want, limit))
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if list, err = a.Server.Requests(ctx, a.name); err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(r Request) bool { return r.Start.Before(since) })
		if len(list) >= want {
			return list, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ready are the events of replicas that became ready since a time, oldest first.
func (a *app) ready(ctx context.Context, since time.Time) ([]Event, error) {
	list, err := a.Server.Events(ctx, a.name)
	return slices.DeleteFunc(list, func(e Event) bool { return e.Reason != "ReplicaReady" || e.At.Before(since) }), err
}

// warm lets the server learn the service time, and waits until the app has n replicas again.
func (a *app) warm(ctx context.Context, service time.Duration, n int) error {
	sum, err := a.send(ctx, requests{plan: load.Plan{
		Arrivals: load.Constant(1000), Endless: true, Words: "warm-up", Duration: time.Second, Count: int64(a.target), MaxOutstanding: a.target,
	}, service: service})
	if err != nil {
		return err
	}
	if sum.Failed > 0 {
		return fmt.Errorf("app %s: %d of %d requests of the warm-up failed", a.name, sum.Failed, sum.Requests)
	}
	return a.until(ctx, fmt.Sprintf("at %d replicas", n), time.Minute+a.start, func(s wire.RevisionScale) bool { return s.Wanted == n && s.Replicas == n })
}

// ordered is when the count first was at least n, at or after a time; ok is false if it never was.
func ordered(changes []wire.ScaleChange, since time.Time, n int) (at time.Time, ok bool) {
	for _, c := range changes {
		if c.To >= n && !c.At.Before(since) {
			return c.At, true
		}
	}
	return time.Time{}, false
}

// most is the largest count since a time.
func most(changes []wire.ScaleChange, since time.Time) (n int) {
	for _, c := range changes {
		if !c.At.Before(since) {
			n = max(n, c.To)
		}
	}
	return n
}

// needed is how many replicas a load takes by Little's law.
func needed(perSecond float64, service time.Duration, target int) int {
	// A rate is a decimal fraction, so the product may be a little above a whole number.
	const close = 1e-9
	return max(1, int(math.Ceil(perSecond*service.Seconds()/float64(target)-close)))
}

// Times are percentiles, in milliseconds.
type Times struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func timesOf(list []time.Duration) Times {
	if len(list) == 0 {
		return Times{}
	}
	s := slices.Sorted(slices.Values(list))
	at := func(percent int) float64 { return ms(s[min(len(s)*percent/100, len(s)-1)]) }
	return Times{P50: at(50), P95: at(95), P99: at(99), Max: ms(s[len(s)-1])}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// outcome is what became of requests.
type outcome struct {
	// Lost are requests that got neither a response of a replica nor a refusal.
	Answered int            `json:"answered"`
	Lost     int            `json:"lost"`
	Refused  map[string]int `json:"refused"` // by the reason in their access record
}

func outcomeOf(sum *load.Summary, records []Request) outcome {
	o := outcome{Answered: int(sum.Succeeded), Refused: map[string]int{}}
	refused := 0
	for _, r := range records {
		if r.Status == 503 && r.Replica == "" {
			refused++
			o.Refused[strings.TrimSpace(r.Flags+" "+r.Details)]++
		}
	}
	o.Lost = int(sum.Failed) - refused
	return o
}

func (o outcome) String() string {
	parts := []string{fmt.Sprintf("%d answered, %d lost", o.Answered, o.Lost)}
	for _, name := range slices.Sorted(maps.Keys(o.Refused)) {
		parts = append(parts, fmt.Sprintf("%d refused (%s)", o.Refused[name], name))
	}
	return strings.Join(parts, ", ")
}

// finish joins the error of a benchmark with that of its end.
func finish(err *error, end func() error) { *err = errors.Join(*err, end()) }
