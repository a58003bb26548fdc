package runtimetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// Run tests that the runtimes that open creates fulfil the contract of runtimes.Runtime.
func Run(t *testing.T, open Open) {
	tests := []struct {
		name string
		run  func(*testing.T, *machine)
	}{
		{"apply brings up as many replicas as were asked for", testApply},
		{"the same workload again changes nothing", testIdempotent},
		{"too many replicas: the retired go first", testRetire},
		{"none wanted: all go, and come back when wanted again", testToZero},
		{"a replica that crashed is restarted in its place", testCrash},
		{"an image that is not there is hopeless", testMissing},
		{"a replica that ends at once is tried again and counted", testExit},
		{"init containers run to their end before the others start", testInit},
		{"an init container that fails is tried again, and nothing starts behind it", testInitFails},
		{"a replica whose init container runs is ended in its grace", testInitRuns},
		{"a platform that comes back knows which init containers are done", testInitAdopt},
		{"volumes are shared by a replica's containers and outlive their restarts", testVolumes},
		{"references to variables are replaced", testExpand},
		{"commands run in containers", testExec},
		{"remove ends all replicas and may be repeated", testRemove},
		{"ends stay listed until they are acknowledged", testEnds},
		{"what was told to end and ends while the platform is away is not restarted, and its end is exact", testEndsWhileAway},
		{"what refuses SIGTERM is killed when its grace is over", testGrace},
		{"without grace nothing is waited for", testNoGrace},
		{"a platform that comes back adopts what runs", testAdopt},
		{"what ended while the platform was away is restarted", testEndedWhileAway},
		{"a platform that ended while replicas started finishes them", testEndedWhileStarting},
		{"the port that a replica listens on is found out, and again by a platform that comes back", testDetect},
		{"changes are merged and never block", testWatch},
		{"usage tells a replica's limits", testUsage},
		{"a workload that makes no sense is refused", testRefused},
		{"memory is promised", testMemory},
		{"a created standby becomes the next replica, again and again", testStandbyCreated},
		{"a paused standby is the last replica, frozen", testStandbyPaused},
		{"a process that dies while it is frozen is replaced", testStandbyCrash},
		{"a platform that comes back knows the standbys", testStandbyAdopt},
		{"a standby that would be made otherwise now is made again", testStandbyChanged},
		{"standbys are as many as the budget allows, those of the revisions used last", testStandbyBudget},
		{"a created standby takes no memory, and a paused one gives it to who needs it", testStandbyMemory},
		{"replicas of an execution run once and stay listed until nobody names them", testOnce},
		{"an execution that cannot begin fails", testOnceFails},
		{"a replica that runs longer than it may is ended", testOnceTimeout},
		{"a platform that comes back runs no replica of an execution twice", testOnceAdopt},
		{"what has ended gives back its memory", testOnceMemory},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := &machine{Subject: open(t)}
			m.start(t)
			t.Cleanup(m.stop)
			test.run(t, m)
			if !t.Failed() {
				m.clear(t)
			}
		})
	}
}

// machine is a subject with a running engine.
type machine struct {
	*Subject
	rt   runtimes.Runtime
	halt func()
}

func (m *machine) start(t *testing.T) {
	t.Helper()
	m.rt, m.halt = m.Start(t)
}

func (m *machine) stop() {
	if m.halt != nil {
		m.halt()
	}
	m.halt = nil
}

// small is the memory of a replica in these tests.
const small = 64 << 20

// workload returns a workload with n replicas of an image.
func (m *machine) workload(name, image string, n int) runtimes.Workload {
	app := resource.AppID("00000000-0000-0000-0000-000000000000", "contract", name)
	return runtimes.Workload{
		Revision: resource.Revision{
			ID:          app.Child("revisions", name+"--0000001"),
			Environment: resource.EnvironmentID(app.Subscription, app.Group, "contract"),
			Created:     time.Now(),

			RevisionStatus: resource.RevisionStatus{Serving: resource.Serving{TargetPort: m.Port}},
			Template: resource.Template{
				Grace: 30 * time.Second,
				Containers: []resource.Container{{
					Name: "main", Image: image, Resources: resource.Resources{MilliCPU: 250, Memory: small},
				}},
			},
		},
		Replicas: n,
	}
}

