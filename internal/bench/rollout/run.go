package rollout

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"penstock/internal/bench/scaling"
	"penstock/internal/load"
)

// Server is the server that is measured, on this machine.
type Server interface {
	// Deploy writes an app, waits until its newest revision has taken over, and returns its URL.
	Deploy(ctx context.Context, name string, body []byte) (url string, err error)
	Delete(ctx context.Context, name string) error
	// Alive returns nil if the API answers.
	Alive(ctx context.Context) error
	// ScaledIn is how many replicas of the app have been scaled in.
	ScaledIn(ctx context.Context, name string) (int, error)
	// Broken is how many requests the replica had that were broken off when it ended, and that must not be sent to another one:
	// their method is not idempotent, or their response had begun.
	Broken(ctx context.Context, name, replica string) (int, error)
}

// Options choose what happens.
type Options struct {
	Server    Server
	Processes Processes
	Address   string // of the server's http listener
	Image     string // of examples/hello
	Progress  func(what string)

	Requests int64 // at least
	Switches int   // of the revision
	ScaleIns int   // replicas that are scaled in, at least
	Kills    int   // of replicas
	Restarts int   // of control and of the ingress (both killed), and hand-overs of both
}

// Result is what became of the requests.
type Result struct {
	Machine  scaling.Machine `json:"machine"`
	Seconds  float64         `json:"seconds"`
	Requests int64           `json:"requests"`
	Answered int64           `json:"answered"`
	Longest  float64         `json:"longestMs"`
	Done     []Done          `json:"done"`
	Slowest  []Slow          `json:"slowest"` // of each kind of client
	Failures []Cause         `json:"failures"`
	// Lost are the failures that nothing excuses.
	Lost int `json:"lost"`

	clients string
}

// Done is what was done to the server.
type Done struct {
	What    string  `json:"what"`
	Count   int     `json:"count"`
	Longest float64 `json:"longestMs"` // of one, until the app or the role was as it should be
}

// Slow is an answered request that took long.
type Slow struct {
	Kind   string    `json:"kind"`
	Sent   time.Time `json:"sent"`
	MS     float64   `json:"ms"`
	During []string  `json:"during"` // what was done to the server meanwhile
}

// change is something that was done to the server.
type change struct {
	what     string
	from, to time.Time
}

// during names the changes that were made while each request was under way.
func during(list []Slow, changes []change) []Slow {
	for i := range list {
		s := &list[i]
		s.During = []string{}
		end := s.Sent.Add(time.Duration(s.MS * float64(time.Millisecond)))
		for _, c := range changes {
			if c.from.Before(end) && s.Sent.Before(c.to) && !slices.Contains(s.During, c.what) {
				s.During = append(s.During, c.what)
			}
		}
	}
	return list
}

// Cause are failures of one kind.
type Cause struct {
	Cause   string `json:"cause"`
	Excused bool   `json:"excused"` // the request was in hand of what was killed, and must not be sent again
	Count   int    `json:"count"`
	Example string `json:"example"`
}

// failure is a request that failed.
type failure struct {
	kind        string
	sent, ended time.Time
	class       load.Class
	detail      string
	repeatable  bool
}

// kill is a process that was killed.
type kill struct {
	what      string
	from, end time.Time // of the kill, and when the process was gone
	excuses   int       // failures at most
	replica   bool
}

// explains reports whether a request was in hand of what was killed and may not be sent again.
func (k *kill) explains(f failure) bool {
	// The response of a request to a killed replica is a 502 at once, and its client reads it a little later.
	const late = 5 * time.Second
	if k.excuses == 0 || f.sent.After(k.end) || f.ended.Before(k.from) || f.ended.After(k.end.Add(late)) {
		return false
	}
	switch f.class {
	case load.Cut:
		return true
	case load.Closed, load.Reset:
		return !k.replica
	case load.Status:
		return k.replica && !f.repeatable
	}
	return false
}

