package local_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

// ask sends a request to a replica and ignores the response.
func ask(t testing.TB, addr netip.Addr, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr.String()+":8080"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Logf("GET %s: %v", path, err)
		return
	}
	_ = resp.Body.Close()
}

func TestEventsOfALife(t *testing.T) {
	b := setUp(t, nil)
	w := web(1)
	b.apply(t, w)
	r := b.ready(t, 1)[0]
	b.remove(t, w)
	b.gone(t)
	want := []string{
		"AssigningReplica", "PullingImage", "PulledImage", "ContainerCreated", "ContainerStarted", "ReplicaReady", "ContainerTerminated",
	}
	if got := b.events.reasons(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, ev := range b.events.all() {
		if ev.App.Name != "web" || ev.Revision != "web--0000001" || ev.Replica != r.Name || ev.Source != "Engine" || ev.At.IsZero() || ev.Warning {
			t.Errorf("event %s: %+v", ev.Reason, ev)
		}
		if timed := ev.Reason != "PullingImage"; timed && ev.Duration <= 0 {
			t.Errorf("event %s: want how long it took", ev.Reason)
		}
	}
	b.events.want(t, "PulledImage", "Image size: 0 bytes.")
	b.events.want(t, "ContainerTerminated", "Container 'main' was terminated with exit code '0' and reason 'ManuallyStopped'")
}

func TestWhatADriverIsAskedFor(t *testing.T) {
	image, err := fake.New(fake.Options{}).Image(t.Context(), fake.Echo)
	if err != nil {
		t.Fatal(err)
	}
	b := setUp(t, nil)
	w := web(1, env("OMP_NUM_THREADS=7", "SHARED=own")...)
	w.Env = env("CONTAINER_APP_NAME=web", "CONTAINER_APP_PORT=8080", "SHARED=platform")
	w.Revision.Images = map[string]string{fake.Echo: image.Digest}
	w.Revision.Settings.Capabilities = resource.CapabilitiesNone
	main := &w.Revision.Template.Containers[0]
	main.Command, main.Args, main.Resources.MilliCPU = []string{"serve"}, []string{"-v"}, 1250
	w.Revision.ID = w.Revision.App().Child("revisions", strings.Repeat("long-", 10)+"name")
	b.apply(t, w)
	r := b.ready(t, 1)[0]

	c := b.driver.created()[0]
	vars := map[string]string{}
	for _, v := range slices.Concat(c.Hints, c.Env) { // the lowest precedence comes first
		vars[v.Name] = v.Value
	}
	names := map[string]bool{}
	for _, v := range c.Env {
		if names[v.Name] {
			t.Errorf("variable %s is there twice", v.Name)
		}
		names[v.Name] = true
	}
	for name, want := range map[string]string{
		"CONTAINER_APP_NAME": "web", "CONTAINER_APP_REPLICA_NAME": r.Name, "GOMAXPROCS": "2", "MKL_NUM_THREADS": "2",
		"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "7", "SHARED": "own",
	} {
		if vars[name] != want {
			t.Errorf("%s: got %q, want %q", name, vars[name], want)
		}
	}
	if c.Image != fake.Echo+"@"+image.Digest || !slices.Equal(c.Command, main.Command) || !slices.Equal(c.Args, main.Args) || c.Resources != main.Resources {
		t.Errorf("container: got %+v", c)
	}
	if len(c.Hostname) > 63 || !strings.HasPrefix(r.Name, c.Hostname) || len(r.Name) <= 63 {
		t.Errorf("hostname of %s: want its first 63 letters, got %q", r.Name, c.Hostname)
	}
	if len(c.ID) != 32 || r.Containers[0].ID != "fake://"+c.ID {
		t.Errorf("container id: want 32 hex digits, shown as fake://..., got %q, shown as %q", c.ID, r.Containers[0].ID)
	}
	s := b.driver.sandboxes[0]
	if s.Replica != r.Name || s.Revision != w.Revision.ID || s.DiskLimit != 8<<30 || s.Capabilities != resource.CapabilitiesNone || s.Environment != w.Revision.Environment {
		t.Errorf("sandbox: got %+v", s)
	}
}

func TestDiskByCPU(t *testing.T) {
	for cpu, want := range map[int64]int64{250: 1 << 30, 500: 2 << 30, 750: 4 << 30, 1000: 4 << 30, 1250: 8 << 30, 4000: 8 << 30} {
		b := setUp(t, nil)
		w := web(1)
		w.Revision.Template.Containers[0].Resources.MilliCPU = cpu
		b.apply(t, w)
		b.ready(t, 1)
		if got := b.driver.sandboxes[0].DiskLimit; got != want {
			t.Errorf("%d thousandths of a vCPU: got %d bytes of disk, want %d", cpu, got, want)
		}
	}
}

// The pauses between starts of a container that ends at once are those of Kubernetes' CrashLoopBackOff.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, func(c *local.Config) { c.Backoff = local.Backoff{} })
		w := web(1)
		w.Revision.TargetPort = 0
		w.Revision.Template.Containers[0].Image = fake.Exit
		began := time.Now()
		b.apply(t, w)
		time.Sleep(20 * time.Minute) // the bubble's time: takes no real time
		var got []time.Duration
		for _, ev := range b.events.all() {
			if ev.Reason == "ContainerStarted" {
				got = append(got, ev.At.Sub(began))
			}
		}
		var want []time.Duration
		at := time.Duration(0)
		for _, pause := range []int{0, 0, 10, 20, 40, 80, 160, 300, 300} {
			at += time.Duration(pause) * time.Second
			want = append(want, at)
		}
		if !slices.Equal(got, want) {
			t.Errorf("started at %v\nwant       %v", got, want)
		}
		b.events.want(t, "ContainerBackOff", "Back-off restarting failed container 'main': end 3 in a row, the next start is in 20s.")
		r := b.list(t)[0]
		if r.State != resource.ReplicaWaiting || r.Restarts != len(want)-1 || !strings.Contains(r.Reason, "exit code 3") {
			t.Errorf("between two starts: got %+v", r)
		}
	})
}