func (m *machine) apply(t *testing.T, w runtimes.Workload) {
	t.Helper()
	if err := m.rt.Apply(t.Context(), w); err != nil {
		t.Fatalf("Apply(%s, %d replicas): %v", w.Revision.Name(), w.Replicas, err)
	}
}

func (m *machine) remove(t *testing.T, rev resource.Revision) {
	t.Helper()
	if err := m.rt.Remove(t.Context(), rev.ID); err != nil {
		t.Fatalf("Remove(%s): %v", rev.Name(), err)
	}
}

// replicas lists the replicas of one revision.
func (m *machine) replicas(t *testing.T, rev resource.Revision) []resource.Replica {
	t.Helper()
	list, err := m.rt.ReplicasOf(t.Context(), rev.ID.Parent())
	if err != nil {
		t.Fatalf("ReplicasOf: %v", err)
	}
	for _, r := range list {
		if r.Revision.Parent().Key() != rev.ID.Parent().Key() {
			t.Fatalf("ReplicasOf(%s): got replica %s of %s", rev.ID.Parent().Base(), r.Name, r.Revision)
		}
	}
	return slices.DeleteFunc(list, func(r resource.Replica) bool { return r.Revision.Key() != rev.ID.Key() })
}

// patience is how long a test waits for something that must happen. It is long, because machines that run tests can be
// busy. A test that passes does not wait that long.
const patience = 30 * time.Second

// until waits until the replicas of a revision fulfil ok, and returns them by name.
func (m *machine) until(t *testing.T, rev resource.Revision, what string, ok func([]resource.Replica) bool) []resource.Replica {
	t.Helper()
	var list []resource.Replica
	if !poll(t, func() bool { list = m.replicas(t, rev); return ok(list) }) {
		t.Fatalf("after %s %s has not come: %s", patience, what, describe(list))
	}
	slices.SortFunc(list, func(a, b resource.Replica) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// poll repeats ok until it is true or patience has passed.
func poll(t *testing.T, ok func() bool) bool {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			return ok()
		case <-t.Context().Done():
			return false
		}
	}
	return true
}

func describe(list []resource.Replica) string {
	if len(list) == 0 {
		return "no replicas"
	}
	var words []string
	for _, r := range list {
		words = append(words, fmt.Sprintf("%s %s (failures %d, restarts %d, hopeless %t, reason %q, containers %+v)",
			r.Name, r.State, r.Failures, r.Restarts, r.Hopeless, r.Reason, r.Containers))
	}
	return strings.Join(words, "; ")
}

// ready waits until there are exactly n replicas and all are ready.
func (m *machine) ready(t *testing.T, w runtimes.Workload, n int) []resource.Replica {
	t.Helper()
	return m.until(t, w.Revision, fmt.Sprintf("%d ready replicas", n), func(list []resource.Replica) bool {
		return len(list) == n && !slices.ContainsFunc(list, func(r resource.Replica) bool { return r.State != resource.ReplicaReady })
	})
}

// gone waits until the revision has no replicas.
func (m *machine) gone(t *testing.T, rev resource.Revision) {
	t.Helper()
	m.until(t, rev, "the end of all replicas", func(list []resource.Replica) bool { return len(list) == 0 })
}