// bench is a run.
type bench struct {
	Options
	done    map[string]*Done
	changes []change
	kills   []kill
	env     int // of the revision
	url     string
}

const (
	appName     = "bench-rollout"
	target      = 20 // of the scale rule: more than the clients of Press need
	least, most = 2, 8
	crowdOf     = target * most
	// patience bounds each wait. Only a server that does not recover reaches it.
	patience = 3 * time.Minute
)

// crowd makes the app scale out.
var crowd = []kind{{name: "crowd", method: "GET", path: "/pause?ms=1000", clients: crowdOf, think: think}}

// Run sends requests while it switches revisions, lets replicas be scaled in, kills replicas and restarts roles, in random order.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	b := &bench{Options: o, done: map[string]*Done{}}
	out := &Result{Machine: scaling.Here()}
	if err := b.deploy(ctx); err != nil {
		return nil, fmt.Errorf("deploy %s: %w", appName, err)
	}
	defer func() { err = errors.Join(err, o.Server.Delete(context.WithoutCancel(ctx), appName)) }()
	host, _, _ := strings.Cut(strings.TrimPrefix(b.url, "http://"), ":")
	to := Target{Address: o.Address, Host: host}

	began := time.Now()
	p, err := Press(ctx, to)
	if err != nil {
		return nil, err
	}
	loads := []*Pressure{p}
	err = b.all(ctx, to, &loads)
	for err == nil && b.requests(loads) < o.Requests {
		o.Progress(fmt.Sprintf("%d of %d requests", b.requests(loads), o.Requests))
		err = pause(ctx, 10*time.Second)
	}
	err = errors.Join(err, p.Stop())
	if err != nil {
		return nil, err
	}
	out.Seconds, out.clients = time.Since(began).Seconds(), p.String()
	var failures []failure
	for _, l := range loads {
		answered, failed, longest := l.Counts()
		out.Requests, out.Answered, out.Longest = out.Requests+answered+failed, out.Answered+answered, max(out.Longest, ms(longest))
		failures = append(failures, l.failures()...)
	}
	out.Slowest = during(p.slowest(), b.changes)
	out.judge(failures, b.kills)
	out.Lost += int(out.Requests-out.Answered) - len(failures) // those that were too many to keep
	for _, what := range slices.Sorted(maps.Keys(b.done)) {
		out.Done = append(out.Done, *b.done[what])
	}
	out.Machine.End()
	return out, nil
}

func (b *bench) requests(loads []*Pressure) (n int64) {
	for _, l := range loads {
		n += l.Requests()
	}
	return n
}

// judge groups failures by their cause.
func (r *Result) judge(failures []failure, kills []kill) {
	slices.SortFunc(failures, func(a, b failure) int { return a.ended.Compare(b.ended) })
	causes := map[string]*Cause{}
	for _, f := range failures {
		c := Cause{Cause: "not explained by a kill", Example: fmt.Sprintf("%s: %s: %s, at %s", f.kind, f.class, f.detail, f.ended.UTC().Format(time.TimeOnly))}
		for i := range kills {
			if k := &kills[i]; k.explains(f) {
				k.excuses--
				c.Cause, c.Excused = "in hand of a killed "+k.what, true
				break
			}
		}
		if !c.Excused {
			r.Lost++
		}
		if causes[c.Cause] == nil {
			causes[c.Cause] = &c
		}
		causes[c.Cause].Count++
	}
	r.Failures = []Cause{}
	for _, name := range slices.Sorted(maps.Keys(causes)) {
		r.Failures = append(r.Failures, *causes[name])
	}
}

