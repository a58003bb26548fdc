package penstocktest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"penstock/internal/load"
)

// Pressure is a load on an app: clients that keep their connection, clients that open one for each request, and some that
// hold event streams open. The generator never sends a request twice, so every fault shows.
type Pressure struct {
	kinds []string
	all   []*load.Summary // by kind
}

// StreamsOpen is how many event streams there are at a time; each takes a second.
const StreamsOpen = 4

// LongestRequest is what a request may take while replicas or roles change. A request that waits for a replica that does
// not exist runs into the load's time limit of 30 s; a request on a busy machine takes a few seconds.
const LongestRequest = 15 * time.Second

// Press starts the load on an app, and returns what ends it and says how it went.
func (m *Machine) Press(t *testing.T, app string) (stop func() *Pressure) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	address := "127.0.0.1:" + strconv.Itoa(m.Status.HTTPPort)
	p := &Pressure{}
	var wg sync.WaitGroup
	for _, kind := range []struct {
		name, path string
		clients    int
		fresh      bool
	}{
		{"keep-alive", "/", 8, false},
		{"new connections", "/", 8, true},
		{"event streams", "/events?n=20&ms=50", StreamsOpen, false},
	} {
		streams := strings.HasPrefix(kind.path, "/events")
		plan := load.Plan{Clients: kind.clients, Think: 2 * time.Millisecond, Duration: 2 * time.Hour, Count: 1 << 40}
		l, err := load.New(ctx, load.Request{
			URL: "http://" + address + kind.path, Major: 1, Header: http.Header{"Host": {app + ".penstock.localhost"}},
			NewConnections: kind.fresh, Events: streams, Stamped: streams, Timeout: 30 * time.Second,
		}, plan, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := len(p.all)
		p.kinds, p.all = append(p.kinds, kind.name), append(p.all, nil)
		wg.Go(func() {
			s, _, err := l.Run(ctx)
			if err != nil {
				t.Errorf("%s: %v", kind.name, err)
			}
			p.all[n] = s
		})
	}
	Until(t, time.Minute, "open event streams", func() bool {
		m.ReadStatus(t)
		return m.Status.InFlight >= StreamsOpen
	})
	return func() *Pressure {
		cancel()
		wg.Wait()
		for i, s := range p.all {
			if s == nil {
				t.Fatalf("%s: nothing was measured", p.kinds[i])
			}
			if ended := s.Errors[load.Stopped]; ended != nil { // by this
				s.Failed -= ended.Count
				delete(s.Errors, load.Stopped)
			}
		}
		return p
	}
}

// Counts adds up all kinds; longest leaves the event streams out.
func (p *Pressure) Counts() (answered, failed int64, longest time.Duration) {
	for i, s := range p.all {
		answered, failed = answered+s.Succeeded, failed+s.Failed
		if s.Latency != nil && !strings.HasSuffix(p.kinds[i], "streams") { // which last a second anyway
			longest = max(longest, time.Duration(s.Latency.Max*float64(time.Millisecond)))
		}
	}
	return answered, failed, longest
}

// String is a table of the kinds, with what failed by its cause.
func (p *Pressure) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\n\tanswered\trefused\tfailed otherwise\tp50\tp99\tp99.9\tlongest\t\n")
	for i, s := range p.all {
		refused := int64(0)
		if r := s.Errors[load.Refused]; r != nil {
			refused = r.Count
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t", p.kinds[i], s.Succeeded, refused, s.Failed-refused)
		if q := s.Latency; q != nil {
			fmt.Fprintf(w, "%.1f ms\t%.1f ms\t%.1f ms\t%.1f ms\t", q.P50, q.P99, q.P999, q.Max)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	for i, s := range p.all {
		for _, class := range slices.Sorted(maps.Keys(s.Errors)) {
			fmt.Fprintf(&b, "%s: %s: %d, such as: %s\n", p.kinds[i], class, s.Errors[class].Count, s.Errors[class].Example)
		}
	}
	return b.String()
}

// Times returns how often something is done: as the environment variable says, or few times.
func Times(variable string, few int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return few
}
