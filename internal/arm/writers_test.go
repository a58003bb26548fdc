package arm_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/internal/arm"
	"penstock/internal/resource"
)

const (
	environmentPath = base + "/managedEnvironments/e" + version
	storagePath     = base + "/managedEnvironments/e/storages/models" + version
	groupPath       = "/subscriptions/" + subscription + "/resourceGroups/ml?api-version=2022-09-01"
)

// everything has one resource of each kind that users write.
func everything(t *testing.T, change ...func(*server, *arm.Config)) *server {
	t.Helper()
	s := start(t, change...)
	s.environment("e")
	s.app("chat", chat(nil))
	s.want(201, "PUT", jobPath+version, job(t, "work:1", nil)) // nothing here brings it to an end
	body, _ := upload(t, time.Hour, "chat.example.com")
	s.want(200, "PUT", certificates+"/site"+version, body)
	s.want(200, "PUT", storagePath, azureFile("a2V5", "ReadOnly"))
	s.want(200, "PUT", groupPath, `{"location":"koreacentral"}`)
	return s
}

// request sends a request from any goroutine.
func (s *server) request(method, path, body string, header ...string) (answer, error) {
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	return answer{resp.StatusCode, resp.Header, b.Bytes()}, err
}

// Clients that change parts of one resource at the same time never undo what another one wrote, and none is refused.
func TestConcurrentPatchesOfEveryKind(t *testing.T) {
	const writers = 10
	each := 10
	if os.Getenv("PENSTOCK_NIGHTLY") != "" {
		each = 1000
	}
	s := everything(t)
	generation := func(get func() (resource.Meta, error)) func() int64 {
		return func() int64 {
			m, err := get()
			if err != nil {
				t.Fatal(err)
			}
			return m.Generation
		}
	}
	id := resource.EnvironmentID(subscription, "ml", "e")
	for name, kind := range map[string]struct {
		path   string
		status int
		at     func() int64
	}{
		"app": {chatPath, 202, generation(func() (resource.Meta, error) {
			a, err := s.store.Apps().Get(t.Context(), resource.AppID(subscription, "ml", "chat"))
			return a.Meta, err
		})},
		"job": {jobPath + version, 202, generation(func() (resource.Meta, error) {
			j, err := s.store.Jobs().Get(t.Context(), resource.ID{Subscription: subscription, Group: "ml", Type: resource.TypeJob, Name: jobPath[strings.LastIndexByte(jobPath, '/')+1:]})
			return j.Meta, err
		})},
		"environment": {environmentPath, 202, generation(func() (resource.Meta, error) {
			e, err := s.store.Environments().Get(t.Context(), id)
			return e.Meta, err
		})},
		"certificate": {certificates + "/site" + version, 200, generation(func() (resource.Meta, error) {
			c, err := s.store.Certificates().Get(t.Context(), id.Child("certificates", "site"))
			return c.Meta, err
		})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := kind.at()
			began := time.Now()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					tag := fmt.Sprintf("writer-%d", w)
					for n := range each {
						a, err := s.request("PATCH", kind.path, fmt.Sprintf(`{"tags":{"%s":"%d"}}`, tag, n))
						if err != nil || a.status != kind.status {
							t.Errorf("%s, write %d: got %d %s %v, want %d", tag, n, a.status, a.body, err, kind.status)
							return
						}
						if a, err = s.request("GET", kind.path, ""); err != nil || !bytes.Contains(a.body, fmt.Appendf(nil, `"%s":"%d"`, tag, n)) {
							t.Errorf("%s, write %d is lost: %s %v", tag, n, a.body, err)
							return
						}
					}
				})
			}
			wg.Wait()
			if got := kind.at() - before; got != int64(writers*each) {
				t.Errorf("%d writes were stored, want %d", got, writers*each)
			}
			t.Logf("%d writes in %s", writers*each, time.Since(began))
		})
	}
}

// Of clients that replace the same version of a resource, one succeeds, and the others learn that it came first.
func TestOneWriteSucceedsForEachVersion(t *testing.T) {
	s := everything(t)
	certificate, _ := upload(t, time.Hour, "chat.example.com")
	for name, kind := range map[string]struct{ path, body string }{
		"app":         {chatPath, chat(nil)},
		"job":         {jobPath + version, job(t, "work:1", nil)},
		"environment": {environmentPath, `{"location":"koreacentral","properties":{}}`},
		"certificate": {certificates + "/site" + version, certificate},
		"storage":     {storagePath, azureFile("b3RoZXI=", "ReadOnly")},
		"group":       {groupPath, `{"location":"koreacentral"}`},
	} {
		t.Run(name, func(t *testing.T) {
			for round := range 5 {
				tag := s.want(200, "GET", kind.path, "").header.Get("ETag")
				if tag == "" {
					t.Fatal("no ETag")
				}
				var stored, refused atomic.Int32
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						switch a, err := s.request("PUT", kind.path, kind.body, "If-Match", tag); {
						case err != nil:
							t.Error(err)
						case a.status == 200, a.status == 201:
							stored.Add(1)
							if next := a.header.Get("ETag"); next == "" || next == tag {
								t.Errorf("the ETag after the write is %q, before it was %q", next, tag)
							}
						case a.status == http.StatusPreconditionFailed && bytes.Contains(a.body, []byte("PreconditionFailed")):
							refused.Add(1)
						default:
							t.Errorf("got %d %s", a.status, a.body)
						}
					})
				}
				wg.Wait()
				if stored.Load() != 1 || refused.Load() != 7 {
					t.Errorf("round %d: %d stored, %d refused; want 1 and 7", round, stored.Load(), refused.Load())
				}
			}
		})
	}
}

