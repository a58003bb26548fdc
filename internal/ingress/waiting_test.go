package ingress_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

func TestThousandHeldRequestsAreReleasedAtOnce(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas())
	const n = 1000
	var wg sync.WaitGroup
	var ok atomic.Int64
	for i := range n {
		wg.Go(func() {
			method, body := http.MethodGet, io.Reader(nil)
			if i%2 == 1 {
				method, body = http.MethodPost, strings.NewReader("body")
			}
			r, _ := http.NewRequestWithContext(t.Context(), method, "http://"+host, body)
			resp, err := f.client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if text, _ := io.ReadAll(resp.Body); resp.StatusCode == 200 && string(text) == "late" {
				ok.Add(1)
			}
		})
	}
	f.waiting(t, n)
	addr := app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "late") })
	began := time.Now()
	f.Apply(replicas(addr))
	wg.Wait()
	t.Logf("%d released in %v", n, time.Since(began))
	if ok.Load() != n {
		t.Errorf("got %d answers, want %d", ok.Load(), n)
	}
	if got := f.Report(); len(got.Waiting) != 0 {
		t.Errorf("waiting: got %v, want none", got.Waiting)
	}
	if got := f.Stats(); got.Held != n {
		t.Errorf("held: got %d, want %d", got.Held, n)
	}
}

func TestHeldResponseSaysForHowLong(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas())
	addr := app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server-Timing", "app;dur=1")
		w.Header().Set("X-After", "kept")
	})
	ask := func() http.Header {
		resp, err := f.client.Get("http://" + host)
		if err != nil {
			t.Error(err)
			return nil
		}
		resp.Body.Close()
		return resp.Header
	}
	var held http.Header
	var wg sync.WaitGroup
	wg.Go(func() { held = ask() })
	f.waiting(t, 1)
	table := replicas(addr)
	table.Revisions[0].Replicas[0].Start, table.Revisions[0].Replicas[0].Load = 20*time.Millisecond, 1500*time.Millisecond
	f.Apply(table)
	wg.Wait()
	got := held.Values("Server-Timing")
	var ms, start, load float64
	if len(got) != 2 || got[0] != "app;dur=1" {
		t.Fatalf("got %q, want the replica's own and the wait", got)
	}
	if _, err := fmt.Sscanf(got[1], "hold;dur=%f, start;dur=%f, load;dur=%f", &ms, &start, &load); err != nil || ms <= 0 || start != 20 || load != 1500 {
		t.Errorf("got %q, want the milliseconds of the wait and of the replica's start", got[1])
	}
	if held.Get("X-After") != "kept" {
		t.Errorf("other fields: got %v", held)
	}
	if got := ask().Values("Server-Timing"); len(got) != 1 {
		t.Errorf("a request that did not wait: got %q, want the replica's own", got)
	}
}

func TestRequestsWaitForTheFirstTableAndTheFirstRevision(t *testing.T) {
	f := serve(t, ingress.Config{})
	answers := make(chan string)
	go func() {
		_, body := f.get(t, "/")
		answers <- body
	}()
	until(t, "the request is held", func() bool { return f.Stats().Held == 1 })
	none := replicas()
	none.Revisions, none.Routes[0].Targets = nil, nil
	f.Apply(none)
	until(t, "the request is held for a revision", func() bool { return f.Stats().Held == 2 })
	f.Apply(none)
	f.Apply(replicas())
	f.waiting(t, 1)
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "first") })))
	if got := receive(t, "answer", answers); got != "first" {
		t.Errorf("got %q, want first", got)
	}
}

