package ingress_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

const host = "app.test"

// overTLS is set when all replicas of the tests speak TLS: TestReplicasOverTLS runs them so once more.
var overTLS = os.Getenv("PENSTOCK_TEST_REPLICAS_TLS") != ""

// replicaTLS is how they do. The certificate is for no host, and was never valid.
var replicaTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}},
		NextProtos:   []string{"http/1.1", "h2"},
	}
})

// listenAsReplica opens a port that the ingress is to connect to.
func listenAsReplica(t testing.TB) net.Listener {
	ln := listen(t)
	if overTLS {
		return tls.NewListener(ln, replicaTLS())
	}
	return ln
}

// front is an ingress that serves on loopback.
type front struct {
	*ingress.Ingress
	plain, secure string // addresses
	client        *http.Client
	stop          func() error // ends Serve and waits for it
}

// Apply gives the ingress a table.
func (f *front) Apply(table link.Table) {
	if overTLS {
		table.Revisions = slices.Clone(table.Revisions)
		for i := range table.Revisions {
			table.Revisions[i].TLS = true
		}
	}
	f.Ingress.Apply(table)
}

func serve(t testing.TB, cfg ingress.Config) *front {
	t.Helper()
	if cfg.SoftDrain == 0 {
		cfg.SoftDrain = time.Millisecond
	}
	if cfg.Drain == 0 {
		cfg.Drain = 5 * time.Second
	}
	return serveOn(t, cfg, listen(t), listen(t))
}

func serveOn(t testing.TB, cfg ingress.Config, plain, secure net.Listener) *front {
	t.Helper()
	f := &front{Ingress: ingress.New(cfg), plain: plain.Addr().String(), secure: secure.Addr().String()}
	f.client = clientTo(t, f.plain)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, []net.Listener{plain}, []net.Listener{secure}) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		f.client.CloseIdleConnections()
		if err := f.stop(); err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
	})
	return f
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// clientTo dials addr whatever the URL says, and follows no redirects.
func clientTo(t testing.TB, addr string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, addr)
			},
			MaxIdleConnsPerHost: 2000,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
}

// replicas makes a table with one external app, host, of one revision with those addresses: "r0", "r1", ...
func replicas(addrs ...string) link.Table {
	rev := link.Revision{ID: "app--1", Settings: settings()}
	for i, addr := range addrs {
		rev.Replicas = append(rev.Replicas, link.Replica{Name: "r" + string(rune('0'+i)), Addr: addr})
	}
	return tableOf(rev)
}

func tableOf(revs ...link.Revision) link.Table {
	route := link.Route{Host: host, App: "/app", External: true, AllowInsecure: true}
	for _, rev := range revs {
		route.Targets = append(route.Targets, link.Target{Revision: rev.ID, Weight: 100 / len(revs)})
	}
	return link.Table{Epoch: "test", Version: 1, Routes: []link.Route{route}, Revisions: revs}
}

func settings() resource.Settings {
	return resource.Settings{
		Behaviour: resource.Fast, QueueLimit: 1000, QueueTimeout: 20 * time.Second, IdleTimeout: 20 * time.Second,
		Retry: resource.RetryIdempotent,
	}
}

// set changes the settings of all revisions of a table.
func set(table link.Table, change func(*resource.Settings)) link.Table {
	for i := range table.Revisions {
		change(&table.Revisions[i].Settings)
	}
	return table
}

// app is a replica that net/http serves.
func app(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	if overTLS {
		s.TLS = &tls.Config{Certificates: replicaTLS().Certificates}
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// raw is a replica that is written out by hand: talk is called for each connection.
func raw(t testing.TB, talk func(conn net.Conn, r *bufio.Reader)) string {
	t.Helper()
	ln := listenAsReplica(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		cancel()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				talk(conn, bufio.NewReader(conn))
			})
		}
	})
	return ln.Addr().String()
}

// says is a replica that answers each request with the same bytes and then closes.
func says(t testing.TB, response string) string {
	return raw(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		io.WriteString(conn, response)
	})
}

func (f *front) get(t testing.TB, path string) (*http.Response, string) {
	t.Helper()
	return f.do(t, request(t, http.MethodGet, path, nil))
}

func request(t testing.TB, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, "http://"+host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (f *front) do(t testing.TB, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := f.client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: body: %v", r.Method, r.URL, err)
	}
	return resp, string(body)
}

func want(t testing.TB, resp *http.Response, body string, status int, text string) {
	t.Helper()
	if resp.StatusCode != status || !strings.Contains(body, text) {
		t.Errorf("got %d %q, want %d with %q", resp.StatusCode, body, status, text)
	}
}

// until polls for a condition that nothing announces.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// waiting waits until n requests wait for the revision.
func (f *front) waiting(t testing.TB, n int) {
	t.Helper()
	until(t, "requests wait", func() bool { return f.Report().Waiting["app--1"] == n })
}

// dial opens a connection to the front and sends text.
func (f *front) dial(t testing.TB, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", f.plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// records collects what is observed.
type records struct {
	mu  sync.Mutex
	all []accesslog.Record
}

func (r *records) observe(rec *accesslog.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, *rec)
}

// last waits until there are n and returns the newest.
func (r *records) last(t testing.TB, n int) accesslog.Record {
	t.Helper()
	var rec accesslog.Record
	until(t, "requests are recorded", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.all) < n {
			return false
		}
		rec = r.all[len(r.all)-1]
		return true
	})
	return rec
}

func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("not within a minute: %s", what)
		panic(errors.New("unreachable"))
	}
}