func TestPreconditions(t *testing.T) {
	s := everything(t)
	send := func(want int, method, path, body string, header ...string) answer {
		t.Helper()
		a, err := s.request(method, path, body, header...)
		if err != nil || a.status != want {
			t.Errorf("%s %s %v: got %d %s %v, want %d", method, path, header, a.status, a.body, err, want)
		}
		return a
	}
	certificate, _ := upload(t, time.Hour, "chat.example.com")
	for name, kind := range map[string]struct{ path, body string }{
		"app":         {chatPath, chat(nil)},
		"job":         {jobPath + version, job(t, "work:1", nil)},
		"environment": {environmentPath, `{"location":"koreacentral","properties":{}}`},
		"certificate": {certificates + "/site" + version, certificate},
		"storage":     {storagePath, azureFile("a2V5", "ReadOnly")},
		"group":       {groupPath, `{"location":"koreacentral"}`},
		"list":        {base + "/containerApps" + version, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tag := send(200, "GET", kind.path, "").header.Get("ETag")
			if a := send(304, "GET", kind.path, "", "If-None-Match", tag); len(a.body) > 0 || a.header.Get("ETag") != tag {
				t.Errorf("304 with %q, ETag %s", a.body, a.header.Get("ETag"))
			}
			send(304, "GET", kind.path, "", "If-None-Match", `"other", W/`+tag)
			send(200, "GET", kind.path, "", "If-None-Match", `"other"`)
			if kind.body == "" {
				return
			}
			send(412, "DELETE", kind.path, "", "If-Match", `"other"`)
			send(412, "PUT", kind.path, kind.body, "If-Match", `"other"`)
			send(412, "PUT", kind.path, kind.body, "If-None-Match", "*")
			send(412, "PUT", strings.Replace(kind.path, "?", "x?", 1), kind.body, "If-Match", "*")
		})
	}
	send(412, "PUT", chatPath, chat(nil), "If-None-Match", "*")
	send(412, "PATCH", chatPath, `{"tags":{"a":"b"}}`, "If-Match", `"other"`)
	tag := send(200, "GET", chatPath, "").header.Get("ETag")
	next := send(202, "PATCH", chatPath, `{"tags":{"a":"b"}}`, "If-Match", tag).header.Get("ETag")
	send(412, "PATCH", chatPath, `{"tags":{"a":"c"}}`, "If-Match", tag)
	// The platform goes on with the app; that is no write of a client.
	s.await(send(202, "PATCH", chatPath, `{"tags":{"a":"c"}}`, "If-Match", next), "Location")
	send(201, "PUT", base+"/containerApps/new"+version, chat(nil), "If-None-Match", "*")
	last := send(200, "GET", chatPath, "").header.Get("ETag")
	send(202, "DELETE", chatPath, "", "If-Match", last)
}

// What an app names cannot be deleted while the app is written.
func TestNothingNamesWhatIsDeleted(t *testing.T) {
	rounds := 20
	s := everything(t)
	body, _ := upload(t, time.Hour, "own.example.com")
	named := chat(func(properties, template, container map[string]any) {
		ingress := properties["configuration"].(map[string]any)["ingress"].(map[string]any)
		ingress["customDomains"] = []any{map[string]any{"name": "own.example.com", "bindingType": "SniEnabled", "certificateId": certificates + "/own"}}
		template["volumes"] = []any{map[string]any{"name": "v", "storageType": "AzureFile", "storageName": "shared"}}
		container["volumeMounts"] = []any{map[string]any{"volumeName": "v", "mountPath": "/v"}}
	})
	app := resource.AppID(subscription, "ml", "named")
	shared := strings.Replace(storagePath, "models", "shared", 1)
	for range rounds {
		s.want(200, "PUT", certificates+"/own"+version, body)
		s.want(200, "PUT", shared, azureFile("a2V5", "ReadOnly"))
		var wg sync.WaitGroup
		try := func(method, path, body string) {
			pause := time.Duration(rand.N(3 * time.Millisecond))
			wg.Go(func() {
				time.Sleep(pause)
				if _, err := s.request(method, path, body); err != nil {
					t.Error(err)
				}
			})
		}
		try("PUT", base+"/containerApps/named"+version, named)
		try("DELETE", certificates+"/own"+version, "")
		try("DELETE", shared, "")
		wg.Wait()
		if _, err := s.store.Apps().Get(t.Context(), app); errors.Is(err, resource.ErrNotFound) {
			continue
		}
		s.want(200, "GET", certificates+"/own"+version, "")
		s.want(200, "GET", shared, "")
		s.await(s.want(202, "DELETE", base+"/containerApps/named"+version, ""), "Location")
	}
}