func TestHeldRequestsFollowTheRoute(t *testing.T) {
	addr := app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "new") })
	next := link.Revision{ID: "app--2", Settings: settings(), Replicas: []link.Replica{{Name: "n", Addr: addr}}}
	tests := map[string]struct {
		table  link.Table
		status int
		text   string
	}{
		"to another revision while the old one is kept": {func() link.Table {
			table := tableOf(next)
			table.Revisions = append(table.Revisions, link.Revision{ID: "app--1", Settings: settings()})
			return table
		}(), 200, "new"},
		"to another revision after the old one": {tableOf(next), 200, "new"},
		"nowhere":                               {link.Table{}, 404, "Unavailable"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := serve(t, ingress.Config{})
			f.Apply(replicas())
			type answer struct {
				*http.Response
				body string
			}
			answers := make(chan answer, 1)
			go func() {
				resp, body := f.get(t, "/")
				answers <- answer{resp, body}
			}()
			f.waiting(t, 1)
			f.Apply(test.table)
			got := receive(t, "answer", answers)
			want(t, got.Response, got.body, test.status, test.text)
		})
	}
}

func TestFullWaitingRoomAnswersAtOnce(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(set(replicas(), func(s *resource.Settings) { s.QueueLimit = 2 }))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 2 {
		wg.Go(func() {
			if resp, err := f.client.Do(request(t, http.MethodGet, "/", nil).WithContext(ctx)); err == nil {
				resp.Body.Close()
			}
		})
	}
	f.waiting(t, 2)
	resp, body := f.get(t, "/")
	want(t, resp, body, 503, "2 requests wait for this app already")
	if got := resp.Header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After: got %q, want 1", got)
	}
}

func TestQueueTimeoutNamesTheReason(t *testing.T) {
	short := func(s *resource.Settings) { s.QueueTimeout = 20 * time.Millisecond }
	f := serve(t, ingress.Config{})
	table := set(replicas(), short)
	table.Revisions[0].Blocked = "needs 4 GiB, 1 GiB is free"
	f.Apply(table)
	resp, body := f.get(t, "/")
	want(t, resp, body, 503, "waited 20ms for a replica of this app: none became ready")

	release := make(chan struct{})
	defer close(release)
	f.Apply(set(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { <-release })),
		func(s *resource.Settings) { short(s); s.MaxConcurrency = 1 }))
	go f.client.Do(request(t, http.MethodGet, "/", nil).WithContext(t.Context()))
	until(t, "the place is taken", func() bool { return f.Report().InFlight["r0"] == 1 })
	resp, body = f.get(t, "/")
	want(t, resp, body, 503, "no place became free within 20ms")
}

func TestFailedRevisionAnswersAllWhoWait(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas())
	answers := make(chan string, 10)
	for range cap(answers) {
		go func() {
			resp, body := f.get(t, "/")
			answers <- fmt.Sprint(resp.StatusCode, " ", body)
		}()
	}
	f.waiting(t, cap(answers))
	table := replicas()
	table.Revisions[0].Failed = "replica app--1-x: container 'app' ended with exit code 3"
	f.Apply(table)
	// Neither a name nor the exit code: those are for the app's events.
	const wanted = "503 no replica of this app can be started"
	for range cap(answers) {
		if got := receive(t, "answer", answers); got != wanted {
			t.Errorf("got %q, want %q", got, wanted)
		}
	}
	resp, body := f.get(t, "/")
	want(t, resp, body, 503, "no replica of this app can be started")
}

func TestClientThatLeavesLosesItsPlaceInLine(t *testing.T) {
	t.Parallel()
	var rec records
	f := serve(t, ingress.Config{Observe: rec.observe})
	f.Apply(replicas())
	for name, text := range map[string]string{
		"without a body":     "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
		"with a body unread": "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody",
		"in chunks":          "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
	} {
		conn, _ := f.dial(t, text)
		f.waiting(t, 1)
		conn.Close()
		until(t, "the line is empty after a client "+name+" left", func() bool { return f.Report().Waiting["app--1"] == 0 })
	}
	if got := rec.last(t, 3); got.Flags != accesslog.FlagDownstreamTermination || got.Status != 0 {
		t.Errorf("record: got status %d and flags %v, want 0 and DC", got.Status, got.Flags)
	}
}

