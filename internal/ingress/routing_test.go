package ingress_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

func TestHostLeadsToApp(t *testing.T) {
	f := serve(t, ingress.Config{})
	f.Apply(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Host, r.URL)
	})))
	for _, given := range []string{"app.test", "APP.Test", "app.test:8080", "app.test.", "app.test.:80"} {
		r := request(t, http.MethodGet, "/a%2Fb?c=d", nil)
		r.Host = given
		resp, body := f.do(t, r)
		want(t, resp, body, 200, given+" /a%2Fb?c=d")
	}
}

func TestUnknownHostIsUnavailable(t *testing.T) {
	f := serve(t, ingress.Config{})
	table := replicas("127.0.0.1:1")
	table.Routes[0].External = false
	f.Apply(table)
	for _, given := range []string{"other.test", "app.test.evil", "127.0.0.1", "[::1]:80", host} {
		r := request(t, http.MethodGet, "/", nil)
		r.Host = given
		resp, body := f.do(t, r)
		want(t, resp, body, 404, "<title>Azure Container App - Unavailable</title>")
		want(t, resp, body, 404, "Error 404 - This Container App is stopped or does not exist.")
		if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
			t.Errorf("content-type: got %q, want text/html", got)
		}
	}
	_, r := f.dial(t, "GET / HTTP/1.0\r\n\r\n")
	answer, _ := io.ReadAll(r)
	if !strings.HasPrefix(string(answer), "HTTP/1.0 404 ") {
		t.Errorf("without host: got %.40q, want 404", answer)
	}
}

// neighbours is a table of one internal app in the environment that 127.0.0.0/8 or whatever else is given belongs to.
func neighbours(t *testing.T, addresses string) link.Table {
	table := replicas(app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "inside") }))
	table.Environments = []link.Environment{
		{ID: "/other", Domain: "other.test", Addresses: netip.MustParsePrefix("10.2.0.0/21")},
		{ID: "/env", Domain: "test", Addresses: netip.MustParsePrefix(addresses)},
	}
	route := &table.Routes[0]
	route.Host, route.Name, route.Environment, route.External = "app.internal.test", "app", "/env", false
	return table
}

func TestInternalAppAnswersItsEnvironmentOnly(t *testing.T) {
	f := serve(t, ingress.Config{})
	ask := func(host string, status int, said string) {
		t.Helper()
		r := request(t, http.MethodGet, "/", nil)
		r.Host = host
		resp, body := f.do(t, r)
		want(t, resp, body, status, said)
	}
	f.Apply(neighbours(t, "127.0.0.0/8"))
	for _, name := range []string{"app", "APP", "app:80", "app.test", "app.internal.test", "app.internal.test."} {
		ask(name, 200, "inside")
	}
	for _, name := range []string{"other", "app.other.test", "app.internal.other.test", "internal.test"} {
		ask(name, 404, "does not exist")
	}
	// From outside, and from another environment.
	for _, addresses := range []string{"10.1.0.0/21", "::/0"} {
		f.Apply(neighbours(t, addresses))
		for _, name := range []string{"app", "app.test", "app.internal.test"} {
			ask(name, 404, "does not exist")
		}
	}
	// One environment's short name is nobody's in another, which may have an app of its own by that name.
	table := neighbours(t, "10.1.0.0/21")
	table.Environments[0].Addresses = netip.MustParsePrefix("127.0.0.0/8")
	f.Apply(table)
	for _, name := range []string{"app", "app.internal.test", "app.other.test"} {
		ask(name, 404, "does not exist")
	}
	table.Routes[0].External, table.Routes[0].Host = true, "app.test"
	f.Apply(table)
	ask("app.test", 200, "inside")
	ask("app", 404, "does not exist")
	ask("app.internal.test", 404, "does not exist")
}

func TestNeighboursAreRedirectedToTheirGateway(t *testing.T) {
	f := serve(t, ingress.Config{HTTPSPort: 8443})
	table := neighbours(t, "127.0.0.0/8")
	table.Routes[0].AllowInsecure = false
	f.Apply(table)
	r := request(t, http.MethodGet, "/x", nil)
	r.Host = "app.internal.test"
	resp, _ := f.do(t, r)
	if got := resp.Header.Get("Location"); resp.StatusCode != 301 || got != "https://app.internal.test/x" {
		t.Errorf("got %d to %s, want 301 to the gateway's own port", resp.StatusCode, got)
	}
	// There is no certificate for a name without a domain.
	r = request(t, http.MethodGet, "/x", nil)
	r.Host = "app"
	resp, body := f.do(t, r)
	want(t, resp, body, 200, "inside")
}