// deploy writes the app with a new revision.
func (b *bench) deploy(ctx context.Context) error {
	type m = map[string]any
	body, err := json.Marshal(m{
		"tags": m{"penstock.scale-in-window": "1s"},
		"properties": m{
			"configuration": m{"ingress": m{"external": true, "targetPort": 8080, "allowInsecure": true}},
			"template": m{
				"containers": []m{{
					"name": "hello", "image": b.Image, "resources": m{"cpu": 0.25, "memory": "0.5Gi"}, "env": []m{{"name": "N", "value": strconv.Itoa(b.env)}},
				}},
				"scale": m{
					"minReplicas": least, "maxReplicas": most,
					"rules": []m{{"name": "users", "http": m{"metadata": m{"concurrentRequests": strconv.Itoa(target)}}}},
				},
			},
		},
	})
	if err != nil {
		return err
	}
	b.env++
	b.url, err = b.Server.Deploy(ctx, appName, body)
	return err
}

// all does everything once, in an order that is the same in each run.
func (b *bench) all(ctx context.Context, to Target, loads *[]*Pressure) error {
	// A crowd makes the app scale out as far as it can, so each is worth as many scale-ins.
	const perCrowd = most - least
	var todo []string
	for what, n := range map[string]int{
		"revision switches": b.Switches, "scale-ins": (b.ScaleIns + perCrowd - 1) / perCrowd, "kills of replicas": b.Kills,
		"kills of control": b.Restarts, "kills of the ingress": b.Restarts, "hand-overs of both roles": b.Restarts,
	} {
		todo = append(todo, slices.Repeat([]string{what}, n)...)
		b.done[what] = &Done{What: what}
	}
	slices.Sort(todo)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(todo), func(i, k int) { todo[i], todo[k] = todo[k], todo[i] })
	for i := 0; i < len(todo); i++ {
		what := todo[i]
		if i%10 == 0 {
			b.Progress(fmt.Sprintf("%d of %d changes, %d requests", i, len(todo), b.requests(*loads)))
		}
		began, n := time.Now(), 1
		var err error
		switch what {
		case "revision switches":
			err = b.deploy(ctx)
		case "scale-ins":
			n, err = b.scaleIn(ctx, to, loads)
		case "kills of replicas":
			err = b.killReplica(ctx)
		case "kills of control":
			err = b.killRole(ctx, "control", 0)
		case "kills of the ingress":
			err = b.killRole(ctx, "ingress", InHand())
		case "hand-overs of both roles":
			err = b.handOver(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		b.changes = append(b.changes, change{what, began, time.Now()})
		d := b.done[what]
		d.Count += n
		d.Longest = max(d.Longest, ms(time.Since(began)))
		if i == len(todo)-1 && b.done["scale-ins"].Count < b.ScaleIns {
			todo = append(todo, "scale-ins") // a crowd led to fewer replicas than it should
		}
	}
	return nil
}

// scaleIn lets a crowd come and go, and returns how many replicas were scaled in.
func (b *bench) scaleIn(ctx context.Context, to Target, loads *[]*Pressure) (int, error) {
	before, err := b.Server.ScaledIn(ctx, appName)
	if err != nil {
		return 0, err
	}
	c, err := press(ctx, to, crowd)
	if err != nil {
		return 0, err
	}
	*loads = append(*loads, c)
	replicas := func(enough func(int) bool) func() (bool, error) {
		return func() (bool, error) {
			now, err := b.Processes.Replicas()
			return enough(len(now)), err
		}
	}
	err = until(ctx, "the app does not scale out", replicas(func(n int) bool { return n >= most }))
	if err = errors.Join(err, c.Stop()); err != nil {
		return 0, err
	}
	if err := until(ctx, "the app does not scale in", replicas(func(n int) bool { return n <= least })); err != nil {
		return 0, err
	}
	after, err := b.Server.ScaledIn(ctx, appName)
	return after - before, err
}

// killReplica kills the processes of a replica.
func (b *bench) killReplica(ctx context.Context) error {
	before, err := b.Processes.Replicas()
	if err != nil {
		return err
	}
	name := ""
	for replica, pids := range before {
		if pids != "" && replica > name {
			name = replica
		}
	}
	if name == "" {
		return errors.New("no replica runs")
	}
	broken, err := b.Server.Broken(ctx, appName, name)
	if err != nil {
		return err
	}
	k := kill{what: "replica", replica: true, from: time.Now()}
	for pid := range strings.FieldsSeq(before[name]) {
		n, err := strconv.Atoi(pid)
		if err == nil {
			err = syscall.Kill(n, syscall.SIGKILL)
		}
		if err != nil {
			return fmt.Errorf("kill process %s of replica %s: %w", pid, name, err)
		}
	}
	// One of an older revision that still drains is not restarted.
	err = until(ctx, fmt.Sprintf("the app does not have %d replicas again", least), func() (bool, error) {
		now, err := b.Processes.Replicas()
		if now[name] == before[name] {
			return false, err
		}
		if k.end.IsZero() {
			k.end = time.Now()
		}
		running := 0
		for _, pids := range now {
			if pids != "" {
				running++
			}
		}
		return running >= least, err
	})
	if err != nil {
		return err
	}
	// Access records are written within a second of the request's end.
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	k.excuses, err = b.Server.Broken(ctx, appName, name)
	k.excuses -= broken
	b.kills = append(b.kills, k)
	return err
}

// killRole kills a role, and waits for its successor. It may cost as many requests as lost says.
func (b *bench) killRole(ctx context.Context, role string, lost int) error {
	before, err := b.Processes.Role(role)
	if err != nil {
		return err
	}
	k := kill{what: role, from: time.Now(), excuses: lost}
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", before, err)
	}
	if err := b.replaced(ctx, map[string]int{role: before}); err != nil {
		return err
	}
	k.end = time.Now()
	b.kills = append(b.kills, k)
	return nil
}

