package arm_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"penstock/internal/arm"
)

// A client logs in as Microsoft's libraries do: it finds the token's address, and has the server's token as its secret.
func TestLogin(t *testing.T) {
	log := &record{}
	s := start(t, func(_ *server, cfg *arm.Config) {
		cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for authority, wantToken := range map[string]string{
		"/adfs":                           "/adfs/oauth2/token",
		"/" + subscription + "/v2.0":      "/" + subscription + "/oauth2/v2.0/token",
		"/adfs/" + subscription + "/v2.0": "/adfs/" + subscription + "/oauth2/v2.0/token",
	} {
		a := s.open("GET", authority+"/.well-known/openid-configuration", "")
		if a.status != 200 || a.get(t, "issuer") != s.URL+authority || a.get(t, "token_endpoint") != s.URL+wantToken || a.get(t, "authorization_endpoint") == nil {
			t.Errorf("%s: %d %s", authority, a.status, a.body)
		}
		a = s.open("POST", wantToken, url.Values{
			"grant_type": {"client_credentials"}, "client_id": {subscription}, "client_secret": {token}, "scope": {"https://x/.default"},
		}.Encode())
		if a.status != 200 || a.get(t, "token_type") != "Bearer" || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %s", wantToken, a.status, a.body)
		}
		r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/subscriptions?api-version=2019-11-01", nil)
		r.Header.Set("Authorization", fmt.Sprintf("Bearer %v", a.get(t, "access_token")))
		if a := s.send(r); a.status != 200 {
			t.Errorf("the token is refused: %d %s", a.status, a.body)
		}
	}
	basic, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/adfs/oauth2/token", strings.NewReader("grant_type=client_credentials"))
	basic.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	basic.SetBasicAuth(subscription, token)
	if a := s.send(basic); a.status != 200 {
		t.Errorf("the secret as a password: %d %s", a.status, a.body)
	}
	for name, test := range map[string]struct {
		body, want string
		status     int
	}{
		"a wrong secret":              {"grant_type=client_credentials&client_secret=" + token + "0", "invalid_client", 401},
		"no secret":                   {"grant_type=client_credentials", "invalid_client", 401},
		"the password of a person":    {"grant_type=password&username=kim&password=" + token, "unsupported_grant_type", 400},
		"no form":                     {`{"client_secret":"` + token + `"}`, "unsupported_grant_type", 400},
		"a broken form":               {"grant_type=%zz", "invalid_request", 400},
		"a body of a million letters": {"client_secret=" + strings.Repeat("x", 1<<20), "invalid_request", 413},
	} {
		a := s.open("POST", "/adfs/oauth2/token", test.body)
		if a.status != test.status || a.get(t, "error") != test.want || strings.Contains(string(a.body), token) {
			t.Errorf("%s: %d %s, want %d %s", name, a.status, a.body, test.status, test.want)
		}
	}
	// A secret in an address would be in the logs of proxies.
	if a := s.open("POST", "/adfs/oauth2/token?client_secret="+token, "grant_type=client_credentials"); a.status != 401 {
		t.Errorf("a secret in the address: %d %s", a.status, a.body)
	}
	if log.has(token) {
		t.Error("the token is in the log")
	}
}

// Without a token a client learns the server's own address, and nothing else.
func TestWithoutATokenNothingIsTold(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	cloud := s.open("GET", "/metadata/endpoints?api-version=2022-09-01", "")
	if cloud.status != 200 || cloud.get(t, "resourceManager") != s.URL || cloud.get(t, "authentication", "loginEndpoint") != s.URL+"/adfs" {
		t.Errorf("metadata: %d %s", cloud.status, cloud.body)
	}
	if a := s.open("GET", "/metadata/endpoints?api-version=2019-05-01", ""); a.status != 200 || a.get(t, 0, "authentication", "audiences", 0) != s.URL {
		t.Errorf("metadata of az: %d %s", a.status, a.body)
	}
	s.open("GET", "/metadata/endpoints", "")
	for _, rt := range []struct{ method, path string }{
		{"GET", "/subscriptions" + version}, {"GET", chatPath}, {"GET", base + "/containerApps" + version}, {"POST", chatBase + "/listSecrets" + version},
		{"GET", "/" + version}, {"GET", "/nothing/here" + version}, {"GET", "/adfs/oauth2/token"}, {"POST", "/adfs/.well-known/openid-configuration"},
		{"PUT", "/metadata/endpoints" + version}, {"GET", "/adfs" + version}, {"GET", "/a/b/c/.well-known/openid-configuration"},
		{"GET", "/subscriptions/" + subscription + "/providers" + version},
	} {
		if a := s.open(rt.method, rt.path, ""); a.status != 401 || strings.Contains(string(a.body), "chat") {
			t.Errorf("%s %s: %d %s", rt.method, rt.path, a.status, a.body)
		}
	}
}

// open sends a request, a form if it has a body, without a token.
func (s *server) open(method, path, body string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return s.send(r)
}

// record keeps what is written.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

var _ io.Writer = (*record)(nil)

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) has(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.text.String(), s)
}