// If a revision has failed for a while, a new replica of it does not start with the short pauses.
func TestReplicasThatFailTogetherBackOffTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, func(c *local.Config) { c.Backoff = local.Backoff{} })
		w := web(1)
		w.Revision.TargetPort = 0
		w.Revision.Template.Containers[0].Image = fake.Exit
		b.apply(t, w)
		time.Sleep(3 * time.Minute) // the sixth end has happened; the next start comes 160 s after it
		first := b.list(t)[0].Name
		w.Replicas = 2
		came := time.Now()
		b.apply(t, w)
		time.Sleep(10 * time.Minute)
		var starts []time.Duration
		for _, ev := range b.events.all() {
			if ev.Reason == "ContainerStarted" && ev.Replica != first {
				starts = append(starts, ev.At.Sub(came))
			}
		}
		want := []time.Duration{0, 160 * time.Second}
		if len(starts) < 3 || !slices.Equal(starts[:2], want) || starts[2]-starts[1] < 160*time.Second {
			t.Errorf("the second replica was started after %v, want %v and no less than 160s later", starts, want)
		}
	})
}

func TestBackoffStartsAgainAfterHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, func(c *local.Config) { c.Backoff = local.Backoff{} })
		w := web(1, env("FAKE_EXIT_AFTER=11m", "FAKE_START_DELAY=24h")...) // an open port would stop the bubble's time
		w.Revision.TargetPort = 0
		b.apply(t, w)
		time.Sleep(100 * time.Minute)
		if ev, ok := b.events.find("ContainerBackOff", ""); ok {
			t.Errorf("ended after 11 minutes of health each time: want a restart at once, got %s", ev.Message)
		}
		if r := b.list(t)[0]; r.Restarts != 9 || r.Failures != 0 || r.State != resource.ReplicaReady {
			t.Errorf("want nine restarts in 100 minutes and no failed start, got %+v", r)
		}
	})
}