func TestBodyIsNotReadWhileHeld(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas())
	conn, r := f.dial(t, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	f.waiting(t, 1)
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if line, err := r.ReadString('\n'); err == nil {
		t.Errorf("while held: got %q, want nothing", line)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })))
	if line, err := r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, %v, want 100", line, err)
	}
	r.ReadString('\n')
	io.WriteString(conn, "body")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	want(t, resp, string(body), 200, "body")
}

func TestHardLimitAndOrder(t *testing.T) {
	var busy, most atomic.Int64
	enter, leave := make(chan string), make(chan struct{})
	addr := app(t, func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), busy.Add(1)))
		defer busy.Add(-1)
		enter <- r.URL.Path
		<-leave
	})
	f := serve(t, ingress.Config{})
	f.Apply(set(replicas(addr), func(s *resource.Settings) { s.MaxConcurrency = 1 }))
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 5 {
		wg.Go(func() { f.get(t, fmt.Sprintf("/%d", i)) })
		if i == 0 {
			until(t, "the place is taken", func() bool { return f.Report().InFlight["r0"] == 1 })
		} else {
			f.waiting(t, i)
		}
	}
	for i := range 5 {
		if got := receive(t, "request", enter); got != fmt.Sprintf("/%d", i) {
			t.Errorf("request %d: got %s", i, got)
		}
		leave <- struct{}{}
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("at a time: got %d requests, want 1", most.Load())
	}
}

func TestDepartedReplicaCountsUntilItsLastRequestEnds(t *testing.T) {
	release := make(chan struct{})
	old := app(t, func(w http.ResponseWriter, r *http.Request) { <-release })
	f := serve(t, ingress.Config{})
	f.Apply(replicas(old))
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.get(t, "/")
	}()
	until(t, "the request is in flight", func() bool { return f.Report().InFlight["r0"] == 1 })

	next := replicas()
	next.Version = 2
	next.Revisions[0].Replicas = []link.Replica{{Name: "other", Addr: app(t, func(w http.ResponseWriter, r *http.Request) {})}}
	f.Apply(next)
	f.get(t, "/")
	if got := f.Report(); !got.Covers("test", 2) || got.InFlight["r0"] != 1 || got.InFlight["other"] != 0 {
		t.Errorf("got %+v, want version 2 with one request on r0", got)
	}
	for len(f.Changed()) > 0 {
		<-f.Changed()
	}
	f.Apply(link.Table{Epoch: "test", Version: 3})
	if got := f.Report(); got.InFlight["r0"] != 1 {
		t.Errorf("after its revision has left: got %+v, want one request on r0", got)
	}
	close(release)
	receive(t, "a nudge", f.Changed())
	if got := f.Report(); len(got.InFlight) != 0 {
		t.Errorf("got %+v, want none in flight", got)
	}
	<-done
}

func TestWaitingBeginsAndEndsWithANudge(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas())
	conn, _ := f.dial(t, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	receive(t, "a nudge as one waits", f.Changed())
	f.waiting(t, 1)
	conn.Close()
	receive(t, "a nudge as none waits", f.Changed())
	until(t, "none waits", func() bool { return f.Report().Waiting["app--1"] == 0 })
}

func TestReplicaThatReturnsElsewhereIsReachedThere(t *testing.T) {
	f := serve(t, ingress.Config{})
	for _, name := range []string{"first", "second"} {
		f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) })))
		resp, body := f.get(t, "/")
		want(t, resp, body, 200, name)
	}
}

// A client that half-closes has left, as far as HTTP servers go; one that is merely slow with a large body has not.
func TestSlowClientKeepsItsPlaceInLine(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas())
	sent := strings.Repeat("body", 10_000)
	conn, r := f.dial(t, fmt.Sprintf("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: %d\r\n\r\nbo", len(sent)))
	f.waiting(t, 1)
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})))
	until(t, "the request is in flight", func() bool { return f.Report().InFlight["r0"] == 1 })
	if _, err := io.WriteString(conn, sent[len("bo"):]); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(body) != sent {
		t.Errorf("got %d with %d bytes, %v, want what was sent", resp.StatusCode, len(body), err)
	}
}
