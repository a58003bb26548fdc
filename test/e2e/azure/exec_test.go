package azure_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// dial opens a replica's exec endpoint as az containerapp exec does.
func dial(ctx context.Context, t *testing.T, target target, endpoint, token, command string) (*websocket.Conn, int) {
	t.Helper()
	conn, answer, err := websocket.Dial(ctx, endpoint+"?command="+url.QueryEscape(command), &websocket.DialOptions{
		HTTPClient: target.Client, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}, "Origin": {target.Endpoint}},
	})
	if err != nil && answer == nil {
		t.Fatal(err)
	}
	return conn, answer.StatusCode
}

// A terminal over the endpoint that the SDK reads, with the token that the SDK asks for, in the messages of az.
func TestExecAsAz(t *testing.T) {
	target := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	clients := target.azure(t)
	apps := clients.NewContainerAppsClient()
	environment := environment(ctx, t, clients.NewManagedEnvironmentsClient(), "e2e")
	written := put(ctx, t, apps, "e2e-echo", app(environment, target.image))
	put(ctx, t, apps, "e2e-other", app(environment, target.image))
	replicas, err := clients.NewContainerAppsRevisionReplicasClient().ListReplicas(ctx, group, "e2e-echo", *written.Properties.LatestReadyRevisionName, nil)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := *replicas.Value[0].Properties.Containers[0].ExecEndpoint
	if !strings.HasPrefix(endpoint, "wss://") || !strings.HasSuffix(endpoint, "/containers/main/exec") {
		t.Fatalf("exec endpoint %q", endpoint)
	}
	tokenOf := func(name string) string {
		answer, err := apps.GetAuthToken(ctx, group, name, nil)
		if err != nil {
			t.Fatal(err)
		}
		return *answer.Properties.Token
	}
	token := tokenOf("e2e-echo")

	conn, _ := dial(ctx, t, target, endpoint, token, "size and more words")
	if err := conn.Write(ctx, websocket.MessageBinary, []byte("\x00\x04"+`{"Width": 132, "Height": 43}`)); err != nil {
		t.Fatal(err)
	}
	if kind, b, err := conn.Read(ctx); err != nil || kind != websocket.MessageBinary || string(b) != "\x00\x01132x43\n" {
		t.Errorf("the size: got %q, %v", b, err)
	}
	end(ctx, t, conn, websocket.StatusNormalClosure, "exit 0")

	conn, _ = dial(ctx, t, target, endpoint, token, "cat")
	for _, key := range []string{"h", "i"} {
		if err := conn.Write(ctx, websocket.MessageBinary, []byte("\x00\x00"+key)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := conn.Read(ctx); err != nil || string(b) != "\x00\x01"+key {
			t.Errorf("the echo of %s: got %q, %v", key, b, err)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}

	conn, _ = dial(ctx, t, target, endpoint, token, "nowhere")
	if _, b, err := conn.Read(ctx); err != nil || b[0] != 2 || !strings.Contains(string(b), "not found") {
		t.Errorf("a program that is not there: got %q, %v", b, err)
	}
	end(ctx, t, conn, websocket.StatusInternalError, "the command was not run")

	conn, _ = dial(ctx, t, target, endpoint, token, "cat")
	if err := conn.Write(ctx, websocket.MessageBinary, []byte("\x09?")); err != nil {
		t.Fatal(err)
	}
	end(ctx, t, conn, websocket.StatusUnsupportedData, "a message of an unknown kind")

	for name, refused := range map[string]struct {
		endpoint, token, command string
		want                     int
	}{
		"another app's token": {endpoint, tokenOf("e2e-other"), "cat", http.StatusUnauthorized},
		"no command":          {endpoint, token, " ", http.StatusBadRequest},
		"no such container":   {strings.Replace(endpoint, "/main/", "/nobody/", 1), token, "cat", http.StatusNotFound},
		"no such replica":     {strings.Replace(endpoint, *replicas.Value[0].Name, "nobody", 1), token, "cat", http.StatusNotFound},
	} {
		if _, status := dial(ctx, t, target, refused.endpoint, refused.token, refused.command); status != refused.want {
			t.Errorf("%s: got %d, want %d", name, status, refused.want)
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https"+strings.TrimPrefix(endpoint, "wss")+"?command=cat", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := target.Client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("without a handshake: got %d, want %d", answer.StatusCode, http.StatusUpgradeRequired)
	}
	for _, name := range []string{"e2e-other"} {
		deleting, err := apps.BeginDelete(ctx, group, name, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := deleting.PollUntilDone(ctx, often); err != nil {
			t.Fatal(err)
		}
	}
	remove(ctx, t, clients)
}

// end reads to the end of a connection.
func end(ctx context.Context, t *testing.T, conn *websocket.Conn, status websocket.StatusCode, reason string) {
	t.Helper()
	for {
		_, b, err := conn.Read(ctx)
		if err == nil {
			t.Logf("more: %q", b)
			continue
		}
		if got, ok := errors.AsType[websocket.CloseError](err); !ok || got.Code != status || got.Reason != reason {
			t.Errorf("the end: got %v, want %d %q", err, status, reason)
		}
		return
	}
}
