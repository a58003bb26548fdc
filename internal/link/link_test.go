package link_test

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/internal/link"
)

// control serves a hub on a socket; stop ends it as a crash of control would, by closing all connections.
func control(t *testing.T, path, epoch string) (hub *link.Hub, stop func()) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	hub = link.NewHub(epoch, slog.New(slog.NewTextHandler(t.Output(), nil)))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := hub.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return hub, stop
}

// ingress is a client with a report that the test sets.
type ingress struct {
	tables  chan link.Table
	changed chan struct{}

	mu     sync.Mutex
	report link.Report
}

func newIngress(t *testing.T, path string) *ingress {
	t.Helper()
	in := &ingress{tables: make(chan link.Table, 64), changed: make(chan struct{}, 1)}
	c := link.Client{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		Apply: func(table link.Table) {
			in.mu.Lock()
			in.report.Epoch, in.report.Version = table.Epoch, table.Version
			in.mu.Unlock()
			in.tables <- table
		},
		Report: func() link.Report {
			in.mu.Lock()
			defer in.mu.Unlock()
			r := in.report
			r.InFlight, r.Waiting = maps.Clone(r.InFlight), maps.Clone(r.Waiting)
			return r
		},
		Changed: in.changed,
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return in
}

func (in *ingress) set(inFlight, waiting map[string]int) {
	in.mu.Lock()
	in.report.InFlight, in.report.Waiting = inFlight, waiting
	in.mu.Unlock()
	in.changed <- struct{}{}
}

// until takes tables until one has the version of epoch.
func (in *ingress) until(t *testing.T, epoch string, version uint64) link.Table {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case table := <-in.tables:
			if table.Epoch == epoch && table.Version == version {
				return table
			}
		case <-deadline:
			t.Fatalf("table %s/%d did not come", epoch, version)
		}
	}
}

func TestTablesReachAnIngressThatComesLateAndSurviveControl(t *testing.T) {
	path := filepath.Join(t.TempDir(), "link")
	hub, stop := control(t, path, "a")
	hub.Publish(link.Table{Routes: []link.Route{{Host: "old"}}})
	hub.Publish(link.Table{Routes: []link.Route{{Host: "chat.example"}}})

	in := newIngress(t, path)
	if got := in.until(t, "a", 2).Routes[0].Host; got != "chat.example" {
		t.Errorf("host %q, want chat.example", got)
	}
	stop()
	next, _ := control(t, path, "b")
	next.Publish(link.Table{Routes: []link.Route{{Host: "new"}}})
	if got := in.until(t, "b", 1).Routes[0].Host; got != "new" {
		t.Errorf("host %q after control came back, want new", got)
	}
}

func TestDrainedWaitsForTheVersionAndTheLastRequestOfEveryIngress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "link")
	hub, _ := control(t, path, "a")
	v1 := hub.Publish(link.Table{})
	one, two := newIngress(t, path), newIngress(t, path)
	one.until(t, "a", v1)
	two.until(t, "a", v1)
	one.set(map[string]int{"r1": 1}, nil)
	two.set(map[string]int{"r1": 2, "r2": 1}, map[string]int{"rev": 3})
	eventually(t, func() bool {
		inFlight, waiting := hub.Load()
		return inFlight["r1"] == 3 && inFlight["r2"] == 1 && waiting["rev"] == 3
	})

	v2 := hub.Publish(link.Table{})
	done := make(chan error, 1)
	go func() { done <- hub.Drained(t.Context(), v2, "r1") }()
	one.until(t, "a", v2)
	two.until(t, "a", v2)
	one.set(nil, nil)
	select {
	case err := <-done:
		t.Fatalf("drained (%v) while the second ingress has two requests on the replica", err)
	case <-time.After(50 * time.Millisecond): // a wrong answer comes at once with the report; nothing else could be waited for
	}
	two.set(map[string]int{"r2": 1}, nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hub.Drained(ctx, v2, "r2"); err == nil {
		t.Error("a wait that was given up says that r2 is drained")
	}
}

