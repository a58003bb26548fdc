package cli

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/internal/build"
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

// While an app is not ready, up is never silent for longer than 5 s. Only the line has a clock that a test can move.
func TestUpIsNeverSilentForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedText
		line := &bar{out: &out}
		s := &steps{out: line, began: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { line.pulse(ctx, s.text) })
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
		time.Sleep(3800 * time.Millisecond)
		said("")
		time.Sleep(time.Second)
		said("  still waiting after 4s; last: nothing has happened yet\n")
		time.Sleep(2200 * time.Millisecond)
		event(`{"Type":"Normal","Reason":"ContainerStarted","Msg":"Started container 'a'"}`)
		synctest.Wait()
		out.take()
		time.Sleep(3800 * time.Millisecond)
		said("")
		time.Sleep(time.Second)
		said("  still waiting after 11s; last: Started container 'a'\n")
		event(`{"Type":"Warning","Reason":"ProbeFailed","Msg":"GET /healthz answered 404"}`)
		event(`{"Type":"Normal","Reason":"PulledImage","Msg":"another"}`)
		synctest.Wait()
		out.take()
		time.Sleep(13 * time.Second)
		said("  still waiting after 16s; last: GET /healthz answered 404\n  still waiting after 20s; last: GET /healthz answered 404\n  still waiting after 24s; last: GET /healthz answered 404\n")
		cancel()
		wg.Wait()
	})
}

// A build prints a line every 4 s at most, with what its tool does, and on a terminal one line that changes.
func TestBuildIsNeverSilentForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, live := range []bool{false, true} {
			var out lockedText
			line := &bar{out: &out, live: live}
			p := &buildProgress{out: line, seen: map[string]time.Time{}}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { line.pulse(ctx, p.text) })
			p.take(build.Progress{Layer: "making Debian", Stage: build.StageTool})
			time.Sleep(1900 * time.Millisecond)
			p.take(build.Progress{Layer: "making Debian", Stage: build.StageTool, Detail: "unpacking \x1b[2Jnginx"})
			time.Sleep(2200 * time.Millisecond)
			p.take(build.Progress{Layer: "weights", Stage: build.StagePush, Done: 3 << 20, Total: 9 << 20})
			time.Sleep(4500 * time.Millisecond)
			cancel()
			wg.Wait()
			got, want := out.take(), "making Debian\n  4s  unpacking [2Jnginx\n  4s  pushing layer weights, 3.0 MiB of 9.0 MiB\n"
			if live {
				for _, part := range []string{"making Debian\n", eraseLine + "  1s  making Debian" + eraseLine, eraseLine + "  2s  unpacking [2Jnginx" + eraseLine,
					eraseLine + "  4s  pushing layer weights, 3.0 MiB of 9.0 MiB" + eraseLine} {
					if !strings.Contains(got, part) {
						t.Errorf("on a terminal: got %q, want %q in it", got, part)
					}
				}
			} else if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}