// clear removes everything, and checks that nothing is left on the machine.
func (m *machine) clear(t *testing.T) {
	t.Helper()
	list, err := m.rt.Replicas(t.Context())
	if err != nil {
		t.Fatalf("Replicas: %v", err)
	}
	for _, r := range list {
		if err := m.rt.Remove(t.Context(), r.Revision); err != nil {
			t.Errorf("Remove(%s): %v", r.Revision.Base(), err)
		}
	}
	standbys, err := m.rt.Standbys(t.Context())
	if err != nil {
		t.Fatalf("Standbys: %v", err)
	}
	for _, s := range standbys {
		if err := m.rt.Remove(t.Context(), s.Revision); err != nil {
			t.Errorf("Remove(%s): %v", s.Revision.Base(), err)
		}
	}
	if !poll(t, func() bool { list, err = m.rt.Replicas(t.Context()); return err == nil && len(list) == 0 }) {
		t.Fatalf("after %s replicas are still there: %s (%v)", patience, describe(list), err)
	}
	var left []string
	if !poll(t, func() bool { left = m.Left(); return len(left) == 0 }) {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// get sends a request to a replica and returns the status, or 0 if there is no answer.
func (m *machine) get(t *testing.T, addr netip.Addr) int {
	t.Helper()
	status, _ := m.ask(t, addr, "/")
	return status
}

// file reads a file of a replica's main container. The status is 404 if there is none.
func (m *machine) file(t *testing.T, addr netip.Addr, path string) (status int, text string) {
	t.Helper()
	return m.ask(t, addr, "/file?path="+url.QueryEscape(path))
}

func (m *machine) ask(t *testing.T, addr netip.Addr, target string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	address := "http://" + netip.AddrPortFrom(addr, uint16(m.Port)).String() + target
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Logf("GET %s: %v", address, err)
		return 0, ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// identity returns what does not change in replicas while nothing happens to them.
func identity(list []resource.Replica) string {
	var words []string
	for _, r := range list {
		word := []string{r.Name, "at", r.Address.String()}
		for _, c := range r.Containers {
			word = append(word, c.Name, "pid", strconv.Itoa(c.PID))
		}
		words = append(words, strings.Join(word, " "))
	}
	slices.Sort(words)
	return strings.Join(words, "\n")
}

func names(list []resource.Replica) []string {
	var names []string
	for _, r := range list {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	return names
}

func testApply(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 3)
	m.apply(t, w)
	if n := len(m.replicas(t, w.Revision)); n != 3 {
		t.Errorf("right after Apply: want 3 replicas listed, got %d", n)
	}
	list := m.ready(t, w, 3)
	seen := map[netip.Addr]bool{}
	for _, r := range list {
		if rest, ok := strings.CutPrefix(r.Name, "web--0000001-"); !ok || len(rest) != len("5b8d8f4c6f-x7k2p") {
			t.Errorf("replica name: want web--0000001-<10 hex>-<5 letters and digits>, got %q", r.Name)
		}
		if seen[r.Address] || !r.Address.IsValid() {
			t.Errorf("replica %s: want an address of its own, got %s", r.Name, r.Address)
		}
		seen[r.Address] = true
		if status := m.get(t, r.Address); status != http.StatusOK {
			t.Errorf("replica %s is ready: want it to answer 200, got %d", r.Name, status)
		}
		if r.Restarts != 0 || r.Failures != 0 || r.Hopeless || r.Reason != "" || r.ReadySince.IsZero() || r.Created.IsZero() {
			t.Errorf("replica %s at rest: got %+v", r.Name, r)
		}
		if len(r.Containers) != 1 || !r.Containers[0].Running || r.Containers[0].Name != "main" || r.Containers[0].ID == "" {
			t.Errorf("replica %s: want its container main running, got %+v", r.Name, r.Containers)
		}
	}
}

func testIdempotent(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 2)
	m.apply(t, w)
	before := identity(m.ready(t, w, 2))
	for range 5 {
		m.apply(t, w)
	}
	if after := identity(m.ready(t, w, 2)); after != before {
		t.Errorf("after the same Apply again:\ngot  %s\nwant %s", after, before)
	}
	w.Retire = names(m.replicas(t, w.Revision))
	m.apply(t, w)
	if after := identity(m.ready(t, w, 2)); after != before {
		t.Errorf("Retire with as many replicas as are wanted:\ngot  %s\nwant %s", after, before)
	}
	w.Env = []resource.EnvVar{{Name: "CONTRACT", Value: "later"}}
	m.apply(t, w)
	if after := identity(m.ready(t, w, 2)); after != before {
		t.Errorf("a changed environment reaches only replicas made later:\ngot  %s\nwant %s", after, before)
	}
}

func testRetire(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 1)
	m.apply(t, w)
	first := m.ready(t, w, 1)[0]
	w.Replicas = 4
	m.apply(t, w)
	all := m.ready(t, w, 4)
	retire := []string{first.Name}
	for _, r := range all {
		if r.Name != first.Name && len(retire) < 2 {
			retire = append(retire, r.Name)
		}
	}
	stay := slices.DeleteFunc(slices.Clone(all), func(r resource.Replica) bool { return slices.Contains(retire, r.Name) })

	w.Replicas, w.Retire = 2, retire
	m.apply(t, w)
	for _, r := range m.replicas(t, w.Revision) {
		if slices.Contains(retire, r.Name) && r.State != resource.ReplicaStopping {
			t.Errorf("right after Apply: retired replica %s: want it %s, got %s", r.Name, resource.ReplicaStopping, r.State)
		}
	}
	if got, want := identity(m.ready(t, w, 2)), identity(stay); got != want {
		t.Errorf("after Apply with Retire %v:\ngot  %s\nwant %s", retire, got, want)
	}
}

func testToZero(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 2)
	m.apply(t, w)
	before := names(m.ready(t, w, 2))
	w.Replicas = 0
	m.apply(t, w)
	w.Replicas = 1 // while the others are still ending
	m.apply(t, w)
	for _, r := range m.ready(t, w, 1) {
		if slices.Contains(before, r.Name) {
			t.Errorf("replica %s had been told to end; want a new one in its place", r.Name)
		}
	}
	w.Replicas = 0
	m.apply(t, w)
	m.gone(t, w.Revision)
}

