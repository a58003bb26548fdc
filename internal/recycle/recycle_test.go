package recycle_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock/internal/leak"
	"penstock/internal/recycle"
	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

const (
	mib   = 1 << 20
	limit = 1024 // MiB
)

var revID = resource.AppID("s", "g", "chat").Child("revisions", "chat--1")

// world is a watcher over replicas whose memory is a function of their age.
type world struct {
	*recycle.Watcher
	rev resource.Revision

	mu       sync.Mutex
	replicas []resource.Replica
	used     map[string]func(age time.Duration) float64 // MiB, by replica
	events   []resource.Event
	touched  int
	looks    int
	moments  map[time.Time]bool // of looks
	err      error
}

// watch runs f in a bubble, with a watcher over an app whose tag penstock.recycle has that value.
func watch(t *testing.T, share int, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{used: map[string]func(time.Duration) float64{}}
		w.rev = resource.Revision{ID: revID, RevisionStatus: resource.RevisionStatus{Settings: resource.Settings{Recycle: share}}}
		w.Watcher = recycle.New(recycle.Config{
			Usage: w.usage,
			Touch: func(id resource.ID) {
				if id.Key() != revID.Parent().Key() {
					t.Errorf("touched %s", id)
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				w.touched++
			},
			Emit: func(e resource.Event) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.events = append(w.events, e)
			},
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = w.Run(ctx) })
		f(w)
		cancel()
		wg.Wait()
	})
}

func (w *world) usage(_ context.Context, name string) (u runtimes.Usage, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if w.moments != nil {
		w.moments[time.Now().Round(0)] = true
	}
	i := slices.IndexFunc(w.replicas, func(r resource.Replica) bool { return r.Name == name })
	if i < 0 {
		return u, fmt.Errorf("replica %s: %w", name, resource.ErrNotFound)
	}
	if w.err != nil {
		return u, w.err
	}
	for _, c := range w.replicas[i].Containers {
		used := 100.0
		if c.Name == "main" {
			used = w.used[name](time.Since(c.Started))
		}
		u.Containers = append(u.Containers, runtimes.ContainerMemory{Container: c.Name, Used: uint64(used * mib), Limit: limit * mib})
	}
	return u, nil
}

// add starts a replica that is ready after two seconds. used is in MiB.
func (w *world) add(name string, used func(age time.Duration) float64) {
	now := time.Now()
	w.mu.Lock()
	w.used[name] = used
	w.replicas = append(w.replicas, resource.Replica{
		Name: name, Revision: revID, State: resource.ReplicaStarting, Created: now,
		Containers: []resource.ContainerStatus{{Name: "main", Started: now, Running: true}, {Name: "proxy", Started: now, Running: true}},
	})
	w.mu.Unlock()
	w.pass()
	time.Sleep(2 * time.Second)
	w.mu.Lock()
	r := &w.replicas[len(w.replicas)-1]
	r.State, r.ReadySince = resource.ReplicaReady, time.Now()
	w.mu.Unlock()
	w.pass()
}

func (w *world) remove(name string) {
	w.mu.Lock()
	w.replicas = slices.DeleteFunc(w.replicas, func(r resource.Replica) bool { return r.Name == name })
	w.mu.Unlock()
	w.pass()
}

// pass does what a pass of reconcile does.
func (w *world) pass() (worn []string, why map[string]string) {
	w.mu.Lock()
	list := slices.Clone(w.replicas)
	w.mu.Unlock()
	return w.Worn(w.rev, list)
}

// worn waits until a replica must be replaced.
func (w *world) worn(within time.Duration) []string {
	for began := time.Now(); time.Since(began) < within; time.Sleep(time.Second) {
		if names, _ := w.pass(); len(names) > 0 {
			return names
		}
	}
	return nil
}

func (w *world) told(reason string) (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Reason == reason {
			list = append(list, e.Message)
		}
	}
	return list
}

func grows(perMinute float64) func(time.Duration) float64 {
	return func(age time.Duration) float64 { return min(limit, 100+perMinute*age.Minutes()) }
}

func flat(mib float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return mib }
}

