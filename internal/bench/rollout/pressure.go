package rollout

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"penstock/internal/load"
)

// Target is an app made from examples/hello.
type Target struct {
	Address string // of the server's http listener
	Host    string // of the app
}

// kind is a group of clients that do the same.
type kind struct {
	name, method, path string
	clients            int
	fresh              bool // a connection for each request
	streams            bool
	think              time.Duration
}

// Streams is how many event streams there are at a time. Each takes a second.
const Streams = 4

// pressing are the clients of a Pressure. The third kind is not repeated by the ingress.
var pressing = [...]kind{
	{name: "keep-alive", method: http.MethodGet, path: "/", clients: 8, think: think},
	{name: "new connections", method: http.MethodGet, path: "/", clients: 8, fresh: true, think: think},
	{name: "POST", method: http.MethodPost, path: "/pause?ms=20", clients: 4, think: think},
	{name: "event streams", method: http.MethodGet, path: "/events?n=20&ms=50", clients: Streams, streams: true, think: think},
}

const think = 2 * time.Millisecond

// InHand is how many requests are under way at most.
func InHand() (n int) {
	for _, k := range pressing {
		n += k.clients
	}
	return n
}

// requestLimit is the time limit of a request. One that waits for a replica that does not exist runs into it.
const requestLimit = 30 * time.Second

// Pressure is a load on an app. The generator never sends a request twice, so every fault shows.
type Pressure struct {
	groups []*group
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// group are the clients of one kind.
type group struct {
	kind
	load    *load.Load
	seen    seen
	summary *load.Summary
	failed  error
}

// Press starts a load, which goes on until Stop.
func Press(ctx context.Context, to Target) (*Pressure, error) { return press(ctx, to, pressing[:]) }

func press(ctx context.Context, to Target, kinds []kind) (*Pressure, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &Pressure{cancel: cancel}
	for _, k := range kinds {
		g := &group{kind: k}
		var err error
		g.load, err = load.New(ctx, load.Request{
			URL: "http://" + to.Address + k.path, Method: k.method, Major: 1, Header: http.Header{"Host": {to.Host}},
			NewConnections: k.fresh, Events: k.streams, Stamped: k.streams, Timeout: requestLimit,
		}, load.Plan{Clients: k.clients, Think: k.think, Duration: 24 * time.Hour, Count: 1 << 40}, &g.seen)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		p.groups = append(p.groups, g)
	}
	for _, g := range p.groups {
		p.wg.Go(func() { g.summary, _, g.failed = g.load.Run(ctx) })
	}
	return p, nil
}

// Requests is how many requests have ended, of which the last few may not be counted yet.
func (p *Pressure) Requests() (n int64) {
	for _, g := range p.groups {
		n += g.seen.requests.Load()
	}
	return n
}

// Stop ends the load. Requests that this ends are not counted as failures.
func (p *Pressure) Stop() error {
	p.cancel()
	p.wg.Wait()
	for _, g := range p.groups {
		if g.failed != nil {
			return fmt.Errorf("%s: %w", g.name, g.failed)
		}
		if s := g.summary; s.Errors[load.Stopped] != nil {
			s.Failed -= s.Errors[load.Stopped].Count
			s.Requests -= s.Errors[load.Stopped].Count
			delete(s.Errors, load.Stopped)
		}
	}
	return nil
}

// Counts adds up all kinds of a load that was stopped; longest leaves the event streams out.
func (p *Pressure) Counts() (answered, failed int64, longest time.Duration) {
	for _, g := range p.groups {
		s := g.summary
		answered, failed = answered+s.Succeeded, failed+s.Failed
		if s.Latency != nil && !g.streams { // which last a second anyway
			longest = max(longest, time.Duration(s.Latency.Max*float64(time.Millisecond)))
		}
	}
	return answered, failed, longest
}

// failures are the requests that failed, with the wall clock's times.
func (p *Pressure) failures() (list []failure) {
	for _, g := range p.groups {
		for _, r := range g.seen.failed {
			list = append(list, failure{
				kind: g.name, sent: g.summary.Started.Add(r.Sent), ended: g.summary.Started.Add(r.LastByte),
				class: r.Error, detail: cmp.Or(r.Detail, strconv.Itoa(r.Status)), repeatable: g.method == http.MethodGet,
			})
		}
	}
	return list
}

// slowest is the answered request of each kind that took longest.
func (p *Pressure) slowest() (list []Slow) {
	for _, g := range p.groups {
		if r := g.seen.slowest; r.LastByte > 0 {
			list = append(list, Slow{Kind: g.name, Sent: g.summary.Started.Add(r.Sent), MS: ms(r.LastByte - r.Sent)})
		}
	}
	return list
}

// String is a table of the kinds, with what failed by its cause.
func (p *Pressure) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\n\tanswered\trefused\tfailed otherwise\tp50\tp99\tp99.9\tlongest\t\n")
	for _, g := range p.groups {
		s, refused := g.summary, int64(0)
		if r := s.Errors[load.Refused]; r != nil {
			refused = r.Count
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t", g.name, s.Succeeded, refused, s.Failed-refused)
		if q := s.Latency; q != nil {
			fmt.Fprintf(w, "%.1f ms\t%.1f ms\t%.1f ms\t%.1f ms\t", q.P50, q.P99, q.P999, q.Max)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	for _, g := range p.groups {
		for _, class := range slices.Sorted(maps.Keys(g.summary.Errors)) {
			e := g.summary.Errors[class]
			fmt.Fprintf(&b, "%s: %s: %d, such as: %s\n", g.name, class, e.Count, e.Example)
		}
	}
	return b.String()
}

// mostKept bounds the failures of a group that are kept. A run with more has failed anyway.
const mostKept = 100_000

// seen reads the records of a load: it counts them, and keeps the slowest and those of failures.
type seen struct {
	requests atomic.Int64
	rest     []byte // a record of which the end is still to come
	failed   []load.Record
	slowest  load.Record // that was answered
}

// Write implements io.Writer. The load calls it one after the other.
func (s *seen) Write(text []byte) (int, error) {
	n := len(text)
	for {
		line, rest, ok := bytes.Cut(text, []byte("\n"))
		if !ok {
			s.rest = append(s.rest, text...)
			return n, nil
		}
		s.requests.Add(1)
		line = append(s.rest, line...)
		var r load.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return 0, err
		}
		switch {
		case r.Error == "":
			if r.LastByte-r.Sent > s.slowest.LastByte-s.slowest.Sent {
				s.slowest = r
			}
		case r.Error != load.Stopped && len(s.failed) < mostKept:
			s.failed = append(s.failed, r)
		}
		s.rest, text = line[:0], rest
	}
}
