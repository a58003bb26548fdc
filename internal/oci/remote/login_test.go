package remote_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"penstock/internal/oci/remote"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	blobDigest   = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // of "abc"
)

// host is a registry, a token service or an attacker. It records the requests that it gets.
type host struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // path and Authorization of each request
}

func newHost(t *testing.T, serve func(h *host, w http.ResponseWriter, r *http.Request)) *host {
	h := &host{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.seen = append(h.seen, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Authorization")))
		h.mu.Unlock()
		serve(h, w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *host) name() string { return strings.TrimPrefix(h.URL, "http://") }

func (h *host) asked() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.seen, "\n")
}

func newClient(t *testing.T, cfg remote.Config) *remote.Client {
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	c := remote.New(cfg)
	t.Cleanup(c.Close)
	return c
}

var (
	login = remote.NewLogin("ann", "pass-word-1")
	proof = base64.StdEncoding.EncodeToString([]byte("ann:pass-word-1"))
)

func refuse(w http.ResponseWriter, challenge string) {
	w.Header().Set("WWW-Authenticate", challenge)
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication\u0007 required"}]}`)
}

func give(w http.ResponseWriter) {
	w.Header().Set("Content-Type", manifestType)
	_, _ = io.WriteString(w, "{}")
}

func TestLogins(t *testing.T) {
	basic := newHost(t, func(_ *host, w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "ann" || password != "pass-word-1" {
			refuse(w, `Basic realm="x"`)
			return
		}
		give(w)
	})
	tokens := 0
	bearer := newHost(t, func(h *host, w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if r.URL.Query().Get("scope") != "repository:team/m:pull" || r.URL.Query().Get("service") != "it, self" {
				t.Errorf("token: asked for %v", r.URL.Query())
			}
			if r.Header.Get("Authorization") != "Basic "+proof {
				refuse(w, "Basic")
				return
			}
			tokens++
			_, _ = io.WriteString(w, `{"access_token":"abc","expires_in":300}`)
		case r.Header.Get("Authorization") != "Bearer abc":
			refuse(w, fmt.Sprintf(`Bearer realm="%s/token",service="it, self",scope="repository:everything:*"`, h.URL))
		default:
			give(w)
		}
	})
	c := newClient(t, remote.Config{})
	for what, h := range map[string]*host{"basic": basic, "bearer": bearer} {
		for range 2 {
			if m, err := c.Manifest(t.Context(), h.name(), "team/m", "1", login); err != nil || string(m.Raw) != "{}" || m.MediaType != manifestType {
				t.Errorf("%s: got %+v, %v", what, m, err)
			}
		}
		for _, who := range []remote.Login{{}, remote.NewLogin("ann", "wrong-one")} {
			_, err := c.Manifest(t.Context(), h.name(), "team/m", "1", who)
			if !errors.Is(err, remote.ErrUnauthorized) || !strings.Contains(err.Error(), "UNAUTHORIZED: authentication  required") || remote.Again(err) {
				t.Errorf("%s as %v: got %v", what, who, err)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, who, who), "wrong-one") {
				t.Errorf("%s: the password is shown: %v", what, err)
			}
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens were asked for, want 1", tokens)
	}
}

func TestPasswordsGoNowhereElse(t *testing.T) {
	thief := newHost(t, func(_ *host, w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/token") {
			_, _ = io.WriteString(w, `{"token":"abc"}`)
			return
		}
		refuse(w, "Basic")
	})
	// The same machine under another name is another host.
	elsewhere := strings.Replace(thief.URL, "127.0.0.1", "localhost", 1)
	tests := map[string]struct {
		challenge, redirect string
		says                string
	}{
		"a realm on another site":        {challenge: `Bearer realm="https://thief.example/token"`, says: "thief.example, which is another site"},
		"a realm over plain http":        {challenge: `Bearer realm="` + elsewhere + `/token"`, says: "want a token service over https"},
		"a realm with a user":            {challenge: `Bearer realm="https://a:b@thief.example/"`, says: "want the address of a token service"},
		"a realm that is none":           {challenge: `Bearer realm="token"`, says: "want the address of a token service"},
		"a realm in another scheme":      {challenge: `Bearer realm="file://thief.example/etc/passwd"`, says: "over https"},
		"a redirect":                     {challenge: "Basic", redirect: elsewhere + "/x", says: "401"},
		"a redirect to a scheme":         {challenge: "Basic", redirect: "ftp://thief.example/x", says: "is not followed"},
		"a redirect with a user":         {challenge: "Basic", redirect: "http://a:b@" + thief.name() + "/x", says: "is not followed"},
		"a mirror that asks for a login": {challenge: "Basic", says: "404"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			registry := newHost(t, func(_ *host, w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Header.Get("Authorization") == "":
					refuse(w, tt.challenge)
				case tt.redirect != "":
					http.Redirect(w, r, tt.redirect, http.StatusTemporaryRedirect)
				default:
					w.WriteHeader(http.StatusNotFound)
				}
			})
			c := newClient(t, remote.Config{Mirrors: map[string][]string{registry.name(): {thief.name() + "/mirror"}}})
			_, err := c.Manifest(t.Context(), registry.name(), "m", "1", login)
			if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "pass-word-1") {
				t.Errorf("got %v, want an error that says %q", err, tt.says)
			}
		})
	}
	if got := thief.asked(); strings.Contains(got, "Basic") || strings.Contains(got, "Bearer") {
		t.Errorf("the thief was told:\n%s", got)
	}
	if !strings.Contains(thief.asked(), "/v2/mirror/m/manifests/1") || !strings.Contains(thief.asked(), "/x") {
		t.Errorf("the thief was not even asked:\n%s", thief.asked())
	}
}