// A replica that leaks 50 MB a minute is replaced at the share, and an event says why. The one that does not leak stays.
func TestALeakingReplicaIsWorn(t *testing.T) {
	watch(t, 80, func(w *world) {
		w.add("leaks", grows(50))
		w.add("stays", flat(400))
		got := w.worn(time.Hour)
		if !slices.Equal(got, []string{"leaks"}) || w.touched != 1 {
			t.Fatalf("got %v after %d touches, want the leaking one after one", got, w.touched)
		}
		const why = "container 'main' uses 819 MiB of its memory limit of 1024 MiB"
		if _, all := w.pass(); !strings.HasPrefix(all["leaks"], "container 'main' uses 8") {
			t.Errorf("got the reason %q, want one like %q", all["leaks"], why)
		}
		if list := w.told("ReplicaRecycling"); len(list) != 1 || !strings.HasPrefix(list[0], `Replica "leaks" is replaced: container 'main' uses 8`) {
			t.Errorf("events: %q", list)
		}
		list := w.Explain(revID)
		if len(list) != 4 || list[0].Replica != "leaks" || list[0].Container != "main" || list[0].Worn == "" || list[3].Worn != "" {
			t.Fatalf("explained as %+v, want four containers, the first worn", list)
		}
		if rate := list[0].PerHour / mib; rate < 2900 || rate > 3100 || list[0].Left < 3*time.Minute || list[0].Left > 5*time.Minute {
			t.Errorf("explained as %+v, want 3000 MiB an hour and four minutes left", list[0])
		}
		w.remove("leaks")
		if names, _ := w.pass(); len(names) != 0 {
			t.Errorf("%v are worn after it has gone", names)
		}
		w.Forget(revID)
		if list := w.Explain(revID); list != nil {
			t.Errorf("explained as %+v after it was forgotten", list)
		}
	})
}

// Without the tag, nothing is replaced, and the leak is reported once. It is reported again when it is much faster.
func TestALeakIsReportedOnce(t *testing.T) {
	watch(t, 0, func(w *world) {
		w.add("one", func(age time.Duration) float64 { return 100 + 2*age.Minutes() + 8*max(0, age.Minutes()-330) })
		w.add("two", func(age time.Duration) float64 { return 100 + 2.1*age.Minutes() })
		time.Sleep(330 * time.Minute)
		list := w.told("MemoryLeak")
		if len(list) != 1 || !strings.Contains(list[0], "The memory of container 'main' has grown by 12") || !strings.Contains(list[0], "and reaches the limit in about 3h") || !strings.Contains(list[0], "Set the tag penstock.recycle") {
			t.Fatalf("got %q, want one leak of about 120 MiB an hour", list)
		}
		time.Sleep(28 * time.Minute)
		if list = w.told("MemoryLeak"); len(list) != 2 {
			t.Errorf("got %q, want one more event about the faster leak", list)
		}
		if worn, _ := w.pass(); len(worn) != 0 || w.touched != 0 {
			t.Errorf("%v are worn without the tag", worn)
		}
		for _, e := range w.events {
			if !e.Warning || e.App.Key() != revID.Parent().Key() || e.Revision != "chat--1" {
				t.Errorf("got %+v, want warnings about the revision", e)
			}
		}
	})
}

// After the kernel has killed a process at its limit, the growth of the next one is not taken for warming up.
func TestAProcessThatWasKilledAtItsLimit(t *testing.T) {
	watch(t, 0, func(w *world) {
		w.add("one", grows(450)) // full within two minutes
		time.Sleep(2 * time.Minute)
		if list := w.told("MemoryLeak"); len(list) != 0 {
			t.Errorf("the first process: got %q, want nothing, as it may be warming up", list)
		}
		w.mu.Lock()
		c := &w.replicas[0].Containers[0]
		c.LastExit, c.Started, c.Restarts = &resource.Exit{Code: 137, OOM: true}, time.Now(), 1
		w.mu.Unlock()
		w.pass()
		time.Sleep(110 * time.Second)
		if list := w.told("MemoryLeak"); len(list) != 1 {
			t.Errorf("the next process: got %q, want the leak", list)
		}
	})
}

