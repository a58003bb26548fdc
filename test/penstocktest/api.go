package penstocktest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// API is a server's management API: where it is, what to log in with, and a client that trusts its certificate.
type API struct {
	Endpoint string
	Token    string
	Client   *http.Client
}

// Reach returns an API whose client trusts the certificate authority in caFile.
func Reach(t *testing.T, endpoint, token, caFile string) API {
	t.Helper()
	ca, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatalf("certificate authority: %v", err)
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(ca) {
		t.Fatalf("certificate authority: no certificate in %s", caFile)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}
	t.Cleanup(transport.CloseIdleConnections)
	return API{Endpoint: strings.TrimSuffix(endpoint, "/"), Token: strings.TrimSpace(token), Client: &http.Client{Transport: transport}}
}

// API returns the server's management API, found as the command line finds it.
func (m *Machine) API(t *testing.T) API {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.Data, "client.json"))
	if err != nil {
		t.Fatal(err)
	}
	var connection struct{ Endpoint, CA, TokenFile string }
	if err := json.Unmarshal(b, &connection); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(connection.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return Reach(t, connection.Endpoint, string(token), connection.CA)
}

// call sends a request and decodes the answer, which must be a success.
func (a API) call(t *testing.T, method, path, body string, answer any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, a.Endpoint+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+a.Token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := a.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, said, err)
	}
	if err := json.Unmarshal(said, answer); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, said)
	}
}

func (a API) get(t *testing.T, path string, answer any) {
	t.Helper()
	a.call(t, http.MethodGet, path, "", answer)
}

// EnvironmentPath returns the resource ID of an environment of the default resource group.
func EnvironmentPath(name string) string {
	return "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default/providers/Microsoft.App/managedEnvironments/" + name
}

// Environment makes an environment, waits until it is ready, and returns its domain.
func (m *Machine) Environment(t *testing.T, name string) string {
	t.Helper()
	api, path := m.API(t), EnvironmentPath(name)+"?api-version=2025-01-01"
	var doc struct {
		Properties struct{ DefaultDomain, ProvisioningState string }
	}
	api.call(t, http.MethodPut, path, `{"location":"local","properties":{}}`, &doc)
	Until(t, time.Minute, "the environment is ready", func() bool {
		api.get(t, path, &doc)
		return doc.Properties.ProvisioningState == "Succeeded"
	})
	return doc.Properties.DefaultDomain
}

// Inside lets an app (made from examples/hello) fetch a URL, with a Host header of its own if host is set.
func (m *Machine) Inside(t *testing.T, app, to, host string) (status int, answer string) {
	t.Helper()
	return m.Ask(t, http.MethodGet, app, "/get?"+url.Values{"url": {to}, "host": {host}}.Encode(), "")
}

// Gateway returns the address through which a replica of the app reaches everything else.
func (m *Machine) Gateway(t *testing.T, app string) string {
	t.Helper()
	status, conf := m.Ask(t, http.MethodGet, app, "/file?path=/etc/resolv.conf", "")
	fields := strings.Fields(conf)
	if status != http.StatusOK || len(fields) < 2 || fields[0] != "nameserver" {
		t.Fatalf("resolv.conf of %s: %d %q", app, status, conf)
	}
	return fields[1]
}