func TestGraceIsExact(t *testing.T) {
	for _, grace := range []time.Duration{0, 7 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			b := setUp(t, nil)
			w := web(1, env("FAKE_START_DELAY=24h")...)
			w.Revision.TargetPort = 0
			w.Revision.Template.Grace = grace
			w.Revision.Template.Containers[0].Image = fake.Deaf
			b.apply(t, w)
			synctest.Wait()
			b.remove(t, w)
			began := time.Now()
			time.Sleep(2 * time.Hour)
			ev := b.events.want(t, "ContainerTerminated", "exit code '137' and reason 'ManuallyStopped'")
			if got := ev.At.Sub(began); got != grace {
				t.Errorf("grace %s: killed after %s", grace, got)
			}
			b.gone(t)
		})
	}
}

// A replica that answers requests while its liveness probe times out is busy. When it no longer answers, it is hung.
func TestBusyIsNotHung(t *testing.T) {
	for _, behaviour := range []resource.Behaviour{resource.Fast, resource.Azure} {
		t.Run(string(behaviour), func(t *testing.T) {
			var answering atomic.Bool
			answering.Store(true)
			b := setUp(t, func(c *local.Config) {
				c.Answered = func(replica string, since time.Time) bool {
					if !strings.HasPrefix(replica, "web--0000001-") || time.Since(since) < 20*time.Millisecond {
						t.Errorf("asked for %q since %s ago, want the replica and when it was probed", replica, time.Since(since))
					}
					return answering.Load()
				}
			})
			w := web(1, env("FAKE_HANG_ON=/hang")...)
			w.Revision.Settings.Behaviour = behaviour
			w.Revision.Template.Grace = 0
			w.Revision.Template.Containers[0].Probes = []resource.Probe{
				{Type: resource.Startup, TCP: &resource.TCPSocket{Port: 8080}, Period: 10 * time.Millisecond},
				{Type: resource.Readiness, TCP: &resource.TCPSocket{Port: 8080}, Period: 10 * time.Millisecond},
				{
					Type: resource.Liveness, HTTP: &resource.HTTPGet{Path: "/", Port: 8080},
					Period: 30 * time.Millisecond, Timeout: 20 * time.Millisecond, FailureThreshold: 2,
				},
			}
			b.apply(t, w)
			r := b.ready(t, 1)[0]
			ask(t, r.Address, "/hang")
			if behaviour == resource.Fast {
				const spared = "Liveness probe timed out in 0.02 seconds while the replica was answering; not counted"
				b.until(t, "eight probes that were spared", func([]resource.Replica) bool {
					n := 0
					for _, ev := range b.events.all() {
						if ev.Reason == "ProbeFailed" && ev.Message == spared && !ev.Warning {
							n++
						}
					}
					return n == 4 // the 1st, 2nd, 4th and 8th
				})
				if r := b.list(t)[0]; r.State != resource.ReplicaReady || r.Restarts != 0 {
					t.Errorf("while it answers: %s, %d restarts, want ready and none", r.State, r.Restarts)
				}
				answering.Store(false)
			}
			b.until(t, "a restart", func(list []resource.Replica) bool { return list[0].Restarts == 1 })
			b.events.want(t, "ProbeFailed", "Container main failed liveness probe, will be restarted")
		})
	}
}

// A replica whose image is missing starts when the image arrives, no matter how long its backoff has become.
func TestAPushedImageIsNotWaitedFor(t *testing.T) {
	var pushed atomic.Bool
	b := setUp(t, func(c *local.Config) {
		c.Backoff = local.Backoff{First: time.Hour, Max: time.Hour}
		d := c.Driver.(*spy)
		d.came = make(chan local.Event)
		d.pull = func(context.Context) error {
			if !pushed.Load() {
				return fmt.Errorf("web:1: %w", local.ErrImageNotFound)
			}
			return nil
		}
	})
	b.apply(t, web(1))
	b.until(t, "it waits", func(list []resource.Replica) bool {
		return list[0].State == resource.ReplicaWaiting && list[0].Hopeless
	})
	b.driver.came <- local.Event{Image: "other:1"} // another image: the replica looks, and continues to wait
	b.until(t, "a look in vain", func([]resource.Replica) bool { return b.events.count("ContainerCreateFailure") == 2 })
	pushed.Store(true)
	b.driver.came <- local.Event{Image: "web:1"}
	if r := b.ready(t, 1)[0]; r.Hopeless {
		t.Error("a replica with its image is without hope")
	}
}

