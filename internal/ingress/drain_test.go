package ingress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/internal/ingress"
	"penstock/internal/link"
)

// again is the same socket as another listener, as another process would have it.
func again(t testing.TB, ln net.Listener) net.Listener {
	t.Helper()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	second, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close() })
	return second
}

// Clients with keep-alive connections and with new ones go on while one ingress takes over from another, several times.
// None of them sees anything; all requests are POST, which nobody sends twice.
func TestHandOverLosesNothing(t *testing.T) {
	table := replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) == "slow" {
			w.(http.Flusher).Flush()
			time.Sleep(200 * time.Millisecond) // a stream that outlives the hand-over
		}
		w.Write(body)
	}))
	first := listen(t)
	cfg := ingress.Config{SoftDrain: 500 * time.Millisecond}
	current := serveOn(t, cfg, again(t, first), listen(t))
	current.Apply(table)

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var done [3]atomic.Int64
	load := func(kind int, body string, keepAlive bool, pause time.Duration) {
		wg.Go(func() {
			client := clientTo(t, first.Addr().String())
			defer client.CloseIdleConnections()
			client.Transport.(*http.Transport).DisableKeepAlives = !keepAlive
			for ctx.Err() == nil {
				// A reader without a known type: net/http's client cannot send it again.
				r := request(t, http.MethodPost, "/", struct{ io.Reader }{strings.NewReader(body)})
				r.ContentLength = int64(len(body))
				resp, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 || string(got) != body || err != nil {
					t.Errorf("got %d %q, %v, want 200 %q", resp.StatusCode, got, err, body)
				}
				done[kind].Add(1)
				time.Sleep(pause) // the client's pace
			}
		})
	}
	for i := range 8 {
		load(0, "fast", true, time.Duration(i)*3*time.Millisecond)
		load(1, "new", false, 5*time.Millisecond)
		load(2, "slow", true, 0)
	}
	for range 3 {
		reached := done[0].Load() + 50
		until(t, "load runs", func() bool { return done[0].Load() > reached && done[2].Load() > 0 })
		next := serveOn(t, cfg, again(t, first), listen(t))
		next.Apply(table)
		if err := current.stop(); err != nil {
			t.Fatal(err)
		}
		current = next
	}
	cancel()
	wg.Wait()
	t.Logf("keep-alive %d, new connections %d, slow %d", done[0].Load(), done[1].Load(), done[2].Load())
}

func TestServeLeavesNothingBehind(t *testing.T) {
	f := serve(t, ingress.Config{Drain: 100 * time.Millisecond})
	table := replicas(raw(t, func(conn net.Conn, r *bufio.Reader) {
		if req, err := http.ReadRequest(r); err == nil && req.Header.Get("Upgrade") != "" {
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		}
		io.Copy(io.Discard, r)
	}))
	table.Certificates = []link.Certificate{certificate(t, host)}
	f.Apply(table)
	// A tunnel, an idle connection, a half-sent request, a half-sent body, a held request, an HTTP/2 stream.
	conn, _ := f.dial(t, upgrade)
	until(t, "the tunnel is open", func() bool { return f.Stats().Tunnelled == 1 })
	f.dial(t, "")
	f.dial(t, "GET / HT")
	f.dial(t, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100000\r\n\r\nhalf")
	until(t, "the request is in flight", func() bool { return f.Report().InFlight["r0"] == 2 })
	table = replicas()
	f.Apply(table)
	_, held := f.dial(t, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody")
	f.waiting(t, 1)
	client := clientTo(t, f.secure)
	transport := client.Transport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	transport.ForceAttemptHTTP2 = true
	table.Certificates = []link.Certificate{certificate(t, host)}
	f.Apply(table)
	go func() {
		if resp, err := client.Get("https://" + host); err == nil {
			resp.Body.Close()
		}
	}()
	f.waiting(t, 2)

	if err := f.stop(); err != nil {
		t.Error(err)
	}
	client.CloseIdleConnections()
	resp, err := http.ReadResponse(held, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	want(t, resp, string(body), 503, "the ingress is being replaced")
	if resp.Header.Get("Retry-After") == "" || !resp.Close {
		t.Errorf("got %v, want Retry-After and Connection: close", resp.Header)
	}
	if got := f.Report(); len(got.InFlight)+len(got.Waiting) > 0 {
		t.Errorf("got %+v, want nothing in flight", got)
	}
	conn.Close()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if (strings.Contains(stack, "penstock/internal/ingress.") || strings.Contains(stack, "penstock/internal/ingress/")) && !strings.Contains(stack, "testing.tRunner") &&
			!strings.Contains(stack, "penstock/internal/ingress_test.") { // what the tests started themselves, whose paths look the same with -trimpath
			t.Errorf("left behind:\n%s", stack)
		}
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	in := ingress.New(ingress.Config{SoftDrain: time.Millisecond})
	ln := listen(t)
	ln.Close()
	if err := in.Serve(t.Context(), []net.Listener{ln}, nil); err == nil || !strings.Contains(err.Error(), "serve http on") {
		t.Errorf("got %v, want what could not be served", err)
	}
}

func TestTableOutlivesTheIngress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.json")
	first := ingress.New(ingress.Config{})
	if err := first.LoadTable(path); err != nil {
		t.Errorf("without a file: got %v, want nothing", err)
	}
	if err := first.SaveTable(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("without a table: got a file, %v", err)
	}
	table := replicas(app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "kept") }))
	table.Version = 7
	first.Apply(table)
	for range 2 {
		if err := first.SaveTable(path); err != nil {
			t.Fatal(err)
		}
	}
	table.Version = 8
	ctx, cancel := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() { first.KeepTable(ctx, path) })
	first.Apply(table)
	until(t, "the newest is kept", func() bool {
		next := ingress.New(ingress.Config{})
		return next.LoadTable(path) == nil && next.Report().Covers("test", 8)
	})
	table.Version = 7
	first.Apply(table)
	cancel()
	keeping.Wait() // and the last one is
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("got %v, want one file", entries)
	}
	f := serve(t, ingress.Config{})
	if err := f.LoadTable(path); err != nil {
		t.Fatal(err)
	}
	resp, body := f.get(t, "/")
	want(t, resp, body, 200, "kept")
	if got := f.Report(); !got.Covers("test", 7) {
		t.Errorf("got %+v, want version 7", got)
	}
	table.Version = 9
	f.Apply(table)
	if err := f.LoadTable(path); err != nil || !f.Report().Covers("test", 9) {
		t.Errorf("got %+v, %v, want the newer table to stay", f.Report(), err)
	}
	for name, text := range map[string]string{"garbage": "{", "another format": `{"format":2}`} {
		os.WriteFile(path, []byte(text), 0o600)
		if err := f.LoadTable(path); err == nil {
			t.Errorf("%s: got no error", name)
		}
		resp, body := f.get(t, "/")
		want(t, resp, body, 200, "kept")
	}
}

// Tables that change what a replica's neighbours are disturb no request to it.
func TestTablesChangeUnderRequests(t *testing.T) {
	ok := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }
	one, two := app(t, ok), app(t, ok)
	f := serve(t, ingress.Config{})
	f.Apply(replicas(one))
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 200 {
				resp, err := f.client.Do(request(t, http.MethodGet, "/", nil))
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || string(body) != "ok" {
					t.Errorf("got %s %q, %v", resp.Status, body, err)
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { clients.Wait(); close(over) }()
	for {
		select {
		case <-over:
			return
		default:
			f.Apply(replicas(one, two))
			f.Apply(replicas(one))
		}
	}
}
