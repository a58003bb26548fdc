package load_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/internal/load"
)

// outcome is what a run left.
type outcome struct {
	*load.Summary
	timeline *load.Timeline
	records  []load.Record // by number
}

// run does a run with the test's defaults where the request and the plan say nothing.
func run(t *testing.T, req load.Request, plan load.Plan) outcome {
	t.Helper()
	return runUntil(t, t.Context(), req, plan)
}

func runUntil(t *testing.T, ctx context.Context, req load.Request, plan load.Plan) outcome {
	t.Helper()
	var lines bytes.Buffer
	l, err := load.New(t.Context(), withDefaults(req), planDefaults(plan), &lines)
	if err != nil {
		t.Fatal(err)
	}
	s, timeline, err := l.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	o := outcome{Summary: s, timeline: timeline}
	for d := json.NewDecoder(&lines); ; {
		var r load.Record
		if err := d.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("records: %v", err)
		}
		o.records = append(o.records, r)
	}
	slices.SortFunc(o.records, func(a, b load.Record) int { return int(a.N - b.N) })
	if int64(len(o.records)) != s.Requests || s.Succeeded+s.Failed != s.Requests {
		t.Errorf("got %d records, %d succeeded, %d failed of %d requests", len(o.records), s.Succeeded, s.Failed, s.Requests)
	}
	for i, r := range o.records {
		if r.N != int64(i) || r.LastByte < r.Scheduled {
			t.Fatalf("record %d: %+v", i, r)
		}
	}
	return o
}

func withDefaults(req load.Request) load.Request {
	if req.Major == 0 {
		req.Major = 1
	}
	if req.Timeout == 0 {
		req.Timeout = time.Minute
	}
	return req
}

func planDefaults(plan load.Plan) load.Plan {
	if plan.Duration == 0 {
		plan.Duration = time.Minute
	}
	if plan.Count == 0 {
		plan.Count = 1 << 40
	}
	if plan.MaxOutstanding == 0 && plan.Clients == 0 {
		plan.MaxOutstanding = 10_000
	}
	return plan
}

// times sends n requests one after the other.
func times(n int64) load.Plan { return load.Plan{Clients: 1, Count: n} }

// atOnce sends n requests at the start.
func atOnce(n int) load.Plan {
	return load.Plan{Arrivals: load.Replay(make([]load.Arrival, n), 1)}
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// stalling answers at once, but stands still for a time when the first request after start comes.
type stalling struct {
	mu      sync.Mutex
	start   time.Time
	stalled bool
}

const stall = 800 * time.Millisecond

func (s *stalling) ServeHTTP(http.ResponseWriter, *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stalled && time.Now().After(s.start) {
		s.stalled = true
		time.Sleep(stall)
	}
}

// The reason for an open loop: of two seconds of requests the server answered none for 0.8.
func TestOpenLoopSeesAStallThatTheClosedLoopHides(t *testing.T) {
	const length = 2 * time.Second
	server := &stalling{start: time.Now().Add(length / 4)}
	open := run(t, load.Request{URL: serve(t, server.ServeHTTP).URL}, load.Plan{Arrivals: load.Constant(250), Duration: length})
	if open.Requests != 500 || open.Failed != 0 {
		t.Fatalf("open loop: got %d requests, %d failed, want 500 and none", open.Requests, open.Failed)
	}
	// 40 % of all were due while it stood still, and waited for 400 ms on average.
	if open.Latency.P90 < 400 || open.Latency.Max < 750 || open.Latency.Mean < 100 {
		t.Errorf("open loop: got %+v, want the stall in the percentiles", open.Latency)
	}
	server = &stalling{start: time.Now().Add(length / 4)}
	closed := run(t, load.Request{URL: serve(t, server.ServeHTTP).URL}, load.Plan{Clients: 1, Duration: length})
	if closed.Latency.Max < 750 {
		t.Errorf("closed loop: got a longest answer of %.0f ms, want the stall", closed.Latency.Max)
	}
	if closed.Latency.P90 > open.Latency.P90/4 {
		t.Errorf("closed loop: got a p90 of %.1f ms beside %.1f, want it to hide the stall", closed.Latency.P90, open.Latency.P90)
	}
}

func TestCountsAreExact(t *testing.T) {
	plans := map[string]struct {
		plan load.Plan
		want int64
	}{
		"constant":        {load.Plan{Arrivals: load.Constant(200), Duration: 500 * time.Millisecond}, 100},
		"count ends it":   {load.Plan{Arrivals: load.Constant(1000), Count: 42}, 42},
		"all at once":     {atOnce(100), 100},
		"closed by count": {load.Plan{Clients: 8, Count: 101}, 101},
	}
	for name, test := range plans {
		t.Run(name, func(t *testing.T) {
			var served, bytesIn atomic.Int64
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				served.Add(1)
				n, _ := io.Copy(io.Discard, r.Body)
				bytesIn.Add(n)
				fmt.Fprint(w, "12345")
			})
			o := run(t, load.Request{URL: s.URL + "/a?b=c", Body: []byte("1234567")}, test.plan)
			if o.Requests != test.want || served.Load() != test.want || o.Succeeded != test.want || o.Statuses[200] != test.want || o.Latency.Count != test.want {
				t.Errorf("got %d requests, %d served, %d succeeded, statuses %v, %d latencies, want %d", o.Requests, served.Load(), o.Succeeded, o.Statuses, o.Latency.Count, test.want)
			}
			if o.BytesIn != 5*test.want || o.BytesOut != 7*test.want || bytesIn.Load() != 7*test.want {
				t.Errorf("got %d bytes in, %d out, %d at the server, want 5 and 7 a request", o.BytesIn, o.BytesOut, bytesIn.Load())
			}
		})
	}
}