func TestLivenessKills(t *testing.T) {
	b := setUp(t, nil)
	w := web(1, env("FAKE_HANG_ON=/hang")...)
	w.Revision.Template.Grace = 50 * time.Millisecond // a server that hangs cannot complete its requests
	w.Revision.Template.Containers[0].Probes = []resource.Probe{{
		Type: resource.Liveness, HTTP: &resource.HTTPGet{Path: "/", Port: 8080},
		Period: 10 * time.Millisecond, Timeout: 20 * time.Millisecond, FailureThreshold: 2,
	}}
	b.apply(t, w)
	r := b.ready(t, 1)[0]
	ask(t, r.Address, "/hang")
	r = b.until(t, "a restart", func(list []resource.Replica) bool {
		return list[0].Restarts == 1 && list[0].State == resource.ReplicaReady
	})[0]
	b.events.want(t, "ProbeFailed", "Probe of Liveness failed with timeout in 0.02 seconds. GET / on port 8080 had no answer")
	b.events.want(t, "ProbeFailed", "Container main failed liveness probe, will be restarted")
	b.events.want(t, "ContainerTerminated", "reason 'ProbeFailure'")
	if r.Failures != 0 {
		t.Errorf("it had been ready: want no failed start, got %d", r.Failures)
	}
	const cause = "Probe of Liveness failed with timeout in 0.02 seconds. GET / on port 8080 had no answer"
	if last := r.Containers[0].LastExit; last == nil || last.Why() != cause || !strings.Contains(last.String(), cause) {
		t.Errorf("its last end is %v, want the probe's failure %q", last, cause)
	}
}

// A model that loads for longer than its liveness probe allows is not killed, and an event says so. One that hangs after it was
// ready is killed, also when another process of the platform has seen it become ready. Azure kills what loads too.
func TestLivenessSparesAModelThatLoads(t *testing.T) {
	workload := func(behaviour resource.Behaviour, variables ...string) runtimes.Workload {
		w := web(1, env(variables...)...)
		w.Revision.Settings.Behaviour = behaviour
		w.Revision.Template.Grace = 0
		get := &resource.HTTPGet{Path: "/", Port: 8080}
		w.Revision.Template.Containers[0].Probes = []resource.Probe{
			{Type: resource.Readiness, HTTP: get, Period: 10 * time.Millisecond},
			{Type: resource.Liveness, HTTP: get, Period: 20 * time.Millisecond, Timeout: time.Second, FailureThreshold: 2},
		}
		return w
	}
	t.Run("fast", func(t *testing.T) {
		records := t.TempDir()
		keep := func(c *local.Config) { c.Replicas = records }
		b := setUp(t, keep)
		b.apply(t, workload(resource.Fast, "FAKE_READY_AFTER=1s", "FAKE_HANG_ON=/hang"))
		r := b.ready(t, 1)[0]
		if r.Restarts != 0 {
			t.Fatalf("%d restarts while it loaded, want none:\n%s", r.Restarts, b.events)
		}
		if ev := b.events.want(t, "ProbeFailed", "Liveness probe failed while the container has not been ready yet: GET / on port "); ev.Warning {
			t.Error("want no warning")
		}
		ask(t, r.Address, "/hang")
		b.restart(t, keep)
		b.until(t, "a restart", func(list []resource.Replica) bool { return list[0].Restarts == 1 })
		b.events.want(t, "ProbeFailed", "Container main failed liveness probe, will be restarted")
	})
	t.Run("azure", func(t *testing.T) {
		b := setUp(t, nil)
		b.apply(t, workload(resource.Azure, "FAKE_READY_AFTER=1h"))
		b.until(t, "a restart", func(list []resource.Replica) bool { return list[0].Restarts > 0 })
		b.events.want(t, "ProbeFailed", "failed liveness probe, will be restarted; it has never been ready, and a startup probe would give it time to load")
	})
}

