package local_test

import (
	"errors"
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

func TestTooLargeSaysTheSum(t *testing.T) {
	b := setUp(t, func(c *local.Config) { c.Capacity = local.Capacity{Memory: 2 << 30, Reserve: 1 << 29} })
	w := web(1)
	w.Revision.Template.Containers = append(w.Revision.Template.Containers,
		resource.Container{Name: "cache", Image: "fake/echo", Resources: resource.Resources{Memory: 5 << 28}})
	err := b.Apply(t.Context(), w)
	if !errors.Is(err, runtimes.ErrTooLarge) {
		t.Fatalf("got %v, want %v", err, runtimes.ErrTooLarge)
	}
	want := "a replica needs 1.75 GiB of memory (main 0.5 GiB + cache 1.25 GiB); this machine can promise 1.5 GiB (2 GiB less a reserve of 0.5 GiB)"
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestOvercommit(t *testing.T) {
	b := setUp(t, func(c *local.Config) { c.Capacity = local.Capacity{Memory: 1 << 30, Overcommit: 2} })
	b.apply(t, web(4)) // 4 times half a GiB on a machine with 1 GiB
	b.ready(t, 4)
}

func TestWaitingForMemorySaysWhoHasIt(t *testing.T) {
	b := setUp(t, func(c *local.Config) { c.Capacity = local.Capacity{Memory: 1 << 30} })
	w := web(3)
	b.apply(t, w)
	b.until(t, "two ready and one waiting", func(list []resource.Replica) bool {
		n := count(list)
		return n[resource.ReplicaReady] == 2 && n[resource.ReplicaWaiting] == 1
	})
	ev := b.events.want(t, "InsufficientMemory", "waiting for memory: needs 0.5 GiB, 0 MiB of 1 GiB are free; in use by web--0000001 1 GiB (2 replicas)")
	if !ev.Warning {
		t.Error("want a warning")
	}
	w.Replicas = 0
	b.apply(t, w)
	b.gone(t)
}

func TestMoreCPUThanThereIsRunsAndSaysSoOnce(t *testing.T) {
	b := setUp(t, func(c *local.Config) { c.Capacity = local.Capacity{MilliCPU: 2000} })
	w := web(1)
	w.Revision.Template.Containers[0].Resources.MilliCPU = 4000
	for n := range 3 {
		w.Replicas = n + 1
		b.apply(t, w)
	}
	b.ready(t, 3)
	ev := b.events.want(t, "InsufficientCPU", "A replica asks for 4 vCPU and this machine has 2")
	n := 0
	for _, reason := range b.events.reasons() {
		if reason == "InsufficientCPU" {
			n++
		}
	}
	if n != 1 || !ev.Warning || ev.Revision != w.Revision.Name() {
		t.Errorf("want one warning about %s, got %d: %+v", w.Revision.Name(), n, ev)
	}
}

// While a disk is nearly full, no further replica is created. The event names the figures, and the engine checks again
// without being asked.
func TestADiskKeepsItsReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Int64
		free.Store(1 << 30)
		b := setUp(t, func(c *local.Config) {
			c.Capacity = local.Capacity{DiskFree: func() (int64, error) { return free.Load(), nil }, DiskReserve: 2 << 30}
		})
		w := web(1)
		w.Revision.TargetPort = 0
		w.Revision.Template.Containers[0].Image = fake.Exit
		b.apply(t, w)
		time.Sleep(time.Minute) // the bubble's time
		const why = "waiting for disk space: 1 GiB are free, and 2 GiB are kept free for the replicas that run"
		if r := b.list(t)[0]; r.State != resource.ReplicaWaiting || r.Reason != why || r.Hopeless {
			t.Errorf("below the reserve: %s, %q; want it waiting, %q", r.State, r.Reason, why)
		}
		b.events.want(t, "InsufficientDisk", why)
		if n := b.events.count("InsufficientDisk"); n != 1 {
			t.Errorf("told %d times, want once", n)
		}
		free.Store(2 << 30)
		time.Sleep(time.Minute)
		b.events.want(t, "ContainerStarted", "")
		b.stop()
	})
}

func TestADiskThatDoesNotTellIsNoReason(t *testing.T) {
	b := setUp(t, func(c *local.Config) {
		c.Capacity = local.Capacity{DiskFree: func() (int64, error) { return 0, errors.New("no such disk") }, DiskReserve: 1}
	})
	b.apply(t, web(1))
	b.ready(t, 1)
}