// A share below what each replica needs is reported once, and replaces none for ever.
func TestAShareThatIsTooLow(t *testing.T) {
	watch(t, 50, func(w *world) {
		w.add("one", func(age time.Duration) float64 { return 100 + 500*min(1, age.Minutes()) })
		if worn := w.worn(2 * time.Hour); worn != nil {
			t.Errorf("%v are worn, want none that would be followed by another one", worn)
		}
		w.add("two", flat(600))
		time.Sleep(time.Hour)
		if list := w.told("RecycleShareTooLow"); len(list) != 1 || !strings.Contains(list[0], "needs 600 MiB of its limit of 1024 MiB even without a leak") {
			t.Errorf("got %q, want one event", list)
		}
	})
}

// Another process of the platform finds replicas that have run for long. One that uses more than the share is replaced, and what it
// uses is not taken for what it needs. The time since it was created is not taken for the time that a start takes.
func TestReplicasThatAreFoundRunning(t *testing.T) {
	watch(t, 80, func(w *world) {
		long := time.Now().Add(-48 * time.Hour)
		for name, mib := range map[string]float64{"leaked": 850, "needs little": 300} {
			w.used[name] = flat(mib)
			w.replicas = append(w.replicas, resource.Replica{
				Name: name, Revision: revID, State: resource.ReplicaStarting, Created: long,
				Containers: []resource.ContainerStatus{{Name: "main", Started: long, Running: true}},
			})
		}
		w.pass()
		time.Sleep(time.Second)
		w.mu.Lock()
		for i := range w.replicas {
			w.replicas[i].State, w.replicas[i].ReadySince = resource.ReplicaReady, time.Now()
		}
		w.mu.Unlock()
		if got := w.worn(time.Minute); !slices.Equal(got, []string{"leaked"}) {
			t.Errorf("got %v, want the one above the share", got)
		}
		w.remove("leaked")
		// Full within ten minutes. If a start took two days, this would be replaced at half of its limit.
		w.add("next", func(age time.Duration) float64 { return 300 + 70*age.Minutes() })
		w.worn(time.Hour)
		if list := w.told("ReplicaRecycling"); len(list) != 2 || !strings.Contains(list[1], "uses 8") {
			t.Errorf("got %q, want the next one replaced at 80 %%", list)
		}
		if list := w.told("RecycleShareTooLow"); len(list) != 0 {
			t.Errorf("got %q", list)
		}
	})
}

// Replicas at rest are looked at rarely, and an error of the engine ends nothing.
func TestLooks(t *testing.T) {
	watch(t, 0, func(w *world) {
		w.add("one", flat(400))
		time.Sleep(time.Minute)
		w.mu.Lock()
		w.err, w.looks = errors.New("no such file"), 0
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		w.mu.Lock()
		if w.looks < 19 || w.looks > 26 {
			t.Errorf("%d looks in ten minutes, want about 20", w.looks)
		}
		w.err = nil
		w.mu.Unlock()
		time.Sleep(time.Minute)
		if list := w.Explain(revID); len(list) != 2 || list[0].Trend != (leak.Trend{Used: 400 * mib, Limit: limit * mib}) {
			t.Errorf("explained as %+v", list)
		}
	})
}

// Replicas at rest are looked at together, whenever they were started, so that many of them wake the process up rarely.
func TestLooksMeet(t *testing.T) {
	watch(t, 0, func(w *world) {
		for i := range 20 {
			w.add(fmt.Sprintf("r%d", i), flat(400))
			time.Sleep(700 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		w.mu.Lock()
		w.looks, w.moments = 0, map[time.Time]bool{}
		w.mu.Unlock()
		time.Sleep(5 * time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		// Every 30 s, at each sixth second.
		if most := 5*60/6 + 1; len(w.moments) > most || w.looks < 20*9 || w.looks > 20*12 {
			t.Errorf("%d looks at %d moments in five minutes, want about 200 at no more than %d", w.looks, len(w.moments), most)
		}
	})
}
