package local_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
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

func (v *vault) secrets(_ context.Context, app resource.ID) (map[string]resource.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := map[string]resource.Secret{}
	for name, value := range v.values {
		if app.Base() == "web" {
			all[name] = resource.Secret(value)
		}
	}
	return all, nil
}

// crash requests the path on which a replica ends without an answer.
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
	with := func(c *local.Config) { c.Secrets = secrets.secrets }
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
	ended(3) // it still has the value with which it was started
	secrets.set("exit", "")
	b.restart(t, with) // an adopted container keeps its value
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

// text returns the content of a file in a replica.
func text(t *testing.T, r resource.Replica, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + netip.AddrPortFrom(r.Address, 8080).String() + "/file?path=" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return resp.Status
	}
	return string(b)
}

func TestSecretsAsFilesFollowTheirValues(t *testing.T) {
	secrets := &vault{values: map[string]string{"key": "one", "cert": "first"}}
	with := func(c *local.Config) { c.Secrets = secrets.secrets }
	b := setUp(t, with)
	w := web(1)
	w.Revision.Template.Volumes = []resource.Volume{
		{Name: "all", Type: resource.SecretFiles},
		{Name: "some", Type: resource.SecretFiles, Secrets: []resource.SecretFile{{Secret: "key", Path: "tls/key.pem"}}},
	}
	w.Revision.Template.Containers[0].Mounts = []resource.VolumeMount{{Volume: "all", Path: "/all"}, {Volume: "some", Path: "/some"}}
	b.apply(t, w)
	r := b.ready(t, 1)[0]
	has := func(when string, files map[string]string) {
		t.Helper()
		for path, want := range files {
			var got string
			b.until(t, when+": "+path+" is "+want, func([]resource.Replica) bool {
				got = text(t, r, path)
				return got == want
			})
		}
	}
	const none = "404 Not Found"
	has("at first", map[string]string{"/all/key": "one", "/all/cert": "first", "/some/tls/key.pem": "one", "/some/key": none, "/some/cert": none})

	secrets.set("key", "two")
	secrets.set("cert", "")
	secrets.set("new", "more")
	b.apply(t, w)
	has("changed", map[string]string{"/all/key": "two", "/all/cert": none, "/all/new": "more", "/some/tls/key.pem": "two"})
	b.events.want(t, "SecretVolumeUpdated", "Volume 'some'")

	secrets.set("key", "")
	b.apply(t, w)
	has("removed", map[string]string{"/all/key": none, "/some/tls/key.pem": "two"})
	b.until(t, "an event", func([]resource.Replica) bool {
		_, found := b.events.find("SecretVolumeNotUpdated", `secret "key" of app web: not found`)
		return found
	})
	told := len(b.events.all())
	b.apply(t, w)
	b.apply(t, w)
	secrets.set("key", "three")
	b.restart(t, with) // the secrets changed while the platform was down
	has("after a restart of the platform", map[string]string{"/all/key": "three", "/some/tls/key.pem": "three"})
	for _, ev := range b.events.all()[told:] {
		if ev.Reason == "SecretVolumeNotUpdated" {
			t.Errorf("told again: %s", ev.Message)
		}
	}
	if list := b.list(t); list[0].Name != r.Name || list[0].Restarts > 0 || list[0].Containers[0].PID != r.Containers[0].PID {
		t.Errorf("the replica was restarted: %+v", list[0])
	}
}

// A secret can have any characters: its value is not searched for references, but what refers to it gets it.
func TestASecretIsNotExpanded(t *testing.T) {
	const password = "pa$$(USER)$(word"
	secrets := &vault{values: map[string]string{"password": password}}
	b := setUp(t, func(c *local.Config) { c.Secrets = secrets.secrets })
	w := web(1)
	template := &w.Revision.Template
	template.Volumes = []resource.Volume{{Name: "out", Type: resource.EmptyDir}}
	mounts := []resource.VolumeMount{{Volume: "out", Path: "/out"}}
	template.Containers[0].Mounts = mounts
	template.InitContainers = []resource.Container{{
		Name: "init", Image: fake.Write, Mounts: mounts, Resources: template.Containers[0].Resources,
		Env: []resource.EnvVar{
			{Name: "USER", Value: "ann"}, {Name: "PASSWORD", SecretRef: "password"}, {Name: "URL", Value: "$(USER):$(PASSWORD)@db"},
		},
		Args: []string{"/out/url", "$(URL) $(PASSWORD)"},
	}}
	b.apply(t, w)
	want := "ann:" + password + "@db " + password
	if got := text(t, b.ready(t, 1)[0], "/out/url"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
