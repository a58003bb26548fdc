package ingress_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"penstock/internal/ingress"
	"penstock/internal/link"
	"penstock/internal/resource"
)

func withPolicy(table link.Table, p link.Policy) link.Table {
	for i := range table.Routes {
		table.Routes[i].Policy = &p
	}
	return table
}

func TestIPRules(t *testing.T) {
	addr := app(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "app") })
	here, elsewhere := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for name, test := range map[string]struct {
		policy link.Policy
		status int
		body   string
	}{
		"allowed":                   {link.Policy{Allow: append(elsewhere, here...)}, 200, "app"},
		"another is allowed":        {link.Policy{Allow: elsewhere}, 403, "RBAC: access denied"},
		"denied":                    {link.Policy{Deny: here}, 403, "RBAC: access denied"},
		"another is denied":         {link.Policy{Deny: elsewhere}, 200, "app"},
		"denied before a redirect":  {link.Policy{Deny: here}, 403, "RBAC: access denied"},
		"what it says of itself":    {link.Policy{Allow: elsewhere}, 403, "RBAC: access denied"},
		"an app that asks for none": {link.Policy{}, 200, "app"},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, ingress.Config{})
			table := withPolicy(replicas(addr), test.policy)
			table.Routes[0].AllowInsecure = name != "denied before a redirect"
			f.Apply(table)
			r := request(t, http.MethodGet, "/", nil)
			r.Header.Set("X-Forwarded-For", "192.0.2.1")
			resp, body := f.do(t, r)
			want(t, resp, body, test.status, test.body)
		})
	}
}

func TestCORS(t *testing.T) {
	const own = "https://app.example"
	age := 600
	few := &resource.CORS{
		Origins: []string{"https://chat.example", "http://localhost:3000"}, Methods: []string{"GET", "POST"}, Headers: []string{"content-type", "x-key"},
		ExposedHeaders: []string{"x-total"}, MaxAge: &age, Credentials: true,
	}
	all := &resource.CORS{Origins: []string{"*"}}
	below := &resource.CORS{Origins: []string{"https://*.chat.example", "http://*.localhost:3000"}}
	refused := func(origin string) (out struct {
		cors           *resource.CORS
		method, origin string
		asks           string
		answered       bool
		header         http.Header
	}) {
		out.cors, out.method, out.origin, out.asks, out.answered = below, "OPTIONS", origin, "PUT", true
		out.header = http.Header{"Access-Control-Allow-Origin": {own}}
		return out
	}
	for name, test := range map[string]struct {
		cors           *resource.CORS
		method, origin string
		asks           string // Access-Control-Request-Method
		answered       bool   // by the app
		header         http.Header
	}{
		"preflight": {few, "OPTIONS", "https://chat.example", "PUT", false, http.Header{
			"Access-Control-Allow-Origin": {"https://chat.example"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Max-Age": {"600"},
			"Access-Control-Allow-Methods": {"GET,POST"}, "Access-Control-Allow-Headers": {"content-type,x-key"}, "Vary": {"Origin"}}},
		"preflight of anybody":               {all, "OPTIONS", "https://evil.example", "PUT", false, http.Header{"Access-Control-Allow-Origin": {"https://evil.example"}}},
		"preflight of another origin":        {few, "OPTIONS", "https://evil.example", "PUT", true, http.Header{"Access-Control-Allow-Origin": {own}}},
		"an origin that begins alike":        {few, "OPTIONS", "https://chat.example.evil", "PUT", true, http.Header{"Access-Control-Allow-Origin": {own}}},
		"below a domain":                     {below, "OPTIONS", "https://a.b.chat.example", "PUT", false, http.Header{"Access-Control-Allow-Origin": {"https://a.b.chat.example"}, "Vary": {"Origin"}}},
		"below a domain with a port":         {below, "OPTIONS", "http://shop.localhost:3000", "PUT", false, http.Header{"Access-Control-Allow-Origin": {"http://shop.localhost:3000"}, "Vary": {"Origin"}}},
		"the domain itself":                  refused("https://chat.example"),
		"a domain that ends alike":           refused("https://evilchat.example"),
		"a domain that begins alike":         refused("https://a.chat.example.evil"),
		"below a domain with another scheme": refused("http://a.chat.example"),
		"below a domain with another port":   refused("https://a.chat.example:444"),
		"nothing below":                      refused("https://.chat.example"),
		"an address in the name":             refused("https://evil.example/.chat.example"),
		"OPTIONS that is no preflight":       {few, "OPTIONS", "https://chat.example", "", true, http.Header{"Access-Control-Allow-Origin": {"https://chat.example"}, "Access-Control-Expose-Headers": {"x-total"}, "Access-Control-Allow-Credentials": {"true"}, "Vary": {"Origin"}}},
		"a request":                          {few, "GET", "http://localhost:3000", "", true, http.Header{"Access-Control-Allow-Origin": {"http://localhost:3000"}, "Access-Control-Expose-Headers": {"x-total"}, "Access-Control-Allow-Credentials": {"true"}, "Vary": {"Origin"}}},
		"a request of another origin":        {few, "GET", "null", "", true, http.Header{"Access-Control-Allow-Origin": {own}}},
		"a request of no page":               {few, "GET", "", "", true, http.Header{"Access-Control-Allow-Origin": {own}}},
		"preflight of an app without policy": {nil, "OPTIONS", "https://chat.example", "PUT", true, http.Header{"Access-Control-Allow-Origin": {own}}},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, ingress.Config{})
			f.Apply(withPolicy(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Access-Control-Allow-Origin", own)
				fmt.Fprint(w, "app")
			})), link.Policy{CORS: test.cors}))
			r := request(t, test.method, "/", nil)
			for name, value := range map[string]string{"Origin": test.origin, "Access-Control-Request-Method": test.asks} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			resp, body := f.do(t, r)
			if resp.StatusCode != 200 || (body == "app") != test.answered {
				t.Errorf("got %d %q, want 200, of the app: %v", resp.StatusCode, body, test.answered)
			}
			for _, name := range []string{"Origin", "Credentials", "Methods", "Headers"} {
				name = "Access-Control-Allow-" + name
				if got := resp.Header.Get(name); got != test.header.Get(name) {
					t.Errorf("%s: got %q, want %q", name, got, test.header.Get(name))
				}
			}
			for _, name := range []string{"Access-Control-Expose-Headers", "Access-Control-Max-Age", "Vary"} {
				if got := resp.Header.Get(name); got != test.header.Get(name) {
					t.Errorf("%s: got %q, want %q", name, got, test.header.Get(name))
				}
			}
		})
	}
}

