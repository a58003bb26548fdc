package ingress_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/internal/ingress"
	"penstock/internal/link"
)

// ownFront is an ingress that serves HTTP and has doors.
type ownFront struct {
	*front
	*machinePorts
	doors *ingress.Doors
	end   func()
}

func serveOwn(t testing.TB, cfg ingress.Config, ports *machinePorts) *ownFront {
	t.Helper()
	f := &ownFront{front: serve(t, cfg), machinePorts: ports}
	f.doors = f.Doors(ports, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f.doors.Serve(ctx) })
	f.end = sync.OnceFunc(func() {
		cancel()
		if err := f.stop(); err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
		wg.Wait()
	})
	t.Cleanup(f.end)
	return f
}

// owning gives the first app of a table a port of its own.
func owning(table link.Table, port int) link.Table {
	table.Routes[0].HostPort = port
	return table
}

func (f *ownFront) route(table link.Table) {
	f.Apply(table)
	f.doors.Follow()
}

// A port of an app leads to that app alone, without a redirect to https.
func TestOwnPort(t *testing.T) {
	f := serveOwn(t, ingress.Config{}, newMachinePorts(t))
	table := owning(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "app at "+r.Host) })), 9001)
	table.Routes[0].AllowInsecure = false
	table.Routes = append(table.Routes, link.Route{Host: "other.test", App: "/other", External: true, AllowInsecure: true})
	f.route(table)
	client := clientTo(t, f.addr(9001))
	for host, status := range map[string]int{
		"127.0.0.1:9001": 200, "[::1]:9001": 200, "localhost:9001": 200, "chat.penstock.localhost": 200, "192.0.2.7": 200, host: 200,
		"other.test": 404, "evil.test": 404, "localhost.evil.test": 404,
	} {
		r := request(t, http.MethodGet, "/", nil)
		r.Host = host
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != status || status == 200 && string(body) != "app at "+host {
			t.Errorf("%s: got %d %s, want %d", host, resp.StatusCode, body, status)
		}
	}
	// The shared port still redirects.
	if resp, body := f.get(t, "/"); resp.StatusCode != http.StatusMovedPermanently {
		t.Errorf("at the port of all apps: got %d %s", resp.StatusCode, body)
	}
	// A connection that is open when the app goes finds nothing, and new ones are refused.
	addr := f.addr(9001)
	f.route(link.Table{Epoch: "test", Version: 2})
	r := request(t, http.MethodGet, "/", nil)
	r.Host = "localhost"
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 || f.addr(9001) != "" {
		t.Errorf("after the deletion: got %d at %s, open %q", resp.StatusCode, addr, f.addr(9001))
	}
}

// Requests at the port of an app are held like others, and go on when a replica is ready.
func TestOwnPortHolds(t *testing.T) {
	f := serveOwn(t, ingress.Config{}, newMachinePorts(t))
	f.route(owning(replicas(), 9001))
	answer := make(chan string, 1)
	go func() {
		resp, err := clientTo(t, f.addr(9001)).Get("http://127.0.0.1/")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- resp.Status + " " + string(body)
	}()
	f.waiting(t, 1)
	f.Apply(owning(replicas(app(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "late") })), 9001))
	if got := receive(t, "an answer", answer); got != "200 OK late" {
		t.Errorf("got %s", got)
	}
}

// A port that passes from a TCP app to an app over HTTP speaks HTTP.
func TestOwnPortAfterTCP(t *testing.T) {
	f := serveOwn(t, ingress.Config{}, newMachinePorts(t))
	addr := app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Forwarded-Proto")) })
	for _, want := range []string{"", "http", ""} {
		table := replicas(addr)
		if want == "" {
			table.TCP = []link.TCPRoute{{Port: 9001, App: "/app", External: true, Targets: table.Routes[0].Targets}}
		} else {
			table = owning(table, 9001)
		}
		f.route(table)
		resp, err := clientTo(t, f.addr(9001)).Get("http://localhost/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != want {
			t.Errorf("got the scheme %q, want %q", body, want)
		}
	}
}

// New connections to the port of an app come all the time while one ingress takes over from another. None is lost.
func TestOwnPortHandOverLosesNothing(t *testing.T) {
	ports := newMachinePorts(t)
	table := owning(replicas(app(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })), 9001)
	cfg := ingress.Config{SoftDrain: 200 * time.Millisecond}
	current := serveOwn(t, cfg, ports)
	current.route(table)
	addr := current.addr(9001)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var good atomic.Int64
	for i := range 4 {
		wg.Go(func() {
			client := clientTo(t, addr)
			defer client.CloseIdleConnections()
			client.Transport.(*http.Transport).DisableKeepAlives = i%2 == 0
			for ctx.Err() == nil {
				r := request(t, http.MethodPost, "/", struct{ io.Reader }{strings.NewReader("body")})
				r.ContentLength, r.Host = 4, "localhost"
				resp, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != "body" {
					t.Errorf("got %d %q, %v", resp.StatusCode, body, err)
				}
				good.Add(1)
			}
		})
	}
	for range 5 {
		before := good.Load()
		next := serveOwn(t, cfg, ports)
		next.route(table)
		current.end()
		current = next
		until(t, "the next ingress serves", func() bool { return good.Load() > before+20 })
	}
	cancel()
	wg.Wait()
	t.Logf("%d requests", good.Load())
}
