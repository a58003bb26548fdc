package arm_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"penstock/internal/arm"
	"penstock/internal/resource"
)

// meanwhile calls do whenever the digest of an image is needed.
type meanwhile struct {
	arm.Images
	do func(ref string)
}

func (m meanwhile) Digest(ctx context.Context, keys resource.Keyring, ref string) (string, error) {
	m.do(ref)
	return m.Images.Digest(ctx, keys, ref)
}

// While a PATCH waits for the check of its images, another PATCH may be stored. Both take effect.
func TestPatchIsMergedAgainAfterAnotherWrite(t *testing.T) {
	var once sync.Once
	s := start(t, func(s *server, cfg *arm.Config) {
		cfg.Images = meanwhile{cfg.Images, func(ref string) {
			if ref == "chat:2" {
				once.Do(func() { s.want(http.StatusAccepted, "PATCH", chatPath, `{"tags":{"team":"ml"}}`) })
			}
		}}
	})
	s.environment("e")
	s.app("chat", chat(nil))
	a := s.await(s.want(http.StatusAccepted, "PATCH", chatPath,
		`{"properties":{"template":{"containers":[{"name":"chat","image":"chat:2","resources":{"cpu":0.5,"memory":"1Gi"}}]}}}`), "Location")
	if got := a.get(t, "tags", "team"); got != "ml" {
		t.Errorf("tag of the PATCH that came between: got %v, want ml", got)
	}
	if got := a.get(t, "properties", "template", "containers", 0, "image"); got != "chat:2" {
		t.Errorf("image: got %v, want chat:2", got)
	}
}

func TestConcurrentPatchesAllTakeEffect(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	const writers = 12
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), "PATCH", s.URL+chatPath, strings.NewReader(fmt.Sprintf(`{"tags":{"writer-%d":"was here"}}`, i)))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Authorization", "Bearer "+token)
			resp, err := s.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted {
				t.Errorf("writer %d: got %d, want 202", i, resp.StatusCode)
			}
		})
	}
	wg.Wait()
	a := s.want(200, "GET", chatPath, "")
	for i := range writers {
		if got := a.get(t, "tags", fmt.Sprintf("writer-%d", i)); got != "was here" {
			t.Errorf("the tag of writer %d: got %v", i, got)
		}
	}
}

func TestAPatchWithAFieldTwiceIsRefused(t *testing.T) {
	s := start(t)
	s.environment("e")
	s.app("chat", chat(nil))
	for body, field := range map[string]string{
		`{"tags":{"a":"1"},"tags":{"b":"2"}}`:                                                      "tags",
		`{"properties":{"template":{"scale":{"minReplicas":1,"MinReplicas":2}}}}`:                  "template.scale.MinReplicas",
		`{"properties":{"template":{"containers":[{"name":"chat","image":"a:1","image":"b:1"}]}}}`: "template.containers[0].image",
	} {
		a := s.want(400, "PATCH", chatPath, body)
		if a.get(t, "error", "code") != "InvalidRequestContent" || a.get(t, "error", "target") != field || !strings.Contains(string(a.body), "is given twice") {
			t.Errorf("%s: got %s, want a fault of %s", body, a.body, field)
		}
	}
	s.want(400, "PATCH", chatPath, `[]`)
	s.want(400, "PATCH", chatPath, `{`)
}