func testCrash(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 1)
	m.apply(t, w)
	before := m.ready(t, w, 1)[0]
	m.Crash(t, before)
	after := m.until(t, w.Revision, "a restart", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].Restarts > 0 && list[0].State == resource.ReplicaReady
	})[0]
	if after.Name != before.Name || after.Address != before.Address {
		t.Errorf("after a crash: want %s at %s, got %s at %s", before.Name, before.Address, after.Name, after.Address)
	}
	c := after.Containers[0]
	if c.Restarts != 1 || c.LastExit == nil || c.LastExit.Code == 0 || c.PID != 0 && c.PID == before.Containers[0].PID {
		t.Errorf("after a crash: want another process, one restart, and how the first ended; got %+v (was pid %d)", c, before.Containers[0].PID)
	}
	if !after.ReadySince.After(before.ReadySince) {
		t.Errorf("after a crash: want ReadySince after %s, got %s", before.ReadySince, after.ReadySince)
	}
	if status := m.get(t, after.Address); status != http.StatusOK {
		t.Errorf("after a crash: want 200, got %d", status)
	}
}

func testMissing(t *testing.T, m *machine) {
	w := m.workload("web", m.Missing, 1)
	m.apply(t, w)
	r := m.until(t, w.Revision, "the knowledge that there is no hope", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].Hopeless
	})[0]
	if r.Reason == "" || r.Failures == 0 || !r.ReadySince.IsZero() {
		t.Errorf("missing image: want a reason and a failure, got %+v", r)
	}
	m.remove(t, w.Revision)
	m.gone(t, w.Revision)
}

func testExit(t *testing.T, m *machine) {
	w := m.workload("web", m.Exit, 1)
	m.apply(t, w)
	r := m.until(t, w.Revision, "a third failed start", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].Failures >= 3
	})[0]
	if !r.ReadySince.IsZero() || r.Hopeless {
		t.Errorf("a replica that ends at once: want it never ready and not hopeless, got %+v", r)
	}
	if last := r.Containers[0].LastExit; last == nil || last.Code != 3 || last.Reason != "Error" {
		t.Errorf("last exit: want code 3 for the reason Error, got %+v", last)
	}
}

func testRemove(t *testing.T, m *machine) {
	w, other := m.workload("web", m.Serve, 2), m.workload("other", m.Serve, 1)
	m.apply(t, w)
	m.apply(t, other)
	m.ready(t, w, 2)
	before := identity(m.ready(t, other, 1))
	m.remove(t, w.Revision)
	m.remove(t, w.Revision)
	m.gone(t, w.Revision)
	m.remove(t, w.Revision)
	m.remove(t, m.workload("never-applied", m.Serve, 1).Revision)
	if after := identity(m.ready(t, other, 1)); after != before {
		t.Errorf("another revision:\ngot  %s\nwant %s", after, before)
	}
}