func TestConnectionsAreUsedAgainUnlessToldOtherwise(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	if o := run(t, load.Request{URL: s.URL}, times(50)); o.Connections != 1 || !o.records[1].Reused || o.records[1].Connected != 0 {
		t.Errorf("got %d connections, want 1; second record %+v", o.Connections, o.records[1])
	}
	if o := run(t, load.Request{URL: s.URL, NewConnections: true}, times(50)); o.Connections != 50 || o.records[1].Reused || o.records[1].Connected == 0 {
		t.Errorf("got %d connections, want 50; second record %+v", o.Connections, o.records[1])
	}
}

func TestRequestsCarryWhatWasAsked(t *testing.T) {
	trace := []load.Arrival{{ContextTokens: 3, GeneratedTokens: 7}, {At: time.Millisecond, ContextTokens: 1, GeneratedTokens: 2}}
	for _, major := range []int{1, 2} {
		var mu sync.Mutex
		var bodies []string
		s := serve2(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			bodies = append(bodies, string(b))
			if r.ProtoMajor != major || r.Host != "app.example" || r.Method != "PUT" || r.Header.Get("X-Test") != "yes" || r.RequestURI != "/p?q=1" || r.ContentLength != int64(len(b)) {
				t.Errorf("got %s %s %s %s %v, length %d", r.Proto, r.Method, r.Host, r.RequestURI, r.Header, r.ContentLength)
			}
		})
		address := strings.TrimPrefix(s.URL, "http://")
		o := run(t, load.Request{
			URL: "http://app.example/p?q=1", Method: "PUT", Header: http.Header{"X-Test": {"yes"}}, Major: major,
			Template: `{{.N}} {{words .ContextTokens}} {{.GeneratedTokens}}`,
			Resolve:  map[string]string{"app.example:80": address},
		}, load.Plan{Arrivals: load.Replay(trace, 1)})
		slices.Sort(bodies)
		if o.Succeeded != 2 || !slices.Equal(bodies, []string{"0 word word word 7", "1 word 2"}) {
			t.Errorf("HTTP/%d: got %q, %d succeeded, %v", major, bodies, o.Succeeded, o.Errors)
		}
		if o.Address != address {
			t.Errorf("got address %s, want %s", o.Address, address)
		}
	}
}

