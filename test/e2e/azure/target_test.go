package azure_test

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
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
	"penstock/test/penstocktest"
)

const subscription = "00000000-0000-0000-0000-000000000000"

// target is a server under test.
type target struct {
	penstocktest.API
	image string // of the app that the tests make
	// Of a server that was started here: its folders, and a way to end it and get what it has logged.
	folders []string
	stop    func() string
}

// open finds the server that the environment names, or starts one.
func open(t *testing.T) target {
	t.Helper()
	if endpoint := os.Getenv("PENSTOCK_ENDPOINT"); endpoint != "" {
		return target{
			API:   penstocktest.Reach(t, endpoint, os.Getenv("PENSTOCK_TOKEN"), os.Getenv("PENSTOCK_CA")),
			image: cmp.Or(os.Getenv("PENSTOCK_IMAGE"), "langdetect:latest"),
		}
	}
	return start(t)
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
			Data: data, State: state, Instance: "e2e", ARM: api, Link: link,
			Public: server.Public{Domain: "penstock.localhost"}, Engine: server.EngineOptions{Runtime: "fake"}, Capacity: server.CapacityOptions{Overcommit: 1},
			Log:   slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), &logged), &slog.HandlerOptions{Level: slog.LevelDebug})),
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
	case <-time.After(time.Minute):
		t.Fatal("the server was not ready within a minute")
	}
	token, err := os.ReadFile(filepath.Join(data, "token"))
	if err != nil {
		t.Fatal(err)
	}
	return target{
		API:   penstocktest.Reach(t, "https://"+api.Addr().String(), string(token), filepath.Join(data, "pki", "ca.pem")),
		image: fake.Echo, folders: []string{data, state}, stop: stop,
	}
}

// GetToken makes a target the credential of the SDK's clients.
func (to target) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: to.Token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// azure returns the SDK's clients of Container Apps, pointed at the target.
func (to target) azure(t *testing.T) *armappcontainers.ClientFactory {
	t.Helper()
	clients, err := armappcontainers.NewClientFactory(subscription, to, &arm.ClientOptions{ClientOptions: policy.ClientOptions{
		Cloud: cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: to.Endpoint, Audience: to.Endpoint},
		}},
		Transport: to.Client,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return clients
}
