package local_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

// sized is an app of its own whose replicas need that many MiB. They use no sockets, so that the time of a synctest bubble
// moves on; in this test only their memory matters.
func sized(name string, mib int64) runtimes.Workload {
	w := web(1)
	w.Revision.ID = resource.AppID("s", "g", name).Child("revisions", name+"--1")
	w.Revision.TargetPort = 0
	c := &w.Revision.Template.Containers[0]
	c.Image, c.Resources.Memory = fake.Exit, mib<<20
	return w
}

// crowded is a machine with so much memory, on which what ends is not started again soon.
func crowded(memory int64) func(*local.Config) {
	return func(c *local.Config) {
		c.Capacity = local.Capacity{Memory: memory}
		c.Backoff = local.Backoff{First: 24 * time.Hour, Max: 24 * time.Hour}
	}
}

// has reports whether a workload has its memory.
func (b *bench) has(t *testing.T, w runtimes.Workload) bool {
	t.Helper()
	for _, r := range b.list(t) {
		if r.Revision.Equal(w.Revision.ID) && r.State != resource.ReplicaStopping && r.State != resource.ReplicaCreating && !strings.HasPrefix(r.Reason, "waiting for memory") {
			return true
		}
	}
	return false
}

// comeAndGo runs small apps, one after the other in each of two places. Each leaves 20 s after it has got its memory, and
// another one comes. The places change 10 s apart, so that both are never free at once. It returns how many small apps got
// memory, and the longest time that one waited.
func (b *bench) comeAndGo(t *testing.T, mib int64, over time.Duration) (started int, longest time.Duration) {
	t.Helper()
	const life, step = 20 * time.Second, time.Second
	type place struct {
		w       runtimes.Workload
		came    time.Time
		started time.Time
	}
	places := make([]*place, 2)
	n := 0
	for began := time.Now(); time.Since(began) < over; time.Sleep(step) {
		for i, p := range places {
			switch {
			case p == nil && time.Since(began) >= time.Duration(i)*life/2:
				n++
				p = &place{w: sized(fmt.Sprintf("small-%d", n), mib), came: time.Now()}
				places[i] = p
				b.apply(t, p.w)
			case p == nil:
			case p.started.IsZero():
				longest = max(longest, time.Since(p.came))
				if b.has(t, p.w) {
					p.started = time.Now()
					started++
				}
			case time.Since(p.started) >= life:
				b.remove(t, p.w)
				places[i] = nil
			}
		}
	}
	for _, p := range places {
		if p != nil {
			b.remove(t, p.w)
		}
	}
	return started, longest
}

// A large replica gets its turn although small ones come and go all the time and never leave enough memory free at once.
func TestALargeReplicaDoesNotStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, crowded(1<<30))
		large := sized("large", 1024)
		var came time.Duration
		go func() {
			time.Sleep(15 * time.Second) // both places are taken by then
			_ = b.Apply(context.Background(), large)
			for began := time.Now(); !b.has(t, large); time.Sleep(time.Second) {
				if came = time.Since(began); came > 10*time.Minute {
					t.Errorf("the large replica has no memory after %v:\n%s", came, b.events)
					return
				}
			}
			time.Sleep(20 * time.Second)
			b.remove(t, large)
		}()
		started, longest := b.comeAndGo(t, 512, 15*time.Minute)
		t.Logf("the large replica waited %v; %d small ones started, the longest waited %v", came, started, longest)
		if came > 2*time.Minute {
			t.Errorf("the large replica waited %v, want its turn after half a minute and the rest of two lives of 20 s", came)
		}
		if longest > 3*time.Minute {
			t.Errorf("a small replica waited %v, want at most the wait and the life of the large one", longest)
		}
		b.events.want(t, "MemoryKept", "needs 1 GiB and has waited for 30s: memory that becomes free is kept for it.")
		b.events.want(t, "InsufficientMemory", "waiting for memory: needs 1 GiB, 0 MiB of 1 GiB are free; in use by")
		b.stop()
	})
}

// A large replica that cannot get enough memory, because another app stays, does not keep small ones from starting.
func TestALargeReplicaDoesNotBlockSmallOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, crowded(1536<<20))
		stays := sized("stays", 512)
		b.apply(t, stays)
		time.Sleep(time.Second)
		large := sized("large", 1280)
		b.apply(t, large)
		started, longest := b.comeAndGo(t, 512, 2*time.Hour)
		t.Logf("%d small replicas started in two hours, the longest waited %v", started, longest)
		if b.has(t, large) {
			t.Fatal("the large replica has memory that is not there")
		}
		// Without the large one, 720 would start. It may keep memory for half of the time.
		if started < 200 || longest > 4*time.Minute {
			t.Errorf("%d small replicas started in two hours and the longest waited %v, want at least 200 and at most 4m", started, longest)
		}
		if n := b.events.count("InsufficientMemory"); n > 1+started+2 {
			t.Errorf("%d events about memory for %d starts, want at most one for each replica", n, started)
		}
		b.events.want(t, "MemoryKept", "")
		b.stop()
	})
}

// Nothing is kept for a replica while no memory is given back: a small one that fits starts at once.
func TestASmallReplicaStartsBesideALargeOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, crowded(1<<30))
		b.apply(t, sized("stays", 512))
		time.Sleep(time.Second)
		large := sized("large", 1024)
		b.apply(t, large)
		time.Sleep(10 * time.Minute)
		small := sized("small", 256)
		b.apply(t, small)
		time.Sleep(time.Second)
		if !b.has(t, small) || b.has(t, large) {
			t.Errorf("small has memory: %v, large: %v; want only small to have some:\n%s", b.has(t, small), b.has(t, large), b.events)
		}
		if n := b.events.count("InsufficientMemory"); n != 1 {
			t.Errorf("%d events about the one that waits, want one", n)
		}
		b.stop()
	})
}

// maxReplicas beyond what the machine can promise is said once, with the number that can run.
func TestMaxReplicasBeyondTheMachine(t *testing.T) {
	b := setUp(t, func(c *local.Config) { c.Capacity = local.Capacity{Memory: 2 << 30, Reserve: 256 << 20} })
	w := web(1)
	w.Revision.Template.Scale.Max = 10
	for n := range 5 {
		w.Replicas = n + 1
		b.apply(t, w)
	}
	b.until(t, "three ready and two waiting", func(list []resource.Replica) bool {
		n := count(list)
		return n[resource.ReplicaReady] == 3 && n[resource.ReplicaWaiting] == 2
	})
	ev := b.events.want(t, "MaxReplicasBeyondMachine", "maxReplicas is 10, and that many replicas of 0.5 GiB would need 5 GiB of memory. "+
		"This machine can promise 1.75 GiB (2 GiB less a reserve of 0.25 GiB): at most 3 run at a time, and others wait.")
	if n := b.events.count("MaxReplicasBeyondMachine"); n != 1 || ev.Revision != w.Revision.Name() {
		t.Errorf("%d events, want one about %s", n, w.Revision.Name())
	}
}