func TestMirrorsComeFirst(t *testing.T) {
	serve := func(words string) *host {
		return newHost(t, func(_ *host, w http.ResponseWriter, _ *http.Request) {
			if words == "" {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			_, _ = io.WriteString(w, words)
		})
	}
	origin, mirror, broken := serve("origin"), serve("mirror"), serve("")
	for what, tt := range map[string]struct {
		mirrors []string
		want    string
	}{
		"a mirror":           {[]string{mirror.name()}, "mirror"},
		"the second":         {[]string{broken.name(), mirror.name()}, "mirror"},
		"none that has it":   {[]string{broken.name(), "127.0.0.1:1"}, "origin"},
		"another registry's": {nil, "origin"},
	} {
		c := newClient(t, remote.Config{Mirrors: map[string][]string{origin.name(): tt.mirrors, "docker.io": {mirror.name()}}})
		if m, err := c.Manifest(t.Context(), origin.name(), "m", "1", login); err != nil || string(m.Raw) != tt.want {
			t.Errorf("%s: got %q, %v, want %q", what, m.Raw, err, tt.want)
		}
	}
}

// A proxy sees every request, so hosts can be told apart without DNS.
func TestHostsByTheirNames(t *testing.T) {
	seen := ""
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Method + " " + r.URL.String()
		if r.Method == http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		give(w)
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, remote.Config{Insecure: []string{"registry-1.docker.io", "registry.example:5000"}, Proxy: func(*http.Request) (*url.URL, error) { return at, nil }})
	for name, want := range map[[2]string]string{
		{"docker.io", "nginx"}:              "GET http://registry-1.docker.io/v2/library/nginx/manifests/1",
		{"index.docker.io", "team/m"}:       "GET http://registry-1.docker.io/v2/team/m/manifests/1",
		{"registry.example:5000", "m"}:      "GET http://registry.example:5000/v2/m/manifests/1",
		{"registry.example", "m"}:           "CONNECT //registry.example:443",
		{"mcr.microsoft.com", "k8se/quick"}: "CONNECT //mcr.microsoft.com:443",
		{"127.0.0.1.registry.example", "m"}: "CONNECT //127.0.0.1.registry.example:443",
		{"localhost.registry.example", "m"}: "CONNECT //localhost.registry.example:443",
	} {
		_, err := c.Manifest(t.Context(), name[0], name[1], "1", remote.Login{})
		if seen != want || (err == nil) != strings.HasPrefix(want, "GET") {
			t.Errorf("%s/%s: got %q, %v, want %q", name[0], name[1], seen, err, want)
		}
	}
	for server, want := range map[string]string{
		"https://index.docker.io/v1/": "docker.io", "Registry.Example": "registry.example", "http://r.example:5000/": "r.example:5000", "docker.io": "docker.io",
	} {
		if got := remote.Host(server); got != want {
			t.Errorf("host of %q: got %q, want %q", server, got, want)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token",service="r",scope="repository:x:pull"`)
	f.Add(`Basic realm="\"`)
	f.Add("Bearer realm=")
	f.Add("Bearer =,=,\"")
	challenge := ""
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Www-Authenticate"] = []string{challenge}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	f.Cleanup(h.Close)
	// Whatever a registry asks for, this client reaches only a proxy that does not respond.
	gone, err := url.Parse("http://127.0.0.1:1")
	if err != nil {
		f.Fatal(err)
	}
	self := strings.TrimPrefix(h.URL, "http://")
	f.Fuzz(func(t *testing.T, s string) {
		challenge = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, s)
		c := newClient(t, remote.Config{Proxy: func(r *http.Request) (*url.URL, error) {
			if r.URL.Host == self {
				return nil, nil
			}
			return gone, nil
		}})
		if _, err := c.Manifest(t.Context(), self, "m", "1", login); err == nil || strings.Contains(err.Error(), "pass-word-1") {
			t.Errorf("%q: got %v", s, err)
		}
	})
}