func testGrace(t *testing.T, m *machine) {
	const grace = time.Second
	w := m.workload("web", m.Deaf, 1)
	w.Revision.Template.Grace = grace
	m.apply(t, w)
	r := m.ready(t, w, 1)[0]
	began := time.Now()
	m.remove(t, w.Revision)
	if status := m.get(t, r.Address); status != http.StatusOK {
		t.Errorf("within its grace: want the replica to answer 200, got %d", status)
	}
	if list := m.replicas(t, w.Revision); len(list) != 1 || list[0].State != resource.ReplicaStopping {
		t.Errorf("within its grace: want one replica %s, got %s", resource.ReplicaStopping, describe(list))
	}
	m.gone(t, w.Revision)
	if took := time.Since(began); took < grace {
		t.Errorf("killed after %s, want not before its grace of %s", took, grace)
	}
}

func testNoGrace(t *testing.T, m *machine) {
	w := m.workload("web", m.Deaf, 1)
	w.Revision.Template.Grace = 0
	m.apply(t, w)
	m.ready(t, w, 1)
	m.remove(t, w.Revision)
	m.gone(t, w.Revision) // it would never end by itself
}

func testAdopt(t *testing.T, m *machine) {
	w, gone := m.workload("web", m.Serve, 2), m.workload("gone", m.Serve, 1)
	m.apply(t, w)
	m.apply(t, gone)
	m.ready(t, gone, 1)
	before := identity(m.ready(t, w, 2))
	list := m.replicas(t, w.Revision)
	m.stop()
	for _, r := range list {
		if status := m.get(t, r.Address); status != http.StatusOK {
			t.Errorf("without a platform: want replica %s to answer 200, got %d", r.Name, status)
		}
	}
	m.start(t)
	if got := identity(m.replicas(t, w.Revision)); got != before {
		t.Errorf("right after the platform came back:\ngot  %s\nwant %s", got, before)
	}
	after := m.ready(t, w, 2) // before any Apply
	m.apply(t, w)
	after = append(after[:0], m.ready(t, w, 2)...)
	if got := identity(after); got != before {
		t.Errorf("after Apply:\ngot  %s\nwant %s", got, before)
	}
	for _, r := range after {
		if r.Restarts != 0 || r.Failures != 0 {
			t.Errorf("replica %s: want no restarts and no failures, got %d and %d", r.Name, r.Restarts, r.Failures)
		}
	}
	m.ready(t, gone, 1) // not being applied again is no reason to end it
	m.remove(t, gone.Revision)
	m.gone(t, gone.Revision)
	w.Replicas = 1
	m.apply(t, w)
	m.ready(t, w, 1)
}

func testDetect(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 1)
	w.Revision.Serving = resource.Serving{DetectPort: true}
	m.apply(t, w)
	r := m.ready(t, w, 1)[0]
	if r.Port != m.Port {
		t.Errorf("got port %d, want %d", r.Port, m.Port)
	}
	before := identity([]resource.Replica{r})
	m.stop()
	m.start(t)
	r = m.ready(t, w, 1)[0]
	if got := identity([]resource.Replica{r}); got != before || r.Port != m.Port {
		t.Errorf("after the platform came back: port %d of %s, want %d of %s", r.Port, got, m.Port, before)
	}
	m.Crash(t, r)
	m.until(t, w.Revision, "the port of a new process", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].Restarts > 0 && list[0].State == resource.ReplicaReady && list[0].Port == m.Port
	})
}

func testEndedWhileAway(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 1)
	m.apply(t, w)
	before := m.ready(t, w, 1)[0]
	m.stop()
	m.Crash(t, before)
	if !poll(t, func() bool { return m.get(t, before.Address) == 0 }) {
		t.Fatal("the replica was to crash and still answers")
	}
	m.start(t)
	after := m.until(t, w.Revision, "a restart", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].State == resource.ReplicaReady
	})[0]
	c := after.Containers[0]
	// Most engines lose the exit code of what ended while they were down. None may report it as a success.
	if after.Name != before.Name || c.Restarts != 1 || c.LastExit == nil || c.LastExit.Code == 0 || c.LastExit.Reason == "" {
		t.Errorf("want %s, restarted once after an end that was not clean; got %s with %+v (last exit %+v)", before.Name, after.Name, c, c.LastExit)
	}
}

func testEndedWhileStarting(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 3)
	m.apply(t, w)
	m.stop()
	m.start(t)
	m.apply(t, w)
	m.ready(t, w, 3)
}