func TestReadinessTakesAReplicaOut(t *testing.T) {
	b := setUp(t, nil)
	w := web(1, env("FAKE_HANG_ON=/hang")...)
	w.Revision.Template.Containers[0].Probes = []resource.Probe{{
		Type: resource.Readiness, HTTP: &resource.HTTPGet{Path: "/", Port: 8080},
		Period: 10 * time.Millisecond, Timeout: 20 * time.Millisecond, FailureThreshold: 2,
	}}
	b.apply(t, w)
	r := b.ready(t, 1)[0]
	ask(t, r.Address, "/hang")
	r = b.until(t, "a replica out of service", func(list []resource.Replica) bool { return list[0].State == resource.ReplicaUnready })[0]
	if !r.ReadySince.IsZero() || !strings.Contains(r.Reason, "Readiness") || r.Restarts != 0 {
		t.Errorf("unready: got %+v", r)
	}
	b.events.want(t, "ReplicaUnready", "Probe of Readiness failed")
}

func TestLoadingIsStartingNotReady(t *testing.T) {
	b := setUp(t, nil)
	w := web(1, env("FAKE_READY_AFTER=1h")...)
	w.Revision.Template.Containers[0].Probes = []resource.Probe{{
		Type: resource.Readiness, HTTP: &resource.HTTPGet{Path: "/", Port: 8080}, Period: 5 * time.Millisecond, FailureThreshold: 2,
	}}
	b.apply(t, w)
	r := b.until(t, "the reason why it is not ready", func(list []resource.Replica) bool { return list[0].Reason != "" })[0]
	if r.State != resource.ReplicaStarting || !strings.Contains(r.Reason, "503") || !r.Containers[0].Running || r.Containers[0].PID == 0 {
		t.Errorf("loading: got %+v", r)
	}
}

// A replica that was ready must become ready again after a restart of its container.
func TestARestartedReplicaIsStarting(t *testing.T) {
	b := setUp(t, nil)
	b.apply(t, web(1, env("FAKE_START_DELAY=150ms")...))
	b.driver.Crash(b.ready(t, 1)[0].Name, 1)
	r := b.until(t, "a start", func(list []resource.Replica) bool {
		return list[0].State == resource.ReplicaStarting && list[0].Restarts == 1
	})[0]
	b.driver.Crash(r.Name, 1)
	r = b.until(t, "another", func(list []resource.Replica) bool {
		return list[0].State == resource.ReplicaStarting && list[0].Restarts == 2
	})[0]
	if r.Failures != 1 {
		t.Errorf("ended once before it was ready again: want one failed start, got %d", r.Failures)
	}
	b.ready(t, 1)
}

func TestOutOfMemory(t *testing.T) {
	b := setUp(t, nil)
	w := web(1, env("FAKE_OOM_ON=/oom", "FAKE_CHILD_OOM_ON=/child")...)
	b.apply(t, w)
	r := b.ready(t, 1)[0]
	ask(t, r.Address, "/child")
	b.until(t, "the end of a child", func([]resource.Replica) bool { _, ok := b.events.find("OOMKilled", ""); return ok })
	ev := b.events.want(t, "OOMKilled", "Container 'main' reached its memory limit of 0.5 GiB (peak 0.5 GiB): the kernel killed fake.")
	if r := b.list(t)[0]; !ev.Warning || r.Restarts != 0 || r.State != resource.ReplicaReady {
		t.Errorf("a child was killed: want a warning and the replica running on, got %+v", r)
	}
	ask(t, r.Address, "/oom")
	r = b.until(t, "a restart", func(list []resource.Replica) bool { return list[0].Restarts == 1 })[0]
	if exit := r.Containers[0].LastExit; exit == nil || !exit.OOM || exit.Reason != "OOMKilled" || exit.Code != 137 {
		t.Errorf("last exit: want 137, OOMKilled, got %+v", exit)
	}
	b.events.want(t, "ContainerTerminated", "exit code '137' and reason 'OOMKilled'")
}

