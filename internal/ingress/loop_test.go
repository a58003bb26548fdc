package ingress_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"penstock/internal/accesslog"
	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

// transportFrom connects to addr from the address of a replica.
func transportFrom(t *testing.T, from, addr string, http2 bool) *http.Transport {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := clientTo(t, addr).Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, addr)
	}
	if http2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// inside is the address that replicas of the tests have. Other clients have 127.0.0.1.
const inside = "127.0.0.2"

// loopTable has the given apps, by the first part of their hosts, in one environment.
func loopTable(apps map[string]string, transport resource.Transport) link.Table {
	table := link.Table{Epoch: "test", Version: 1, Environments: []link.Environment{
		{ID: "/env", Domain: "test", Addresses: netip.MustParsePrefix(inside + "/32")},
	}}
	for name, addr := range apps {
		id := "/" + name
		table.Revisions = append(table.Revisions, link.Revision{ID: id + "--1", Settings: settings(), Replicas: []link.Replica{{Name: name, Addr: addr}}})
		table.Routes = append(table.Routes, link.Route{
			Host: name + ".test", Name: name, Environment: "/env", App: id, External: true, AllowInsecure: true, Transport: transport,
			Targets: []link.Target{{Revision: id + "--1", Weight: 100}},
		})
	}
	return table
}

// proxyTo is an app that passes requests on to a host of the ingress, as nginx and Go's ReverseProxy do.
func proxyTo(transport http.RoundTripper, host string, got *atomic.Int64) http.HandlerFunc {
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", host, host
	}}
	return func(w http.ResponseWriter, r *http.Request) {
		got.Add(1)
		proxy.ServeHTTP(w, r)
	}
}

func TestARequestThatComesBackEnds(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			var rec records
			f := serve(t, ingress.Config{Observe: rec.observe})
			transport := transportFrom(t, inside, f.plain, http2)
			var self, ping, pong, chain atomic.Int64
			serveApp := func(h http.HandlerFunc) string {
				if !http2 || overTLS {
					return app(t, h)
				}
				s := httptest.NewUnstartedServer(h)
				s.Config.Protocols = new(http.Protocols)
				s.Config.Protocols.SetUnencryptedHTTP2(true)
				s.Start()
				t.Cleanup(s.Close)
				return s.Listener.Addr().String()
			}
			apps := map[string]string{
				"self": serveApp(proxyTo(transport, "self.test", &self)),
				"ping": serveApp(proxyTo(transport, "pong.test", &ping)),
				"pong": serveApp(proxyTo(transport, "ping.test", &pong)),
				"last": serveApp(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "the end") }),
			}
			const apart = 20 // more than an app may be visited, all different
			for i := range apart {
				to := fmt.Sprintf("c%d.test", i+1)
				if i == apart-1 {
					to = "last.test"
				}
				apps[fmt.Sprint("c", i)] = serveApp(proxyTo(transport, to, &chain))
			}
			protocol := resource.TransportAuto
			if http2 && !overTLS {
				protocol = resource.TransportHTTP2
			}
			f.Apply(loopTable(apps, protocol))
			client := f.client
			if http2 {
				client = &http.Client{Transport: transportFrom(t, "127.0.0.1", f.plain, true)}
			}
			ask := func(method, host string) (*http.Response, string) {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), method, "http://"+host+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return resp, string(body)
			}
			resp, body := ask("GET", "self.test")
			want(t, resp, body, http.StatusLoopDetected, "loop: this request has been to this app 8 times already")
			if n := self.Load(); n != 8 {
				t.Errorf("the app got the request %d times, want 8", n)
			}
			if len(f.Traffic().Loops) != 1 || f.Traffic().Loops["/self"] <= 0 {
				t.Errorf("loops: got %v, want one of /self", f.Traffic().Loops)
			}
			resp, body = ask("POST", "ping.test")
			want(t, resp, body, http.StatusLoopDetected, "loop")
			if ping.Load() != 8 || pong.Load() != 8 {
				t.Errorf("two apps got the request %d and %d times, want 8 each", ping.Load(), pong.Load())
			}
			resp, body = ask("GET", "c0.test")
			want(t, resp, body, http.StatusOK, "the end")
			if len(f.Traffic().Loops) != 2 || f.Traffic().Loops["/ping"] <= 0 {
				t.Errorf("loops: got %v, want those of /self and /ping", f.Traffic().Loops)
			}
			found := func(r accesslog.Record) bool {
				return r.Details() == "loop_detected" && r.App == "/self" && r.Status == 508
			}
			rec.last(t, 1)
			until(t, "the end of the loop is recorded", func() bool {
				rec.mu.Lock()
				defer rec.mu.Unlock()
				return slices.ContainsFunc(rec.all, found)
			})
		})
	}
}

