package cli

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedText is what several goroutines have written.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *lockedText) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

// take returns the text and forgets it.
func (w *lockedText) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.b.String()
	w.b.Reset()
	return text
}

// While an app is not ready, up is never silent for longer than 30 s. Only the steps have a clock that a test can move.
func TestUpIsNeverSilentForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedText
		s := &steps{out: &out, began: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.remind(ctx) })
		event := func(text string) {
			if err := s.take(json.RawMessage(text)); err != nil {
				t.Fatal(err)
			}
		}
		said := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := out.take(); got != want {
				t.Errorf("after %v: got %q, want %q", time.Since(s.began), got, want)
			}
		}
		time.Sleep(29 * time.Second)
		said("")
		time.Sleep(2 * time.Second)
		said("  still waiting after 30s; last: nothing has happened yet\n")
		time.Sleep(9 * time.Second)
		event(`{"Type":"Normal","Reason":"ContainerStarted","Msg":"Started container 'a'"}`)
		synctest.Wait()
		out.take()
		time.Sleep(28 * time.Second)
		said("")
		time.Sleep(3 * time.Second)
		said("  still waiting after 1m10s; last: Started container 'a'\n")
		event(`{"Type":"Warning","Reason":"ProbeFailed","Msg":"GET /healthz answered 404"}`)
		event(`{"Type":"Normal","Reason":"PulledImage","Msg":"another"}`)
		synctest.Wait()
		out.take()
		time.Sleep(95 * time.Second)
		said("  still waiting after 1m41s; last: GET /healthz answered 404\n  still waiting after 2m11s; last: GET /healthz answered 404\n  still waiting after 2m41s; last: GET /healthz answered 404\n")
		cancel()
		wg.Wait()
	})
}