func TestCreateAndStartErrors(t *testing.T) {
	for _, name := range []string{"FAKE_CREATE_ERROR", "FAKE_START_ERROR"} {
		b := setUp(t, nil)
		w := web(1, env(name+"=no space left on device")...)
		b.apply(t, w)
		r := b.until(t, "a third failed start", func(list []resource.Replica) bool { return list[0].Failures >= 3 })[0]
		if r.Hopeless || r.Restarts != 0 {
			t.Errorf("%s: want it hoped for and never restarted, got %+v", name, r)
		}
		ev := b.events.want(t, "ContainerCreateFailure", "no space left on device")
		if !ev.Warning {
			t.Errorf("%s: want a warning", name)
		}
		pulls := 0
		for _, reason := range b.events.reasons() {
			if reason == "PullingImage" {
				pulls++
			}
		}
		if again := name == "FAKE_CREATE_ERROR"; again != (pulls >= 3) {
			t.Errorf("%s: the image was asked for %d times; want it asked for again only when a container could not be made of it", name, pulls)
		}
		b.remove(t, w)
		b.gone(t)
	}
}

func TestAMissingImageTakesNothing(t *testing.T) {
	b := setUp(t, nil)
	w := web(1)
	w.Revision.Template.Containers = append(w.Revision.Template.Containers, resource.Container{Name: "side", Image: "fake/none"})
	b.apply(t, w)
	b.until(t, "no hope", func(list []resource.Replica) bool { return list[0].Hopeless })
	b.events.want(t, "ContainerCreateFailure", `image "fake/none"`)
	if lines := left(b.driver); len(lines) > 0 {
		t.Errorf("on the machine: %q, want nothing before every image is there", lines)
	}
	b.remove(t, w)
	b.gone(t)
}

// After the image is built, nothing else has to be done.
func TestAnImageThatComesLater(t *testing.T) {
	b := setUp(t, nil)
	var there atomic.Bool
	b.driver.pull = func(context.Context) error {
		if !there.Load() {
			return fmt.Errorf("nowhere: %w", local.ErrImageNotFound)
		}
		return nil
	}
	w := web(1)
	w.Revision.Template.Containers = append(w.Revision.Template.Containers, resource.Container{Name: "side", Image: fake.Echo, Env: env("PORT=9090")})
	b.apply(t, w)
	r := b.until(t, "no hope", func(list []resource.Replica) bool { return list[0].Hopeless && list[0].Failures == 3 })[0]
	if r.State != resource.ReplicaWaiting || !strings.Contains(r.Reason, "nowhere") {
		t.Errorf("without the image: got %+v", r)
	}
	there.Store(true)
	if r := b.ready(t, 1)[0]; r.Hopeless || r.Failures != 0 || r.Restarts != 0 || r.Reason != "" {
		t.Errorf("with the image: want all forgotten, got %+v", r)
	}
}

func TestRemoveEndsALongPull(t *testing.T) {
	b := setUp(t, nil)
	pulling := make(chan struct{}, 1)
	b.driver.pull = func(ctx context.Context) error {
		pulling <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	w := web(1)
	b.apply(t, w)
	<-pulling
	if r := b.list(t)[0]; r.State != resource.ReplicaCreating {
		t.Errorf("while its image is pulled: want %s, got %+v", resource.ReplicaCreating, r)
	}
	b.remove(t, w)
	b.gone(t)
	if ev, ok := b.events.find("ContainerCreateFailure", ""); ok {
		t.Errorf("that it was removed is no failure, got %s", ev.Message)
	}
}

func TestTwoContainers(t *testing.T) {
	b := setUp(t, nil)
	w := web(1)
	w.Revision.Template.Containers = append(w.Revision.Template.Containers, resource.Container{
		Name: "side", Image: fake.Echo, Env: env("PORT=9090"),
		Probes: []resource.Probe{{Type: resource.Readiness, TCP: &resource.TCPSocket{Port: 9090}}},
	})
	b.apply(t, w)
	r := b.ready(t, 1)[0]
	if b.driver.created()[0].Name != "main" || len(r.Containers) != 2 || r.Containers[0].PID > r.Containers[1].PID {
		t.Errorf("want main started before side, got %+v", r.Containers)
	}
	sandboxes := len(b.driver.sandboxes)
	if err := b.driver.Kill(t.Context(), b.driver.created()[1].ID, 9); err != nil {
		t.Fatal(err)
	}
	after := b.until(t, "a restart", func(list []resource.Replica) bool {
		return list[0].Restarts == 1 && list[0].State == resource.ReplicaReady
	})[0]
	if after.Containers[0].PID != r.Containers[0].PID || after.Containers[1].PID == r.Containers[1].PID {
		t.Errorf("want only side restarted; had %+v, got %+v", r.Containers, after.Containers)
	}
	if len(b.driver.sandboxes) != sandboxes {
		t.Error("want the restart in the same sandbox")
	}
	b.remove(t, w)
	b.gone(t)
}

func TestRemovalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, nil)
		b.driver.failRemoves = 3
		w := web(1, env("FAKE_START_DELAY=24h")...)
		w.Revision.TargetPort = 0
		b.apply(t, w)
		synctest.Wait()
		b.remove(t, w)
		synctest.Wait()
		if list := b.list(t); len(list) != 1 || list[0].State != resource.ReplicaStopping {
			t.Errorf("while something of it is left: want it listed as %s, got %+v", resource.ReplicaStopping, list)
		}
		time.Sleep(time.Minute)
		b.gone(t)
	})
}

func TestALostEventIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{driver: &spy{Driver: fake.New(fake.Options{}), deafOnce: true}, events: &events{}}
		t.Cleanup(b.driver.Close)
		b.restart(t, nil)
		w := web(1, env("FAKE_START_DELAY=24h")...)
		w.Revision.TargetPort = 0
		b.apply(t, w)
		synctest.Wait()
		b.driver.Crash(b.list(t)[0].Name, 5)
		synctest.Wait()
		time.Sleep(2 * time.Second) // the engine watches again after a pause
		r := b.list(t)[0]
		if r.Restarts != 1 || r.Containers[0].LastExit == nil || r.Containers[0].LastExit.Code != 5 {
			t.Errorf("an exit that was not told: want it found in the list and the container restarted, got %+v", r)
		}
	})
}

func TestFewerReplicasKeepTheBest(t *testing.T) {
	b := setUp(t, func(c *local.Config) { c.Capacity = local.Capacity{Memory: 3 << 29} }) // enough for three
	w := web(4)
	b.apply(t, w)
	list := b.until(t, "three ready and one waiting", func(list []resource.Replica) bool {
		return fmt.Sprint(count(list)) == fmt.Sprint(map[resource.ReplicaState]int{resource.ReplicaReady: 3, resource.ReplicaWaiting: 1})
	})
	w.Replicas = 3
	b.apply(t, w)
	for _, r := range b.ready(t, 3) {
		if !slices.ContainsFunc(list, func(was resource.Replica) bool { return was.Name == r.Name && was.State == resource.ReplicaReady }) {
			t.Errorf("want the waiting replica to go first, but %s is new", r.Name)
		}
	}
	oldest := b.list(t)[0].Name
	w.Replicas = 1
	b.apply(t, w)
	if r := b.ready(t, 1)[0]; r.Name != oldest {
		t.Errorf("want the oldest, %s, to stay, got %s", oldest, r.Name)
	}
}

func count(list []resource.Replica) map[resource.ReplicaState]int {
	n := map[resource.ReplicaState]int{}
	for _, r := range list {
		n[r.State]++
	}
	return n
}

func TestNamesAreNotUsedTwice(t *testing.T) {
	ids := []string{"aaaaa", "aaaaa", "bbbbb", "aaaaa", "ccccc"}
	b := setUp(t, func(c *local.Config) {
		c.NewID = func() string {
			id := ids[0]
			ids = ids[1:]
			return id
		}
	})
	b.apply(t, web(3))
	var got []string
	for _, r := range b.ready(t, 3) {
		got = append(got, r.Name[len(r.Name)-5:])
	}
	slices.Sort(got)
	if want := []string{"aaaaa", "bbbbb", "ccccc"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAWrongPortIsToldWithTheRightOne(t *testing.T) {
	b := setUp(t, nil)
	w := web(1)
	w.Revision.TargetPort = 9999
	w.Revision.Template.Containers[0].Env = []resource.EnvVar{{Name: "PORT", Value: "8080"}}
	b.apply(t, w)
	b.until(t, "the port is told", func([]resource.Replica) bool {
		return slices.ContainsFunc(b.events.all(), func(e resource.Event) bool {
			return e.Reason == "ProbeFailed" && strings.Contains(e.Message, "port 9999; the container listens on 8080")
		})
	})
}