// A loop of more apps than the field has room for ends too, and is nobody's event.
func TestALoopOfManyAppsEnds(t *testing.T) {
	f := serve(t, ingress.Config{})
	transport := transportFrom(t, inside, f.plain, false)
	apps := map[string]string{}
	var got atomic.Int64
	const ring = 40
	for i := range ring {
		apps[fmt.Sprint("c", i)] = app(t, proxyTo(transport, fmt.Sprintf("c%d.test", (i+1)%ring), &got))
	}
	f.Apply(loopTable(apps, resource.TransportAuto))
	r := request(t, http.MethodGet, "/", nil)
	r.Host = "c0.test"
	resp, body := f.do(t, r)
	want(t, resp, body, http.StatusLoopDetected, "loop: this request has been to 32 apps already")
	if n := got.Load(); n != 32 || len(f.Traffic().Loops) > 0 {
		t.Errorf("%d apps got it, loops %v; want 32 and none", n, f.Traffic().Loops)
	}
}

// What an app or a client sends can only have its own requests refused.
func TestForgedHops(t *testing.T) {
	f := serve(t, ingress.Config{})
	echo := func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Join(r.Header["X-Penstock-Hops"], "|"))
	}
	f.Apply(loopTable(map[string]string{"victim": app(t, echo), "hostile": app(t, echo)}, resource.TransportAuto))
	neighbour := &http.Client{Transport: transportFrom(t, inside, f.plain, false)}
	ask := func(client *http.Client, host string, hops ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+".test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header["X-Penstock-Hops"] = hops
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	_, fresh := ask(f.client, "victim")
	if fresh == "" || strings.ContainsAny(fresh, ",|") {
		t.Fatalf("got %q, want one entry", fresh)
	}
	// A client from outside: nothing that it sends counts, also if it got an entry from an app that echoes its requests.
	for range 20 {
		if status, got := ask(f.client, "victim", fresh, "99", fresh); status != 200 || got != fresh {
			t.Fatalf("from outside: got %d %q, want what every first request gets, %q", status, got, fresh)
		}
	}
	// A replica: what is not the ingress's own is dropped.
	last := "A"
	if fresh[0] == 'A' {
		last = "B"
	}
	for _, bad := range []string{"", ",", "100", "8", strings.Repeat("A", 22), last + fresh[1:], fresh[1:], fresh + "A", strings.Repeat("x,", 5000)} {
		if status, got := ask(neighbour, "victim", bad); status != 200 || got != fresh {
			t.Errorf("forged %.30q: got %d %.60q, want %q", bad, status, got, fresh)
		}
	}
	// The hostile app goes round and round, and sends what it got to the other: that is a first visit.
	all := []string{}
	_, got := ask(neighbour, "hostile")
	for range 7 {
		all = append(all, got)
		var status int
		if status, got = ask(neighbour, "hostile", got); status != 200 {
			t.Fatalf("got %d %q", status, got)
		}
	}
	if status, body := ask(neighbour, "hostile", got); status != http.StatusLoopDetected || !strings.Contains(body, "loop") {
		t.Errorf("the ninth time: got %d %q, want 508", status, body)
	}
	all = append(all, got, got, got)
	if status, got := ask(neighbour, "victim", strings.Repeat(strings.Join(all, ",")+",", 20)); status != 200 || !strings.HasPrefix(got, fresh+", ") || strings.Count(got, ",") != 1 {
		t.Errorf("with the hostile app's entries: got %d %q, want a first visit and one entry of the other app", status, got)
	}
	if loops := f.Traffic().Loops; len(loops) != 1 || loops["/hostile"] <= 0 {
		t.Errorf("loops: got %v, want one of the hostile app only", loops)
	}
}

// Nobody without the key makes an entry that counts.
func FuzzHops(f *testing.F) {
	in := ingress.New(ingress.Config{})
	first, _, _ := in.Visits("/app", nil)
	other, _, _ := in.Visits("/other", nil)
	for _, seed := range []string{"", "1", first[:21], strings.Repeat("A", 22), ", ,", "8,\t" + strings.Repeat("_", 22)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		if strings.Contains(given, first) || strings.Contains(given, other) {
			t.Skip("it has a real entry")
		}
		if field, times, visited := in.Visits("/app", []string{given}); field != first || times != 1 || visited != 1 {
			t.Errorf("got %q, %d, %d, want a first visit", field, times, visited)
		}
		field, times, visited := in.Visits("/app", []string{given + "," + first, other})
		if times != 2 || visited != 2 || !strings.HasSuffix(field, ", "+other) {
			t.Errorf("with entries of ours: got %q, %d, %d, want the second visit, of two apps", field, times, visited)
		}
	})
}
