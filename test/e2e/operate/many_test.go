package operate_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/test/penstocktest"
)

const manyReplicas = `
name: many
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - {name: hello, image: "hello:1", resources: {cpu: 0.25, memory: 0.5Gi}}
    scale: {minReplicas: COUNT, maxReplicas: COUNT}
`

// What many replicas of a tiny app cost: how long they take to come, the memory of the roles and of the shims, and the
// processor time of all of it while nothing happens.
func TestManyReplicas(t *testing.T) {
	count := os.Getenv("PENSTOCK_REPLICAS")
	if count == "" {
		t.Skip("measures for minutes: make bench-replicas")
	}
	want, err := strconv.Atoi(count)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PENSTOCK_OVERCOMMIT", "100") // 0.5 GiB is promised to each, and hardly any of it used
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	empty := costs(t, m)

	began := time.Now()
	m.Apply(t, strings.ReplaceAll(manyReplicas, "COUNT", count))
	first := time.Since(began)
	penstocktest.Until(t, 10*time.Minute, "all replicas are ready", func() bool {
		return strings.Count(m.Must(t, "replica", "list", "many", "-o", "json"), `"ready": true`) == want
	})
	all := time.Since(began)

	after := atRest(t, m, empty, time.Minute)
	t.Logf("%d replicas: the app is ready after %.2f s, all are after %.1f s (%.0f ms each)", want, first.Seconds(), all.Seconds(), all.Seconds()*1000/float64(want))
	if shims := after["shims"]; shims.processes > 0 {
		t.Logf("a shim: %.2f MiB PSS, %.2f MiB RSS", mib(shims.pss)/float64(shims.processes), mib(shims.rss)/float64(shims.processes))
	}
	began = time.Now()
	m.Must(t, "app", "delete", "many")
	penstocktest.Until(t, 5*time.Minute, "all replicas are gone", func() bool { return costs(t, m)["shims"].processes == 0 })
	t.Logf("deleted and gone after %.1f s", time.Since(began).Seconds())
}

const atZero = `
name: NAME
properties:
  configuration:
    ingress: {external: true, targetPort: 8080, allowInsecure: true}
  template:
    containers:
      - {name: hello, image: "hello:1", resources: {cpu: 0.25, memory: 0.5Gi}}
    scale: {minReplicas: 0, maxReplicas: 1, cooldownPeriod: 5}
`

// What many apps at zero cost, of which as many have a standby as the default budget allows: memory and processor time.
func TestManyAppsAtZero(t *testing.T) {
	count := os.Getenv("PENSTOCK_APPS")
	if count == "" {
		t.Skip("measures for minutes: make bench-zero")
	}
	apps, err := strconv.Atoi(count)
	if err != nil {
		t.Fatal(err)
	}
	const budget = 32 // the default of --standby-budget
	m := penstocktest.Boot(t)
	m.Image(t, "hello")
	empty, available := costs(t, m), memAvailable(t)
	for n := range apps {
		m.Apply(t, strings.ReplaceAll(atZero, "NAME", fmt.Sprintf("app-%d", n)))
	}
	penstocktest.Until(t, 5*time.Minute, "all apps are at zero, with standbys", func() bool {
		now := costs(t, m)
		return now["standbys"].processes == min(budget, apps) && now["shims"].processes == min(budget, apps)
	})
	after := atRest(t, m, empty, restTime(t))
	var all, roles int64
	for name, c := range after {
		all += c.pss
		if name != "standbys" && name != "shims" {
			roles += c.pss
		}
	}
	t.Logf("%d apps at zero, %d with a standby: %.1f MB PSS in all (goal 400), of it the roles %.1f MB (goal 150); MemAvailable fell by %.1f MB",
		apps, after["standbys"].processes, mb(all), mb(roles), mb(available-memAvailable(t)))
	began := time.Now()
	status, answer := m.Ask(t, "GET", "app-0", "/", "")
	t.Logf("a request to the app that has been idle for the longest time: %d after %.0f ms", status, time.Since(began).Seconds()*1000)
	if status != 200 {
		t.Errorf("a request to an app at zero: got %d %q, want 200", status, answer)
	}
}

// restTime is for how long the processor time is measured: PENSTOCK_REST, or a minute.
func restTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PENSTOCK_REST")
	if text == "" {
		return time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("PENSTOCK_REST: want a duration such as 10m, got %q", text)
	}
	return d
}

// atRest measures a server to which nothing happens, and logs a table.
func atRest(t *testing.T, m *penstocktest.Machine, empty map[string]cost, rest time.Duration) (after map[string]cost) {
	t.Helper()
	load := func() string {
		text, err := os.ReadFile("/proc/loadavg")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(text))[0]
	}
	before, loadBefore := costs(t, m), load()
	time.Sleep(rest) // what is measured is this time
	after = costs(t, m)
	t.Logf("at rest for %s, load %s before and %s after", rest, loadBefore, load())
	t.Log("| process | RSS, none | RSS | PSS | of a core at rest |")
	t.Log("| --- | --- | --- | --- | --- |")
	var cpu time.Duration
	for _, name := range []string{"supervisor", "ingress", "control", "shims", "standbys"} {
		c := after[name]
		used := c.cpu - before[name].cpu
		cpu += used
		t.Logf("| %s (%d) | %.1f MiB | %.1f MiB | %.1f MiB | %.2f %% |", name, c.processes, mib(empty[name].rss), mib(c.rss), mib(c.pss),
			100*used.Seconds()/rest.Seconds())
	}
	t.Logf("| all | | | | %.2f %% |", 100*cpu.Seconds()/rest.Seconds())
	return after
}

// memAvailable is what the machine could give to other programs.
func memAvailable(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

func mb(n int64) float64 { return float64(n) / 1e6 }

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// cost is what processes of one kind take.
type cost struct {
	processes int
	rss, pss  int64
	cpu       time.Duration
}

// costs reads what the server's processes take, by role.
func costs(t *testing.T, m *penstocktest.Machine) map[string]cost {
	t.Helper()
	pids := map[string][]int{"supervisor": {m.Supervisor(t)}, "ingress": {m.Role(t, "ingress")}, "control": {m.Role(t, "control")}}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range all {
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !strings.Contains(string(command), "containerd-shim-runc-v2\x00") || !strings.Contains(string(command), m.Data) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids["shims"] = append(pids["shims"], pid)
		}
	}
	for _, list := range m.Processes(t) {
		for text := range strings.FieldsSeq(list) {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			if command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(command), "\x00init\x00") {
				pids["standbys"] = append(pids["standbys"], pid) // runc, which waits to become the program
			}
		}
	}
	costs := map[string]cost{}
	for name, list := range pids {
		slices.Sort(list)
		for _, pid := range list {
			c, ok := costOf(pid)
			if !ok {
				continue // it has ended meanwhile
			}
			sum := costs[name]
			costs[name] = cost{sum.processes + 1, sum.rss + c.rss, sum.pss + c.pss, sum.cpu + c.cpu}
		}
	}
	return costs
}

func costOf(pid int) (c cost, ok bool) {
	rollup, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return c, false
	}
	defer rollup.Close()
	for lines := bufio.NewScanner(rollup); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "Rss":
			c.rss = kb << 10
		case name == "Pss":
			c.pss = kb << 10
		}
	}
	// Of the whole process in nanoseconds: the first field of schedstat, of each thread.
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return c, false
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			continue
		}
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			n, _ := strconv.ParseInt(fields[0], 10, 64)
			c.cpu += time.Duration(n)
		}
	}
	return c, true
}