// handOver replaces both roles.
func (b *bench) handOver(ctx context.Context) error {
	before := map[string]int{"ingress": 0, "control": 0}
	for role := range before {
		pid, err := b.Processes.Role(role)
		if err != nil {
			return err
		}
		before[role] = pid
	}
	supervisor, err := b.Processes.Supervisor()
	if err == nil {
		err = syscall.Kill(supervisor, syscall.SIGHUP)
	}
	if err != nil {
		return err
	}
	return b.replaced(ctx, before)
}

// replaced waits until roles have other processes than before, and the API answers.
func (b *bench) replaced(ctx context.Context, before map[string]int) error {
	return until(ctx, "the role is not replaced", func() (bool, error) {
		for role, old := range before {
			if now, err := b.Processes.Role(role); err != nil || now == 0 || now == old {
				return false, err
			}
		}
		return b.Server.Alive(ctx) == nil, nil
	})
}

// until waits for what comes by itself.
func until(ctx context.Context, missing string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s within %s", missing, patience))
	defer cancel()
	for {
		if is, err := ok(); is || err != nil {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// WriteText prints the figures for people.
func (r *Result) WriteText(w io.Writer) {
	fmt.Fprintf(w, "%s. %d requests in %.0f s: %d answered, %d failed, %d of them lost.\n", r.Machine, r.Requests, r.Seconds, r.Answered, r.Requests-r.Answered, r.Lost)
	fmt.Fprintln(w, r.clients)
	for _, d := range r.Done {
		fmt.Fprintf(w, "%5d %-26s the longest took %.1f s\n", d.Count, d.What, d.Longest/1000)
	}
	fmt.Fprintln(w)
	for _, s := range r.Slowest {
		fmt.Fprintf(w, "the slowest of %s: %.0f ms, sent at %s; meanwhile: %s\n",
			s.Kind, s.MS, s.Sent.UTC().Format("15:04:05.000"), cmp.Or(strings.Join(s.During, ", "), "nothing"))
	}
	fmt.Fprintln(w)
	if len(r.Failures) == 0 {
		fmt.Fprintln(w, "no request failed")
	}
	for _, c := range r.Failures {
		verdict := "LOST"
		if c.Excused {
			verdict = "must not be sent again"
		}
		fmt.Fprintf(w, "%5d %s (%s), such as: %s\n", c.Count, c.Cause, verdict, c.Example)
	}
}