func TestTheBoundOnOutstandingIsTold(t *testing.T) {
	const bound, all = 5, 20
	var mu sync.Mutex
	now, most := 0, 0
	s := serve(t, func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(20 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
	})
	plan := atOnce(all)
	plan.MaxOutstanding = bound
	o := run(t, load.Request{URL: s.URL}, plan)
	if o.Succeeded != all || o.Held != all-bound || o.PeakOutstanding > bound || most > bound {
		t.Errorf("got %d succeeded, %d held, %d outstanding, %d at the server, want %d, %d, and up to %d", o.Succeeded, o.Held, o.PeakOutstanding, most, all, all-bound, bound)
	}
	// The last ones waited for three rounds of others.
	if o.Latency.Max < 80 || o.Service.P50 > o.Latency.P50 {
		t.Errorf("got latencies %+v, want the wait in them", o.Latency)
	}
	if !strings.Contains(strings.Join(o.Notes, "\n"), "15 requests waited until others had ended, for the bound of 5") {
		t.Errorf("got notes %q", o.Notes)
	}
}

func TestWhatFindsNoPlaceInTimeIsUnsent(t *testing.T) {
	var served atomic.Int64
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		served.Add(1)
		<-r.Context().Done()
	})
	plan := load.Plan{Arrivals: load.Replay([]load.Arrival{{}, {At: 1}, {At: 100 * time.Millisecond}}, 1), MaxOutstanding: 1}
	// The first ends by its own timeout at 200 ms; the second's time ends no later than that.
	o := run(t, load.Request{URL: s.URL, Timeout: 200 * time.Millisecond}, plan)
	if o.Errors[load.Timeout] == nil || o.Sent+unsent(o) != 3 || served.Load() != o.Sent {
		t.Errorf("got %d sent, %d served, errors %v", o.Sent, served.Load(), o.Errors)
	}
	// With a bound that is never free again, all others are unsent.
	s = serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	plan = load.Plan{Arrivals: load.Constant(1000), Duration: 20 * time.Millisecond, MaxOutstanding: 1}
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	o = runUntil(t, ctx, load.Request{URL: s.URL, Timeout: 100 * time.Millisecond}, plan)
	if o.Requests != 20 || o.Succeeded != 0 || o.Failed != 20 {
		t.Errorf("got %d requests, %d succeeded, %d failed, want 20 failed: %v", o.Requests, o.Succeeded, o.Failed, o.Errors)
	}
}

func unsent(o outcome) int64 {
	if f := o.Errors[load.Unsent]; f != nil {
		return f.Count
	}
	return 0
}

func TestARunThatIsStoppedLeavesNothing(t *testing.T) {
	for _, major := range []int{1, 2} {
		for name, plan := range map[string]load.Plan{"open": atOnce(20), "closed": {Clients: 20}, "thinking": {Clients: 20, Think: time.Hour}} {
			t.Run(fmt.Sprintf("HTTP/%d, %s", major, name), func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var arrived atomic.Int64
				thinking := plan.Think > 0
				s := serve2(t, func(_ http.ResponseWriter, r *http.Request) {
					if arrived.Add(1) == 20 {
						cancel()
					}
					if !thinking {
						<-r.Context().Done()
					}
				})
				before := runtime.NumGoroutine()
				o := runUntil(t, ctx, load.Request{URL: s.URL, Major: major}, plan)
				if !thinking && (o.Errors[load.Stopped] == nil || o.Errors[load.Stopped].Count != 20) {
					t.Errorf("got %v, want 20 stopped", o.Errors)
				}
				if !slices.Contains(o.Notes, "the run was stopped before its end") {
					t.Errorf("got notes %q", o.Notes)
				}
				s.CloseClientConnections()
				s.Close()
				for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						buf := make([]byte, 1<<20)
						t.Fatalf("goroutines are left:\n%s", buf[:runtime.Stack(buf, true)])
					}
				}
			})
		}
	}
}

func TestClientsThink(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	o := run(t, load.Request{URL: s.URL}, load.Plan{Clients: 3, Think: 50 * time.Millisecond, Count: 9})
	if o.Seconds < 0.1 || o.Requests != 9 || o.PeakOutstanding > 3 || o.Lag != nil {
		t.Errorf("got %+v, want 3 clients with two thoughts each", o.Summary)
	}
}