func TestPlainRequestsAreRedirected(t *testing.T) {
	for port, wanted := range map[int]string{0: "https://app.test/x?y=1", 443: "https://app.test/x?y=1", 8443: "https://app.test:8443/x?y=1"} {
		f := serve(t, ingress.Config{HTTPSPort: port})
		table := replicas("127.0.0.1:1")
		table.Routes[0].AllowInsecure = false
		f.Apply(table)
		r := request(t, http.MethodPost, "/x?y=1", strings.NewReader("body"))
		r.Host = "App.test:80"
		resp, _ := f.do(t, r)
		if got := resp.Header.Get("Location"); resp.StatusCode != 301 || got != wanted {
			t.Errorf("port %d: got %d to %s, want 301 to %s", port, resp.StatusCode, got, wanted)
		}
	}
}

func TestCertificateByName(t *testing.T) {
	f := serve(t, ingress.Config{})
	table := replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-Proto"))
	}))
	table.Routes[0].AllowInsecure = false
	table.Certificates = []link.Certificate{certificate(t, "*.test"), certificate(t, "exact.other")}
	f.Apply(table)
	for name, ok := range map[string]bool{"app.test": true, "APP.test": true, "exact.other": true, "a.b.test": false, "test": false, "other": false, "": false} {
		conn, err := tls.Dial("tcp", f.secure, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if (err == nil) != ok {
			t.Errorf("server name %q: got error %v, want accepted: %v", name, err, ok)
		}
		if err == nil {
			conn.Close()
		} else if !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("server name %q: got %v, want the alert unrecognized name", name, err)
		}
	}
	for _, http2 := range []bool{false, true} {
		client := clientTo(t, f.secure)
		transport := client.Transport.(*http.Transport)
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		transport.ForceAttemptHTTP2 = http2
		resp, err := client.Get("https://app.test/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		want(t, resp, string(body), 200, "https")
		if wanted := 1 + btoi(http2); resp.ProtoMajor != wanted {
			t.Errorf("got HTTP/%d, want HTTP/%d", resp.ProtoMajor, wanted)
		}
		client.CloseIdleConnections()
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestWeights(t *testing.T) {
	f := serve(t, ingress.Config{})
	name := func(s string) string {
		return app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, s) })
	}
	table := tableOf(
		link.Revision{ID: "a", Settings: settings(), Replicas: []link.Replica{{Name: "a0", Addr: name("a")}}},
		link.Revision{ID: "b", Settings: settings(), Replicas: []link.Replica{{Name: "b0", Addr: name("b")}}},
	)
	table.Routes[0].Targets[0].Weight, table.Routes[0].Targets[1].Weight = 80, 20
	f.Apply(table)
	got := map[string]int{}
	for range 1000 {
		_, body := f.get(t, "/")
		got[body]++
	}
	// 200 is expected with a deviation of 12.6; six of them are never seen.
	if got["b"] < 125 || got["b"] > 275 || got["a"]+got["b"] != 1000 {
		t.Errorf("got %v, want 80 to 20", got)
	}
}

func TestFewRequestsStayOnOneReplica(t *testing.T) {
	for behaviour, wanted := range map[resource.Behaviour][]int{resource.Fast: {30, 0, 0}, resource.Azure: {10, 10, 10}} {
		f := serve(t, ingress.Config{})
		var addrs []string
		for i := range 3 {
			addrs = append(addrs, app(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, i) }))
		}
		f.Apply(set(replicas(addrs...), func(s *resource.Settings) { s.Behaviour = behaviour }))
		got := make([]int, 3)
		for range 30 {
			_, body := f.get(t, "/")
			got[body[0]-'0']++
		}
		if fmt.Sprint(got) != fmt.Sprint(wanted) {
			t.Errorf("%s: got %v requests a replica, want %v", behaviour, got, wanted)
		}
	}
}
