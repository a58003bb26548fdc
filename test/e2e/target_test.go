package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"

	"penstock/internal/runtimes/fake"
	"penstock/internal/server"
)

const subscription = "00000000-0000-0000-0000-000000000000"

// target is a server under test.
type target struct {
	endpoint string
	token    string
	image    string // of the app that the tests make
	client   *http.Client
	// Of a server that was started here: its folders, and a way to end it and get what it has logged.
	folders []string
	stop    func() string
}

// open finds the server that the environment names, or starts one.
func open(t *testing.T) target {
	t.Helper()
	if endpoint := os.Getenv("PENSTOCK_ENDPOINT"); endpoint != "" {
		return reach(t, target{
			endpoint: strings.TrimSuffix(endpoint, "/"),
			token:    os.Getenv("PENSTOCK_TOKEN"),
			image:    cmp.Or(os.Getenv("PENSTOCK_IMAGE"), "langdetect:latest"),
		}, os.Getenv("PENSTOCK_CA"))
	}
	return start(t)
}

// reach gives the target a client that trusts the server's certificate authority.
func reach(t *testing.T, to target, caFile string) target {
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
	to.client = &http.Client{Transport: transport}
	return to
}

// start runs a server's control role in this process until the test ends.
func start(t *testing.T) target {
	t.Helper()
	data, state := t.TempDir(), t.TempDir()
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link, err := net.Listen("unix", filepath.Join(state, "link"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan struct{}), make(chan error, 1)
	var logged bytes.Buffer // slog writes one line at a time
	go func() {
		ended <- server.RunControl(ctx, server.ControlOptions{
			Data: data, State: state, Instance: "e2e", ARM: api, Link: link, Domain: "penstock.localhost",
			Runtime: "fake", Overcommit: 1, Log: slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), &logged), &slog.HandlerOptions{Level: slog.LevelDebug})),
			Ready: func() { close(ready) }, Stop: cancel,
		})
	}()
	stop := sync.OnceValue(func() string {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with: %v", err)
		}
		return logged.String()
	})
	t.Cleanup(func() { stop() })
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("the server did not start: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the server was not ready within 30 seconds")
	}
	token, err := os.ReadFile(filepath.Join(data, "token"))
	if err != nil {
		t.Fatal(err)
	}
	to := target{endpoint: "https://" + api.Addr().String(), token: strings.TrimSpace(string(token)), image: fake.Echo, folders: []string{data, state}, stop: stop}
	return reach(t, to, filepath.Join(data, "pki", "ca.pem"))
}

// GetToken makes a target the credential of the SDK's clients.
func (to target) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: to.token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// azure returns the SDK's clients of Container Apps, pointed at the target.
func (to target) azure(t *testing.T) *armappcontainers.ClientFactory {
	t.Helper()
	clients, err := armappcontainers.NewClientFactory(subscription, to, &arm.ClientOptions{ClientOptions: policy.ClientOptions{
		Cloud: cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: to.endpoint, Audience: to.endpoint},
		}},
		Transport: to.client,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return clients
}