// A page can read why its request failed, too.
func TestCORSOfErrors(t *testing.T) {
	f := serve(t, ingress.Config{})
	table := withPolicy(replicas(), link.Policy{CORS: &resource.CORS{Origins: []string{"*"}}})
	table.Revisions[0].Failed = "no such image"
	f.Apply(table)
	r := request(t, http.MethodGet, "/", nil)
	r.Header.Set("Origin", "https://chat.example")
	resp, body := f.do(t, r)
	want(t, resp, body, 503, "no replica of this app can be started")
	if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "https://chat.example" {
		t.Errorf("got %q", got)
	}
}

func TestStickySessions(t *testing.T) {
	named := func(name string) string {
		return app(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hold" {
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
			fmt.Fprint(w, name)
		})
	}
	a, b := named("a"), named("b")
	f := serve(t, ingress.Config{})
	table := withPolicy(replicas(a, b), link.Policy{Sticky: true})
	f.Apply(set(table, func(s *resource.Settings) { s.Behaviour = resource.Azure })) // round robin
	ask := func(cookie string) (string, *http.Cookie) {
		t.Helper()
		r := request(t, http.MethodGet, "/", nil)
		if cookie != "" {
			r.Header.Set("Cookie", "other=1; "+cookie)
		}
		resp, body := f.do(t, r)
		for _, c := range resp.Cookies() {
			return body, c
		}
		return body, nil
	}
	first, cookie := ask("")
	if cookie == nil || cookie.Name != "acaAffinity" || len(cookie.Value) != 16 || !cookie.HttpOnly || cookie.Path != "/" || cookie.Secure {
		t.Fatalf("got %v, want a cookie acaAffinity", cookie)
	}
	mine := `acaAffinity="` + cookie.Value + `"`
	for range 5 {
		if got, again := ask(mine); got != first || again != nil {
			t.Fatalf("got %s and %v, want %s and no other cookie", got, again, first)
		}
	}
	if other, _ := ask(""); other == first {
		t.Errorf("got %s for a client without a cookie, want the other replica", other)
	}
	if _, again := ask(`acaAffinity="0123456789abcdef"`); again == nil {
		t.Error("a cookie of no replica is not replaced")
	}

	// At its limit, another one is better than none.
	f.Apply(set(table, func(s *resource.Settings) { s.MaxConcurrency = 1 }))
	r := request(t, http.MethodGet, "/hold", nil)
	r.Header.Set("Cookie", mine)
	held, err := f.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, again := ask(mine); got == first || again == nil {
		t.Errorf("got %s and %v while the replica is full, want the other one and its cookie", got, again)
	}
	held.Body.Close()

	// A replica that left is replaced.
	left := map[string]string{"a": b, "b": a}[first]
	table = withPolicy(replicas(left), link.Policy{Sticky: true})
	table.Revisions[0].Replicas[0].Name = "another"
	f.Apply(table)
	if got, again := ask(mine); got == first || again == nil {
		t.Errorf("got %s and %v after the replica left, want the other one and its cookie", got, again)
	}
}