func testWatch(t *testing.T, m *machine) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lazy := m.rt.Watch(ctx)
	a, b := m.workload("a", m.Serve, 1), m.workload("b", m.Serve, 1)
	for n := range 4 {
		a.Replicas = n
		m.apply(t, a)
		m.ready(t, a, n)
	}
	m.apply(t, b)
	m.ready(t, b, 1)
	// Nobody has read for a while. That blocked nothing, and both revisions are reported.
	missing := map[string]bool{a.Revision.ID.Key(): true, b.Revision.ID.Key(): true}
	for n := 0; len(missing) > 0; n++ {
		select {
		case id := <-lazy:
			delete(missing, id.Key())
		case <-time.After(patience):
			t.Fatalf("never told of %v", missing)
		}
		if n > 4 {
			t.Fatalf("took %d values and %v was not among them: changes are not merged", n, missing)
		}
	}
	// A revision that was reported is reported again when it changes again.
	for drained := false; !drained; {
		select {
		case <-lazy:
		default:
			drained = true
		}
	}
	m.remove(t, a.Revision)
	for told := false; !told; {
		select {
		case id := <-lazy:
			told = id.Key() == a.Revision.ID.Key()
		case <-time.After(patience):
			t.Fatal("never told of a removed revision")
		}
	}
	cancel()
	end := time.After(patience)
	for open := true; open; {
		select {
		case _, open = <-lazy:
		case <-end:
			t.Fatal("the channel was not closed when its context ended")
		}
	}
}

func testUsage(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, 1)
	m.apply(t, w)
	r := m.ready(t, w, 1)[0]
	u, err := m.rt.Usage(t.Context(), r.Name)
	if err != nil || u.MemoryLimit != small || u.Processes == 0 {
		t.Errorf("Usage: want a limit of %d bytes and a process, got %+v, %v", small, u, err)
	}
	if len(u.Containers) != 1 || u.Containers[0].Container != "main" || u.Containers[0].Limit != small || u.Containers[0].Used == 0 || u.Containers[0].Used > small {
		t.Errorf("Usage: want some memory and the limit of container main, got %+v", u.Containers)
	}
	if _, err := m.rt.Usage(t.Context(), "nobody"); !errors.Is(err, resource.ErrNotFound) {
		t.Errorf("Usage of what is not there: want %v, got %v", resource.ErrNotFound, err)
	}
}

func testRefused(t *testing.T, m *machine) {
	w := m.workload("web", m.Serve, -1)
	if err := m.rt.Apply(t.Context(), w); err == nil {
		t.Error("Apply of -1 replicas: want an error")
	}
	if list := m.replicas(t, w.Revision); len(list) != 0 {
		t.Errorf("after a refused Apply: want no replicas, got %s", describe(list))
	}
}

func testMemory(t *testing.T, m *machine) {
	if m.Memory == 0 {
		t.Skip("this machine bounds no memory")
	}
	huge := m.workload("huge", m.Serve, 1)
	huge.Revision.Template.Containers[0].Resources.Memory = m.Memory + 1
	if err := m.rt.Apply(t.Context(), huge); !errors.Is(err, runtimes.ErrTooLarge) {
		t.Errorf("Apply of what never fits: want %v, got %v", runtimes.ErrTooLarge, err)
	}
	if list := m.replicas(t, huge.Revision); len(list) != 0 {
		t.Errorf("after a refused Apply: want no replicas, got %s", describe(list))
	}

	first, second := m.workload("first", m.Serve, 1), m.workload("second", m.Serve, 1)
	for _, w := range []runtimes.Workload{first, second} {
		w.Revision.Template.Containers[0].Resources.Memory = m.Memory/2 + 1
		m.apply(t, w)
		if w.Revision.ID == first.Revision.ID {
			m.ready(t, first, 1)
		}
	}
	r := m.until(t, second.Revision, "waiting for memory", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].State == resource.ReplicaWaiting
	})[0]
	if !strings.Contains(r.Reason, "memory") || !strings.Contains(r.Reason, first.Revision.Name()) || r.Hopeless || r.Failures != 0 {
		t.Errorf("not fitting now: want a reason that names memory and who has it, hope, and no failure; got %s", describe([]resource.Replica{r}))
	}
	m.remove(t, first.Revision)
	m.gone(t, first.Revision)
	m.ready(t, second, 1)
}
