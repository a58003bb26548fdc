package link_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// large is a table of n apps with a revision of one replica each.
func large(n int) link.Table {
	var t link.Table
	for i := range n {
		app := fmt.Sprintf("/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default/providers/Microsoft.App/containerApps/app%d", i)
		rev := link.Revision{
			ID: app + "/revisions/app--1", Port: 8080, Settings: resource.Settings{QueueLimit: 1000, QueueTimeout: 4 * time.Minute},
			Replicas: []link.Replica{{Name: fmt.Sprintf("app%d--1-6f8b9c-x2v4z", i), Addr: fmt.Sprintf("10.88.%d.%d:8080", i/250, i%250)}},
		}
		t.Revisions = append(t.Revisions, rev)
		t.Routes = append(t.Routes, link.Route{
			Host: fmt.Sprintf("app%d.penstock.localhost", i), Name: fmt.Sprintf("app%d", i), App: app, External: true,
			Targets: []link.Target{{Revision: rev.ID, Weight: 100}},
		})
	}
	return t
}

// moved is t with another address for the replica of one revision.
func moved(t link.Table, i int, addr string) link.Table {
	t.Revisions = append([]link.Revision(nil), t.Revisions...)
	t.Revisions[i].Replicas = []link.Replica{{Name: t.Revisions[i].Replicas[0].Name, Addr: addr}}
	return t
}

// An ingress gets the tables that were published, however they come.
func TestChangesMakeTheTableThatWasPublished(t *testing.T) {
	path := filepath.Join(t.TempDir(), "link")
	hub, _ := control(t, path, "a")
	in := newIngress(t, path)
	table := large(20)
	r := rand.New(rand.NewPCG(1, 2))
	for step := range 300 {
		switch n := r.IntN(len(table.Revisions)); r.IntN(8) {
		case 0:
			table.Routes = append([]link.Route(nil), table.Routes...)
			table.Routes[r.IntN(len(table.Routes))].AllowInsecure = r.IntN(2) == 0
		case 1:
			table.Revisions = append([]link.Revision(nil), table.Revisions...)
			table.Revisions[n], table.Revisions[0] = table.Revisions[0], table.Revisions[n]
		case 2:
			if len(table.Revisions) > 2 {
				table.Revisions = append([]link.Revision(nil), table.Revisions[1:]...)
			}
		case 3: // nothing but the version
		default:
			for range 1 + r.IntN(3) {
				table = moved(table, r.IntN(len(table.Revisions)), fmt.Sprintf("10.0.0.%d:%d", n, step))
			}
		}
		got := in.until(t, "a", hub.Publish(table))
		want := table
		want.Epoch, want.Version = got.Epoch, got.Version
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("step %d: got %+v\nwant %+v", step, got, want)
		}
	}
}

// frames speaks as an ingress does, and returns the kinds of frames that come after the first table, each after one
// Publish.
func frames(t *testing.T, report string, publish ...func(*link.Hub)) (kinds []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "link")
	hub, _ := control(t, path, "a")
	hub.Publish(large(3))
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, link.MaxFrame)
	next := func() string {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		var f map[string]json.RawMessage
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil || len(f) != 1 {
			t.Fatalf("got %q, %v, want one thing a line", lines.Text(), err)
		}
		for kind := range f {
			return kind
		}
		return ""
	}
	next()
	if _, err := conn.Write([]byte(report)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := hub.Applied(ctx, 1); err != nil { // the report has been heard
		t.Fatal(err)
	}
	for _, p := range publish {
		p(hub)
		kinds = append(kinds, next())
	}
	return kinds
}

func TestWhatIsSentAsAChange(t *testing.T) {
	base := large(3)
	steps := []func(*link.Hub){
		func(h *link.Hub) { h.Publish(moved(base, 1, "10.0.0.1:1")) },
		func(h *link.Hub) { h.Publish(base) },
		func(h *link.Hub) { h.Publish(base) },
		func(h *link.Hub) { h.Publish(large(4)) },
		func(h *link.Hub) {
			other := large(4)
			other.Routes[0].External = false
			h.Publish(other)
		},
	}
	for report, want := range map[string][]string{
		`{"report": {"epoch": "a", "version": 1, "changes": true}}` + "\n": {"change", "change", "change", "table", "table"},
		`{"report": {"epoch": "a", "version": 1}}` + "\n":                  {"table", "table", "table", "table", "table"}, // an older ingress
	} {
		if got := frames(t, report, steps...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", report, got, want)
		}
	}
}

// BenchmarkPublish is how long an ingress takes from a Publish of 1,000 apps to its report, when one replica has moved,
// and when a route has changed.
func BenchmarkPublish(b *testing.B) {
	base := large(1000)
	for name, change := range map[string]func(i int) link.Table{
		"replica": func(i int) link.Table { return moved(base, i%1000, fmt.Sprintf("10.0.0.1:%d", i)) },
		"route": func(i int) link.Table {
			t := base
			t.Routes = append([]link.Route(nil), t.Routes...)
			t.Routes[i%1000].AllowInsecure = i%2 == 0
			t.Routes[0].Host = fmt.Sprint(i)
			return t
		},
	} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "link")
			ln, err := net.Listen("unix", path)
			if err != nil {
				b.Fatal(err)
			}
			hub := link.NewHub("a", slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			wg.Go(func() { hub.Serve(ctx, ln) })
			var mu sync.Mutex
			var report link.Report
			first := make(chan struct{})
			connected := sync.OnceFunc(func() { close(first) })
			c := link.Client{
				Dial: func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) },
				Apply: func(t link.Table) {
					mu.Lock()
					defer mu.Unlock()
					report.Epoch, report.Version = t.Epoch, t.Version
					connected()
				},
				Report: func() link.Report {
					mu.Lock()
					defer mu.Unlock()
					return report
				},
				Log: slog.New(slog.DiscardHandler),
			}
			wg.Go(func() { c.Run(ctx) })
			hub.Publish(base)
			<-first
			i := 0
			for b.Loop() {
				if err := hub.Applied(ctx, hub.Publish(change(i))); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
