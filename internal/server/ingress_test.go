package server_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
	"penstock/internal/server"
)

// A new ingress routes by control's table from its first request on, and by the one that the last ingress kept only if control is away
// or has none: replicas that the kept one names may be gone.
func TestFirstTable(t *testing.T) {
	table := func(body string) link.Table {
		app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
		t.Cleanup(app.Close)
		return link.Table{
			Routes: []link.Route{{Host: "app.test", App: "/app", External: true, AllowInsecure: true, Targets: []link.Target{{Revision: "rev-" + body, Weight: 100}}}},
			Revisions: []link.Revision{{
				ID: "rev-" + body, Replicas: []link.Replica{{Name: body, Addr: app.Listener.Addr().String()}},
				Settings: resource.Settings{Behaviour: resource.Fast, QueueLimit: 10, QueueTimeout: time.Minute, IdleTimeout: time.Minute},
			}},
		}
	}
	for name, c := range map[string]struct {
		control func(hub *link.Hub) // nil: away
		want    string
	}{
		"control has a table": {func(hub *link.Hub) { hub.Publish(table("newest")) }, "newest"},
		"control has none":    {func(*link.Hub) {}, "kept"},
		"control is away":     {nil, "kept"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			last := ingress.New(ingress.Config{})
			last.Apply(table("kept"))
			if err := last.SaveTable(server.RoutesFile(dir)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			socket := filepath.Join(dir, "link.sock")
			if c.control != nil {
				ln := must(net.Listen("unix", socket))(t)
				hub := link.NewHub("test", slog.New(slog.DiscardHandler))
				c.control(hub)
				running.Go(func() { hub.Serve(ctx, ln) })
			}
			web := must(net.Listen("tcp", "127.0.0.1:0"))(t)
			running.Go(func() {
				err := server.RunIngress(ctx, server.IngressOptions{
					State: dir, Requests: filepath.Join(dir, "requests"), HTTP: []net.Listener{web},
					Names: must(net.ListenPacket("udp", "127.0.0.1:0"))(t), NamesTCP: must(net.Listen("tcp", "127.0.0.1:0"))(t),
					ControlSocket: socket, Log: slog.New(slog.DiscardHandler), Ready: func() {},
				})
				if err != nil {
					t.Error(err)
				}
			})
			req := must(http.NewRequestWithContext(ctx, "GET", "http://"+web.Addr().String(), nil))(t)
			req.Host, req.Close = "app.test", true
			resp, err := http.DefaultClient.Do(req) // the first request waits in the listener
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || strings.TrimSpace(string(body)) != c.want {
				t.Errorf("got %s %q, %v, want the app of the table %q", resp.Status, body, err, c.want)
			}
		})
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