func TestDrainedIsTrueWithoutIngress(t *testing.T) {
	hub := link.NewHub("a", slog.New(slog.DiscardHandler))
	if err := hub.Drained(t.Context(), hub.Publish(link.Table{}), "r"); err != nil {
		t.Error(err)
	}
}

func TestUnopenedPortsAreToldOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "link")
	hub, _ := control(t, path, "a")
	in := newIngress(t, path)
	say := func(unopened ...link.Unopened) {
		in.mu.Lock()
		in.report.Unopened = unopened
		in.mu.Unlock()
		in.changed <- struct{}{}
	}
	next := func(last []link.Unopened) []link.Unopened {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got, err := hub.Unopened(ctx, last)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	in.until(t, "a", hub.Publish(link.Table{}))
	a, b := link.Unopened{Port: 1, App: "/a", Reason: "taken"}, link.Unopened{Port: 2, App: "/b", Reason: "taken"}
	say(b, a)
	got := next(nil)
	if !slices.Equal(got, []link.Unopened{a, b}) {
		t.Fatalf("got %v, want both in order", got)
	}
	say(a, b) // no news
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if again, err := hub.Unopened(ctx, got); err == nil {
		t.Errorf("got %v, want to wait for news", again)
	}
	say()
	if got := next(got); len(got) > 0 {
		t.Errorf("got %v, want none", got)
	}
}

func TestLoopsAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ln := make(pipes)
		log := slog.New(slog.DiscardHandler)
		hub := link.NewHub("a", log)
		var wg sync.WaitGroup
		wg.Go(func() { hub.Serve(ctx, ln) })
		began := time.Now()
		// One app has a loop at second 3, and another goes on from second 10 to 200.
		ago := map[string]func(now time.Duration) time.Duration{
			"/once": func(now time.Duration) time.Duration { return now - 3*time.Second },
			"/on":   func(now time.Duration) time.Duration { return now - min(max(now, 10*time.Second), 200*time.Second) },
		}
		c := link.Client{
			Dial: func(context.Context) (net.Conn, error) {
				near, far := net.Pipe()
				ln <- far
				return near, nil
			},
			Apply: func(link.Table) {}, Report: func() link.Report { return link.Report{} },
			Traffic: func() *link.Traffic {
				t := &link.Traffic{Loops: map[string]time.Duration{}}
				for app, of := range ago {
					if d := of(time.Since(began)); d >= 0 && d < link.HeardFor {
						t.Loops[app] = d
					}
				}
				return t
			},
			Log: log,
		}
		wg.Go(func() { c.Run(ctx) })
		told := map[string]time.Time{}
		got := map[string][]int{}
		limit, stop := context.WithTimeout(ctx, 5*time.Minute)
		defer stop()
		for {
			app, at, err := hub.Looped(limit, told, time.Minute)
			if err != nil {
				break
			}
			told[app] = at
			got[app] = append(got[app], int(at.Sub(began).Round(time.Second).Seconds()))
		}
		if !slices.Equal(got["/once"], []int{3}) || !slices.Equal(got["/on"], []int{10, 70, 130, 190}) {
			t.Errorf("got %v, want one at second 3, and one each minute from second 10", got)
		}
		cancel()
		wg.Wait()
	})
}

func FuzzControlReadsReports(f *testing.F) {
	f.Add([]byte(`{"report":{"epoch":"a","version":1,"inFlight":{"r":2}}}` + "\n"))
	f.Add([]byte("{}\n{\"table\":{}}\nnull\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "link")
		hub, stop := control(t, path, "a")
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(data) // control may hang up in the middle of it
		conn.Close()
		stop()
		for name, n := range first(hub.Load()) {
			t.Errorf("an ingress that left still counts: %s %d", name, n)
		}
	})
}

func first(a, _ map[string]int) map[string]int { return a }

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("did not come true")
		}
		time.Sleep(time.Millisecond)
	}
}