func TestClientCertificates(t *testing.T) {
	front, shown := certificate(t, host, "open.test"), certificate(t, "client")
	pair, err := tls.X509KeyPair(shown.Cert, shown.Key)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(shown.Cert)
	sum := sha256.Sum256(block.Bytes)
	const refused = "handshake"
	for name, test := range map[string]struct {
		mode resource.ClientCertificates
		show bool
		via  string // the name in the handshake, when it is another host's
		want string // what the replica sees, or the answer
	}{
		"not asked for":                          {"", true, "", "none"},
		"accepted":                               {resource.ClientCertificatesAccept, true, "", "shown"},
		"accepted without":                       {resource.ClientCertificatesAccept, false, "", "none"},
		"required":                               {resource.ClientCertificatesRequire, true, "", "shown"},
		"required and not there":                 {resource.ClientCertificatesRequire, false, "", refused},
		"required, and the connection's is open": {resource.ClientCertificatesRequire, true, "open.test", "403"},
	} {
		for proto, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
			t.Run(name+", "+proto, func(t *testing.T) {
				f := serve(t, ingress.Config{})
				table := withPolicy(replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprint(w, strings.Join(r.Header["X-Forwarded-Client-Cert"], "|"))
				})), link.Policy{ClientCertificates: test.mode})
				open := table.Routes[0]
				open.Host, open.Policy = "open.test", nil
				table.Routes = append(table.Routes, open)
				table.Certificates = []link.Certificate{front}
				f.Apply(table)
				client := clientTo(t, f.secure)
				defer client.CloseIdleConnections()
				config := &tls.Config{InsecureSkipVerify: true, ServerName: test.via}
				if test.show {
					config.Certificates = []tls.Certificate{pair}
				}
				transport := client.Transport.(*http.Transport)
				transport.TLSClientConfig, transport.ForceAttemptHTTP2 = config, h2
				for range 2 { // the second request comes on the same connection
					r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/", nil)
					if err != nil {
						t.Fatal(err)
					}
					r.Header.Set("X-Forwarded-Client-Cert", "Hash=forged")
					resp, err := client.Do(r)
					if err != nil {
						if test.want != refused {
							t.Fatal(err)
						}
						return
					}
					text, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || resp.Proto != proto {
						t.Fatalf("%v, %s", err, resp.Proto)
					}
					switch test.want {
					case "403":
						want(t, resp, string(text), 403, "requires a client certificate")
					case "none":
						want(t, resp, string(text), 200, "")
						if len(text) > 0 {
							t.Errorf("the replica saw %q", text)
						}
					case "shown":
						checkShown(t, string(text), hex.EncodeToString(sum[:]), block.Bytes)
					default:
						t.Errorf("got %d, want no handshake", resp.StatusCode)
					}
				}
			})
		}
	}
}

func checkShown(t *testing.T, got, hash string, der []byte) {
	t.Helper()
	rest, ok := strings.CutPrefix(got, "Hash="+hash+`;Cert="`)
	cert, chain, ok2 := strings.Cut(rest, `";Chain="`)
	chain, ok3 := strings.CutSuffix(chain, `";`)
	if !ok || !ok2 || !ok3 || cert != chain {
		t.Fatalf("the replica saw %q", got)
	}
	text, err := url.PathUnescape(cert)
	if err != nil || strings.ContainsAny(cert, "+/= \n\"") {
		t.Fatalf("%v: %q", err, cert)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || string(block.Bytes) != string(der) {
		t.Errorf("got %q, want the certificate that was shown", text)
	} else if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		t.Error(err)
	}
}
