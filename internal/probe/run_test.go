package probe_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"penstock/internal/probe"
	"penstock/internal/resource"
)

// watch probes addr until the test ends and returns the verdicts, and a channel that is closed at the end.
func watch(t *testing.T, addr netip.Addr, own []resource.Probe, port int, b resource.Behaviour) (<-chan probe.Verdict, <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	verdicts, done := make(chan probe.Verdict, 100), make(chan struct{})
	go func() {
		defer close(done)
		target := probe.Target{Address: addr, Started: time.Now(), Behaviour: b, Checks: probe.Checks(own, port, b)}
		probe.Run(ctx, target, func(v probe.Verdict) { verdicts <- v })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return verdicts, done
}

func next(t *testing.T, verdicts <-chan probe.Verdict) probe.Verdict {
	t.Helper()
	select {
	case v := <-verdicts:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("no verdict came")
		return probe.Verdict{}
	}
}

func serve(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// once asks a container's startup probe once.
func once(t *testing.T, at netip.AddrPort, get resource.HTTPGet, timeout time.Duration) probe.Verdict {
	t.Helper()
	get.Port = int(at.Port())
	own := []resource.Probe{{Type: resource.Startup, HTTP: &get, Timeout: timeout, Period: time.Millisecond, FailureThreshold: 1}}
	verdicts, done := watch(t, at.Addr(), own, 0, resource.Azure)
	v := next(t, verdicts)
	if v.Kill {
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("asking goes on after a verdict to kill")
		}
	}
	return v
}

func TestHTTP(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/200", "/elsewhere-after-all":
		case "/399":
			w.WriteHeader(399)
		case "/400":
			w.WriteHeader(400)
		case "/503":
			w.WriteHeader(503)
		case "/here":
			http.Redirect(w, r, "/503", http.StatusFound)
		case "/elsewhere":
			// Whoever follows it asks this same server, at a path that fails.
			http.Redirect(w, r, "http://localhost.example:1/503", http.StatusFound)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		case "/stream":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		case "/headers":
			if r.Host != "model.example" || r.Header.Get("X-Key") != "a" || len(r.Header.Values("X-Twice")) != 2 || r.URL.RawQuery != "deep=1" {
				w.WriteHeader(418)
			}
		case "/hang":
			<-r.Context().Done()
		}
	})
	headers := []resource.Header{{Name: "host", Value: "model.example"}, {Name: "X-Key", Value: "a"}, {Name: "X-Twice", Value: "1"}, {Name: "X-Twice", Value: "2"}}
	tests := map[string]struct {
		get     resource.HTTPGet
		timeout time.Duration
		want    string // message of the failure; "" is success
	}{
		"200":                         {resource.HTTPGet{Path: "/200"}, time.Minute, ""},
		"a path without a slash":      {resource.HTTPGet{Path: "200"}, time.Minute, ""},
		"399":                         {resource.HTTPGet{Path: "/399"}, time.Minute, ""},
		"400":                         {resource.HTTPGet{Path: "/400"}, time.Minute, "Probe of StartUp failed with status code: 400; GET /400 on port PORT answered 400"},
		"503":                         {resource.HTTPGet{Path: "/503"}, time.Minute, "Probe of StartUp failed with status code: 503; GET /503 on port PORT answered 503"},
		"redirect is followed":        {resource.HTTPGet{Path: "/here"}, time.Minute, "Probe of StartUp failed with status code: 503; GET /here on port PORT answered 503"},
		"redirect off host is enough": {resource.HTTPGet{Path: "/elsewhere"}, time.Minute, ""},
		"redirects without end":       {resource.HTTPGet{Path: "/round"}, time.Minute, "Probe of StartUp failed: stopped after 10 redirects"},
		"an endless page":             {resource.HTTPGet{Path: "/stream"}, time.Minute, ""},
		"headers and query":           {resource.HTTPGet{Path: "/headers?deep=1", Headers: headers}, time.Minute, ""},
		"host":                        {resource.HTTPGet{Path: "/headers?deep=1", Headers: headers[1:], Host: "model.example"}, time.Minute, ""},
		"no answer in time":           {resource.HTTPGet{Path: "/hang"}, 50 * time.Millisecond, "Probe of StartUp failed with timeout in 0.05 seconds. GET /hang on port PORT had no answer"},
		"http spoken to https":        {resource.HTTPGet{Path: "/200", Scheme: "HTTPS"}, time.Minute, "Probe of StartUp failed: http: server gave HTTP response to HTTPS client"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := once(t, at, test.get, test.timeout)
			if test.want == "" {
				if v.Err != nil || !v.Started || !v.Ready || v.Kill {
					t.Errorf("GET %s: want started and ready, got %+v", test.get.Path, v)
				}
				return
			}
			test.want = strings.ReplaceAll(test.want, "PORT", strconv.Itoa(int(at.Port())))
			if v.Err == nil || v.Message() != test.want || !v.Kill {
				t.Errorf("GET %s: got %q (kill %t, %v), want %q", test.get.Path, v.Message(), v.Kill, v.Err, test.want)
			}
		})
	}
}

