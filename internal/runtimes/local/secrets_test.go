package local_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// vault holds the secrets of all apps.
type vault struct {
	mu     sync.Mutex
	values map[string]string
}

func (v *vault) set(name, value string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.values[name] = value
	if value == "" {
		delete(v.values, name)
	}
}

func (v *vault) secret(_ context.Context, app resource.ID, name string) (resource.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	value, ok := v.values[name]
	if !ok || app.Base() != "web" {
		return "", fmt.Errorf("secret %q of app %s: %w", name, app.Base(), resource.ErrNotFound)
	}
	return resource.Secret(value), nil
}

// crash asks a replica for the path that ends it, which it does not answer.
func crash(t *testing.T, replica resource.Replica) {
	t.Helper()
	resp, err := http.Get("http://" + netip.AddrPortFrom(replica.Address, 8080).String() + "/crash")
	if err == nil {
		resp.Body.Close()
		t.Errorf("the replica answered %s instead of ending", resp.Status)
	}
}

func TestASecretIsReadAtEachStartAndKeptNowhere(t *testing.T) {
	secrets := &vault{values: map[string]string{"exit": "3"}}
	with := func(c *local.Config) { c.Secret = secrets.secret }
	b := setUp(t, with)
	w := web(1, resource.EnvVar{Name: "FAKE_EXIT_CODE", SecretRef: "exit"}, resource.EnvVar{Name: "FAKE_CRASH_ON", Value: "/crash"})
	b.apply(t, w)
	replica := b.ready(t, 1)[0]
	ended := func(code int) {
		t.Helper()
		crash(t, replica)
		b.until(t, fmt.Sprintf("a start after an end with code %d", code), func(list []resource.Replica) bool {
			c := list[0].Containers[0]
			return list[0].State == resource.ReplicaReady && c.LastExit != nil && c.LastExit.Code == code
		})
	}
	secrets.set("exit", "4")
	ended(3) // it still has the value that it was started with
	secrets.set("exit", "")
	b.restart(t, with) // what is adopted goes on
	crash(t, replica)
	b.until(t, "a replica that cannot be started", func(list []resource.Replica) bool {
		return list[0].State == resource.ReplicaWaiting && strings.Contains(list[0].Reason, `variable FAKE_EXIT_CODE: secret "exit" of app web: not found`)
	})
	secrets.set("exit", "55")
	b.ready(t, 1)
	ended(55)

	list, err := b.driver.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(list, func(s local.SandboxStatus) bool { return bytes.Contains(s.Record, []byte(`"55"`)) }) {
		t.Error("the sandbox's record has the value")
	}
}