func TestWhatIsAskedWronglyIsNamed(t *testing.T) {
	good := planDefaults(times(1))
	tests := map[string]struct {
		req  load.Request
		plan load.Plan
		want string
	}{
		"scheme":            {load.Request{URL: "ftp://localhost/"}, good, `request: URL: want http, https, ws or wss, got "ftp://localhost/"`},
		"no host":           {load.Request{URL: "http:///x"}, good, `request: URL: want a host`},
		"port":              {load.Request{URL: "http://localhost:70000/"}, good, `URL: want a port from 1 to 65535, got "70000"`},
		"user":              {load.Request{URL: "http://a:b@localhost/"}, good, `request: URL: a user in it is not sent`},
		"version":           {load.Request{URL: "http://localhost/", Major: 3}, good, `request: HTTP version: want 1 or 2, got 3`},
		"method":            {load.Request{URL: "http://localhost/", Method: "GET /"}, good, `request: method: want one such as GET, got "GET /"`},
		"header":            {load.Request{URL: "http://localhost/", Header: http.Header{"A": {"b\r\nc: d"}}}, good, `request: header A: want one line, got "b\r\nc: d"`},
		"header's name":     {load.Request{URL: "http://localhost/", Header: http.Header{"A B": {"c"}}}, good, `request: header: want a name such as Accept, got "A B"`},
		"own header":        {load.Request{URL: "http://localhost/", Header: http.Header{"Content-Length": {"5"}}}, good, `request: header Content-Length: is set by the generator itself`},
		"two bodies":        {load.Request{URL: "http://localhost/", Body: []byte("a"), Template: "b"}, good, `request: body: want a fixed one or a template, got both`},
		"template":          {load.Request{URL: "http://localhost/", Template: "{{.Nothing}}"}, good, `can't evaluate field Nothing`},
		"stamped":           {load.Request{URL: "http://localhost/", Stamped: true}, good, `request: stamped: only events are; want events too`},
		"WebSocket":         {load.Request{URL: "ws://localhost/", Events: true}, good, `request: a WebSocket is opened with GET`},
		"messages":          {load.Request{URL: "http://localhost/", Messages: 2}, good, `request: messages: want a ws or wss URL, got http`},
		"new connections":   {load.Request{URL: "http://localhost/", Major: 2, NewConnections: true}, good, `request: new connections: want HTTP/1.1`},
		"timeout":           {load.Request{URL: "http://localhost/", Timeout: -1}, good, `request: timeout: want more than 0`},
		"HEAD with a body":  {load.Request{URL: "http://localhost/", Method: "HEAD", Body: []byte("a")}, good, `request: body: HEAD has none`},
		"leaving too early": {load.Request{URL: "http://localhost/", LeaveAfter: -1}, good, `request: leave after: want 0 or more`},
		"neither loop":      {load.Request{URL: "http://localhost/"}, load.Plan{Duration: 1, Count: 1}, `plan: want arrivals or clients`},
		"no duration":       {load.Request{URL: "http://localhost/"}, load.Plan{Clients: 1, Duration: -1}, `plan: duration: want more than 0 and up to 168h0m0s, got -1ns`},
		"count":             {load.Request{URL: "http://localhost/"}, load.Plan{Clients: 1, Count: -1}, `plan: count: want 1 or more, got -1`},
		"clients":           {load.Request{URL: "http://localhost/"}, load.Plan{Clients: 1_000_000}, `plan: clients: want 1 to 100000, got 1000000`},
		"think":             {load.Request{URL: "http://localhost/"}, load.Plan{Arrivals: load.Constant(1), Think: 1}, `plan: think time: want 0 or more, and clients`},
		"outstanding":       {load.Request{URL: "http://localhost/"}, load.Plan{Arrivals: load.Constant(1), MaxOutstanding: -1}, `plan: outstanding: want 1 to 100000, got -1`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load.New(t.Context(), withDefaults(test.req), planDefaults(test.plan), nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestTargetSaysWhetherItIsThisMachine(t *testing.T) {
	for url, want := range map[string]load.Target{
		"http://127.0.0.1/":                    {Address: "127.0.0.1:80", Loopback: true},
		"https://app.penstock.localhost:8443/": {Address: "127.0.0.1:8443", Loopback: true},
		"wss://LOCALHOST/":                     {Address: "127.0.0.1:443", Loopback: true},
		"http://[::1]:81/":                     {Address: "[::1]:81", Loopback: true},
		"http://192.0.2.1/":                    {Address: "192.0.2.1:80"},
	} {
		l, err := load.New(t.Context(), withDefaults(load.Request{URL: url}), planDefaults(times(1)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if l.Target() != want {
			t.Errorf("%s: got %+v, want %+v", url, l.Target(), want)
		}
	}
}