func TestHTTPS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	at := netip.MustParseAddrPort(s.Listener.Addr().String())
	if v := once(t, at, resource.HTTPGet{Path: "/", Scheme: "HTTPS"}, time.Minute); v.Err != nil || !v.Ready {
		t.Errorf("a certificate of nobody: want success, got %+v", v)
	}
}

func TestNoProbesIsReady(t *testing.T) {
	verdicts, done := watch(t, netip.MustParseAddr("127.0.0.1"), nil, 0, resource.Azure)
	if v := next(t, verdicts); !v.Changed || !v.Started || !v.Ready {
		t.Errorf("nothing to ask: want ready, got %+v", v)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("nothing to ask: want Run to return")
	}
}

// The implicit probes of a port that opens later, as of a process that loads.
func TestPortThatOpensLater(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(ln.Addr().String())
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	verdicts, _ := watch(t, at.Addr(), nil, int(at.Port()), resource.Fast)
	v := next(t, verdicts) // the first failure that counts, one second after the start
	if v.Err == nil || !v.Counted || v.Kill || !strings.HasPrefix(v.Message(), "Probe of StartUp failed: connection refused on port ") {
		t.Errorf("closed port: want a counted failure, got %+v: %s", v, v.Message())
	}
	if ln, err = net.Listen("tcp", at.String()); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for !v.Ready {
		v = next(t, verdicts)
	}
}

// A port that nobody has named is asked for each time, and its number told when it refuses.
func TestPortThatIsFoundOut(t *testing.T) {
	at := serve(t, func(http.ResponseWriter, *http.Request) {})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses := closed.Addr().(*net.TCPAddr).Port
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	var port atomic.Int64 // 0: none yet
	target := probe.Target{
		Address: at.Addr(), Started: time.Now().Add(-time.Hour), Checks: probe.Checks(nil, probe.Detected, resource.Fast), Behaviour: resource.Fast,
		Port: func(context.Context) (int, error) {
			if n := port.Load(); n != 0 {
				return int(n), nil
			}
			return 0, errors.New("it listens on no port yet")
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	verdicts, done := make(chan probe.Verdict, 100), make(chan struct{})
	go func() {
		defer close(done)
		probe.Run(ctx, target, func(v probe.Verdict) { verdicts <- v })
	}()
	t.Cleanup(func() { cancel(); <-done })
	if v := next(t, verdicts); v.Message() != "Probe of StartUp failed: it listens on no port yet" {
		t.Errorf("without a port: got %q", v.Message())
	}
	port.Store(int64(refuses))
	for want := fmt.Sprintf("Probe of StartUp failed: connection refused on port %d", refuses); ; {
		if v := next(t, verdicts); v.Message() == want {
			break
		}
	}
	port.Store(int64(at.Port()))
	for v := next(t, verdicts); !v.Ready; {
		v = next(t, verdicts)
	}
}

func TestReadinessComesAndGoes(t *testing.T) {
	var down atomic.Bool
	at := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	own := []resource.Probe{{
		Type: resource.Readiness, HTTP: &resource.HTTPGet{Path: "/", Port: int(at.Port())}, Period: 5 * time.Millisecond, FailureThreshold: 2,
	}}
	verdicts, _ := watch(t, at.Addr(), own, 0, resource.Fast)
	// Nothing gates the start, so the container is started before it is ready.
	v := next(t, verdicts)
	for range 3 {
		for !v.Ready {
			v = next(t, verdicts)
		}
		down.Store(true)
		for v.Ready {
			v = next(t, verdicts)
		}
		if v.Failures < 2 || !strings.HasPrefix(v.Message(), "Probe of Readiness failed with status code: 503; GET / on port ") {
			t.Errorf("not ready after %d failures: %s", v.Failures, v.Message())
		}
		down.Store(false)
	}
}
