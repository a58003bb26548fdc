package operate_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// leaky is an app with one replica of 0.5 GiB.
func leaky(name, recycle string) string {
	return fmt.Sprintf(`
name: %s
tags: {penstock.recycle: "%s"}
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    terminationGracePeriodSeconds: 2
    containers:
      - name: hello
        image: hello:1
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: 1, maxReplicas: 1}
`, name, recycle)
}

// leak makes an app leak so many MiB, again and again, until it is stopped. It counts the requests that failed.
type leak struct {
	mu     sync.Mutex
	mib    int
	failed []string
	stop   func()
}

func startLeak(t *testing.T, m *penstocktest.Machine, app string, mib int, every time.Duration) *leak {
	t.Helper()
	l := &leak{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			status, answer := m.Ask(t, "POST", app, fmt.Sprintf("/eat?mb=%d", mib), "")
			l.mu.Lock()
			l.mib += mib
			if status != 200 {
				l.failed = append(l.failed, fmt.Sprint(status, " ", answer))
			}
			l.mu.Unlock()
		}
	})
	l.stop = sync.OnceFunc(func() { close(done); wg.Wait() })
	t.Cleanup(l.stop)
	return l
}

func (l *leak) seen() (mib int, failed []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mib, l.failed
}

// countEvents counts an app's events with a reason, and returns the last one.
func countEvents(t *testing.T, m *penstocktest.Machine, app, reason string) (n int, last string) {
	t.Helper()
	for line := range strings.Lines(m.Must(t, "app", "events", app)) {
		if strings.Contains(line, " "+reason+" ") {
			n, last = n+1, line
		}
	}
	return n, last
}

// An app leaks fast. With penstock.recycle each replica is replaced before it reaches its limit: no process is killed, no request
// fails, and there are never more than two replicas. Without it, the kernel kills the process at its limit.
func TestALeakIsRecycled(t *testing.T) {
	recycleLeaks(t, 6, 100*time.Millisecond, "50", 0)
}

// The same with a leak of 50 MB a minute, which takes ten minutes to fill the memory. Control is killed meanwhile.
func TestALeakOf50MBAMinuteIsRecycled(t *testing.T) {
	penstocktest.Nightly(t, "leaks for ten minutes")
	t.Parallel()
	m := recycleLeaks(t, 1, 1260*time.Millisecond, "80", 200)
	n, event := countEvents(t, m, "killed", "MemoryLeak")
	t.Log(event)
	if n != 1 || !strings.Contains(event, "MiB an hour") || !strings.Contains(event, "reaches the limit in about") || !strings.Contains(event, "Set the tag penstock.recycle") {
		t.Errorf("%d events about the leak, the last %q; want one", n, event)
	}
}

func recycleLeaks(t *testing.T, mib int, every time.Duration, share string, restartAt int) *penstocktest.Machine {
	t.Helper()
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	m.Apply(t, leaky("kept", share))
	m.Apply(t, leaky("killed", "off"))

	stopLoad := m.Press(t, "kept")
	var most atomic.Int64
	counted := make(chan struct{})
	var counting sync.WaitGroup
	counting.Go(func() {
		for {
			n := int64(0)
			for replica := range m.Processes(t) {
				if strings.HasPrefix(replica, "kept--") {
					n++
				}
			}
			most.Store(max(most.Load(), n))
			select {
			case <-counted:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	began := time.Now()
	kept, killed := startLeak(t, m, "kept", mib, every), startLeak(t, m, "killed", mib, every)
	if restartAt > 0 {
		penstocktest.Until(t, 10*time.Minute, "a part of the memory is used", func() bool { leaked, _ := kept.seen(); return leaked >= restartAt })
		killControl(t, m)
	}
	penstocktest.Until(t, 15*time.Minute, "the replicas were replaced, and the process without recycling was killed", func() bool {
		recycled, _ := countEvents(t, m, "kept", "ReplicaRecycled")
		ooms, _ := countEvents(t, m, "killed", "OOMKilled")
		leaked, _ := kept.seen()
		return recycled > 0 && ooms > 0 && leaked > 550
	})
	explained := m.Must(t, "app", "explain", "kept")
	killed.stop()
	kept.stop()
	load := stopLoad()
	close(counted)
	counting.Wait()

	leaked, failed := kept.seen()
	t.Logf("kept leaked %d MiB in %v\n%s\n%s", leaked, time.Since(began).Round(time.Second), load, explained)
	if len(failed) > 0 {
		t.Errorf("of the requests that leak, %d failed, such as: %s", len(failed), failed[0])
	}
	if _, lost, longest := load.Counts(); lost > 0 || longest > penstocktest.LongestRequest {
		t.Errorf("%d requests were lost, and the longest took %v:\n%s", lost, longest, load)
	}
	if n, event := countEvents(t, m, "kept", "OOMKilled"); n > 0 {
		t.Errorf("with recycling a process was killed: %s", event)
	}
	if n, event := countEvents(t, m, "kept", "ReplicaRecycling"); n < 1 || !strings.Contains(event, "of its memory limit of 512 MiB") {
		t.Errorf("%d events about replicas that are replaced, the last %q", n, event)
	}
	if n := most.Load(); n != 2 {
		t.Errorf("%d replicas at a time, want the one of maxReplicas and one successor", n)
	}
	if !strings.Contains(explained, "LIMIT") || !strings.Contains(explained, "512.0 MiB") || !strings.Contains(explained, "is replaced at "+share+" % of its limit (penstock.recycle)") {
		t.Errorf("explain:\n%s", explained)
	}

	_, event := countEvents(t, m, "killed", "OOMKilled")
	t.Logf("without recycling: %s", event)
	if !strings.Contains(event, "reached its memory limit of 0.5 GiB (peak 0.5 GiB)") {
		t.Errorf("the event of the kill has no limit and peak: %q", event)
	}
	if n, event := countEvents(t, m, "killed", "ReplicaRecycling"); n > 0 {
		t.Errorf("a replica was replaced without the tag: %s", event)
	}
	penstocktest.Until(t, time.Minute, "the killed process is started again", func() bool {
		status, _ := m.Ask(t, "GET", "killed", "/", "")
		var replicas []struct {
			Properties struct {
				Containers []struct{ RestartCount int } `json:"containers"`
			} `json:"properties"`
		}
		if err := json.Unmarshal([]byte(m.Must(t, "replica", "list", "killed", "-o", "json")), &replicas); err != nil {
			t.Fatal(err)
		}
		return status == 200 && len(replicas) == 1 && replicas[0].Properties.Containers[0].RestartCount > 0
	})
	return m
}
