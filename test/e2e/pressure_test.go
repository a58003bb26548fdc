package e2e_test

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

// pressure is what an app is asked meanwhile: by clients that keep their connection, by clients that open one for each
// request, and by some that hold event streams open. The generator never sends a request twice, so that every fault shows.
type pressure struct {
	kinds []string
	all   []*load.Summary // by kind
}

// streamsOpen is how many event streams there are at a time; each takes a second.
const streamsOpen = 4

// press begins, and returns what ends it and says how it went.
func press(t *testing.T, m *machine, app string) (stop func() *pressure) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	address := "127.0.0.1:" + strconv.Itoa(m.status.HTTPPort)
	p := &pressure{}
	var wg sync.WaitGroup
	for _, kind := range []struct {
		name, path string
		clients    int
		fresh      bool
	}{
		{"keep-alive", "/", 8, false},
		{"new connections", "/", 8, true},
		{"event streams", "/events?n=20&ms=50", streamsOpen, false},
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
	until(t, 20*time.Second, "open event streams", func() bool {
		m.readStatus(t)
		return m.status.InFlight >= streamsOpen
	})
	return func() *pressure {
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

// counts adds up all kinds.
func (p *pressure) counts() (answered, failed int64, longest time.Duration) {
	for i, s := range p.all {
		answered, failed = answered+s.Succeeded, failed+s.Failed
		if s.Latency != nil && !strings.HasSuffix(p.kinds[i], "streams") { // which last a second anyway
			longest = max(longest, time.Duration(s.Latency.Max*float64(time.Millisecond)))
		}
	}
	return answered, failed, longest
}

// String is a table of the kinds, with what failed by its cause.
func (p *pressure) String() string {
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

// times is how often something is done: as the variable says, or a few times.
func times(variable string, few int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return few
}
