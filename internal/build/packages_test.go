package build_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"penstock/internal/build"
)

// Only the build itself can use the proxy, and only to read.
func TestPackageProxyIsForTheBuildAlone(t *testing.T) {
	archive := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "list") }))
	defer archive.Close()
	text, end, err := build.PackageProxy(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	right, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	wrong, none := *right, *right
	wrong.User, none.User = url.UserPassword("build", "guess"), nil
	for what, tt := range map[string]struct {
		proxy        *url.URL
		method, path string
		want         int
	}{
		"the build":       {right, "GET", "/dists/InRelease", 200},
		"no password":     {&none, "GET", "/dists/InRelease", 407},
		"another one":     {&wrong, "GET", "/dists/InRelease", 407},
		"a write":         {right, "POST", "/dists/InRelease", 403},
		"no proxy at all": {nil, "GET", "", 403},
	} {
		transport := &http.Transport{DisableKeepAlives: true}
		target := archive.URL + tt.path
		if tt.proxy != nil {
			transport.Proxy = http.ProxyURL(tt.proxy)
		} else {
			target = "http://" + right.Host + "/pool/a.deb"
		}
		r, err := http.NewRequestWithContext(t.Context(), tt.method, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.proxy == nil {
			password, _ := right.User.Password()
			r.SetBasicAuth("build", password)
			r.Header["Proxy-Authorization"] = r.Header["Authorization"]
		}
		resp, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s: got %s, want %d", what, resp.Status, tt.want)
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

func FuzzToolMessages(f *testing.F) {
	f.Add([]byte("I: extracting archives...\n0 upgraded, 58 newly installed, 0 to remove\nUnpacking libc6:amd64 (2) ...\nSetting up x ...\n"))
	f.Add([]byte("999999999999999999999 upgraded, 99999999999999999999 newly installed\nUnpacking a\r\n"))
	f.Add(bytes.Repeat([]byte("Unpacking "), 1000))
	f.Fuzz(func(t *testing.T, said []byte) {
		for _, detail := range build.ToolDetails(said) {
			if strings.Contains(detail, "\n") || len(detail) > 2<<10 {
				t.Errorf("got %q, want one line", detail)
			}
		}
	})
}
