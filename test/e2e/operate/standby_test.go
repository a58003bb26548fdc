package operate_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

// sleeper is an app that goes to zero a second after its last request.
func sleeper(name, standby, secret string) string {
	return fmt.Sprintf(`
name: %s
tags: {penstock.standby: %s}
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
    secrets: [{name: greeting, value: %s}]
  template:
    containers:
      - name: hello
        image: hello:1
        env: [{name: NAME, secretRef: greeting}]
        resources: {cpu: 0.25, memory: 0.5Gi}
    scale: {minReplicas: 0, maxReplicas: 1, cooldownPeriod: 1, pollingInterval: 1}
`, name, standby, secret)
}

// processes are those of an app's replicas and standbys: their pids and programs.
func processes(t *testing.T, m *penstocktest.Machine, app string) (pids, program string) {
	t.Helper()
	for replica, list := range m.Processes(t) {
		if !strings.HasPrefix(replica, app+"--") {
			continue
		}
		for pid := range strings.FieldsSeq(list) {
			command, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err != nil {
				continue // it has ended
			}
			pids += pid + " "
			program += strings.ReplaceAll(strings.TrimRight(string(command), "\x00"), "\x00", " ") + ";"
		}
	}
	return pids, program
}

// asleep waits for an app to have no replica, and one that is not started or frozen.
func asleep(t *testing.T, m *penstocktest.Machine, app, program string) {
	t.Helper()
	var what string
	penstocktest.Until(t, 2*time.Minute, app+" is asleep", func() bool {
		out, _, code := m.Run(t, "replica", "list", app, "-o", "json")
		_, what = processes(t, m, app)
		return code == 0 && strings.TrimSpace(out) == "[]" && strings.HasSuffix(what, program) && strings.Count(what, ";") == 1
	})
}

const (
	notStarted = " init;" // of runc, which waits to become the program
	started    = "/hello;"
)

// killControl kills control and waits for another one.
func killControl(t *testing.T, m *penstocktest.Machine) {
	t.Helper()
	old := m.Role(t, "control")
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	penstocktest.Until(t, time.Minute, "another control", func() bool {
		pid := m.Role(t, "control")
		_, _, code := m.Run(t, "app", "list")
		return pid != 0 && pid != old && code == 0
	})
}

// An app at zero has one replica ready to be started, or frozen, and a request is all that it takes. That holds when
// control was killed meanwhile, and when its secrets were changed.
func TestStandbys(t *testing.T) {
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	ask := func(t *testing.T, app, path, want string) {
		t.Helper()
		began := time.Now()
		status, answer := m.Ask(t, "GET", app, path, "")
		if status != 200 || answer != want {
			t.Errorf("%s of %s: got %d %q, want 200 %q", path, app, status, answer, want)
		}
		t.Logf("%s answered after %s", app, time.Since(began).Round(time.Millisecond))
	}
	t.Run("created", func(t *testing.T) {
		m.Apply(t, sleeper("quick", "created", "one"))
		for range 3 {
			asleep(t, m, "quick", notStarted)
			pids, _ := processes(t, m, "quick")
			ask(t, "quick", "/", "hello, one\n")
			if after, program := processes(t, m, "quick"); after != pids || program != started {
				t.Errorf("process %s runs %s, want %s, which was there before the request, to run %s", after, program, pids, started)
			}
		}
		asleep(t, m, "quick", notStarted)
		m.Apply(t, sleeper("quick", "created", "two"))
		ask(t, "quick", "/", "hello, two\n")
		asleep(t, m, "quick", notStarted)
		killControl(t, m)
		asleep(t, m, "quick", notStarted)
		ask(t, "quick", "/", "hello, two\n")
	})
	t.Run("paused", func(t *testing.T) {
		m.Apply(t, sleeper("model", "paused", "one"))
		pids, _ := processes(t, m, "model")
		for i := range 3 {
			ask(t, "model", "/count", fmt.Sprintln(i+1))
			if after, _ := processes(t, m, "model"); after != pids {
				t.Errorf("process %s answers, want %s still", after, pids)
			}
			frozen(t, m, "model")
		}
		killControl(t, m)
		frozen(t, m, "model")
		ask(t, "model", "/count", "4\n")
		frozen(t, m, "model")
		m.Apply(t, sleeper("model", "paused", "two"))
		ask(t, "model", "/", "hello, two\n")
	})
	t.Run("followed", func(t *testing.T) {
		m.Apply(t, strings.Replace(sleeper("followed", "created", "one"), "tags: {", "tags: {penstock.progress: on, ", 1))
		asleep(t, m, "followed", notStarted)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://followed.penstock.localhost/events?n=1&ms=0", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		resp, err := m.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		stages, event, found := strings.Cut(string(body), "data: ")
		if err != nil || !found || strings.Count(event, "\n") != 2 || stages != ": queued\n\n: pulled\n\n: created\n\n: loading\n\n: ready\n\n" {
			t.Errorf("got %q, %v, want each stage and then the app's event", body, err)
		}
	})
	t.Run("measured", func(t *testing.T) {
		out := m.Must(t, "bench", "wake", penstocktest.Path("examples", "hello", "bin", "hello"), "--server", "--cycles", "2", "--warmup", "0", "-o", "json")
		var r struct {
			Wakes []struct {
				Standby       string
				Count         int
				Min, RatioP50 float64
			}
			Runc struct{ Count int }
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Wakes) != 3 || r.Runc.Count != 2 {
			t.Fatalf("got %s (%v), want the times of three kinds and of runc", out, err)
		}
		for _, w := range r.Wakes {
			if w.Count != 2 || w.Min <= 0 || w.RatioP50 <= 0 {
				t.Errorf("got %+v, want two wakes timed", w)
			}
		}
		if list := m.Must(t, "app", "list"); strings.Contains(list, "bench-wake") {
			t.Errorf("apps are left: %s", list)
		}
	})
}

// frozen waits for an app to have no replica, and for its process not to run.
func frozen(t *testing.T, m *penstocktest.Machine, app string) {
	t.Helper()
	asleep(t, m, app, started)
	penstocktest.Until(t, time.Minute, app+" is frozen", func() bool {
		pids, _ := processes(t, m, app)
		return inFreezer(strings.TrimSpace(pids))
	})
}

// inFreezer says whether the kernel does not run a process: its cgroup's state in v1, and in v2 that of its freezer.
func inFreezer(pid string) bool {
	groups, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(groups)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		if part[1] == "freezer" {
			state, err := os.ReadFile("/sys/fs/cgroup/freezer" + part[2] + "/freezer.state")
			return err == nil && strings.TrimSpace(string(state)) == "FROZEN"
		}
		if part[0] == "0" {
			events, err := os.ReadFile("/sys/fs/cgroup" + part[2] + "/cgroup.events")
			if err == nil && strings.Contains(string(events), "frozen 1") {
				return true
			}
		}
	}
	return false
}
