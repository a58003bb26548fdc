package reconcile_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// leaky is a Recycler that finds the replicas that a test names worn.
type leaky struct {
	mu    sync.Mutex
	worn  []string
	most  int // replicas of a revision that it was told of
	reset map[string]bool
}

func (l *leaky) Worn(_ resource.Revision, replicas []resource.Replica) (names []string, why map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = max(l.most, len(replicas))
	why = map[string]string{}
	for _, name := range l.worn {
		if slices.ContainsFunc(replicas, func(r resource.Replica) bool { return r.Name == name }) {
			names, why[name] = append(names, name), "it leaks"
		}
	}
	return names, why
}

func (l *leaky) Forget(id resource.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reset[id.Base()] = true
}

// leaking is a world in which the test says which replicas leak.
func leaking(t *testing.T, change ...func(*world)) (w *world, wear func(names ...string)) {
	l := &leaky{reset: map[string]bool{}}
	w = newWorld(t, append(change, func(w *world) { w.worn = l })...)
	return w, func(names ...string) {
		l.mu.Lock()
		l.worn = append(l.worn, names...)
		l.mu.Unlock()
		w.reconciler.Touch(chat)
	}
}

// most counts the replicas that run at a time, until the test stops it.
func (w *world) most(revision string) (stop func() int) {
	done, over := make(chan struct{}), make(chan int)
	go func() {
		most := 0
		for {
			select {
			case <-done:
				over <- most
				return
			default:
				if all, err := w.engine.Replicas(w.t.Context()); err == nil {
					n := 0
					for _, r := range all {
						if r.Revision.Base() == revision {
							n++
						}
					}
					most = max(most, n)
				}
				time.Sleep(time.Millisecond)
			}
		}
	}()
	return func() int { close(done); return <-over }
}

// A replica that leaks serves until another one is ready, and ends after its last request. There is one more than maxReplicas for
// so long.
func TestALeakingReplicaGetsASuccessor(t *testing.T) {
	w, wear := leaking(t)
	revision := w.put(func(a *resource.App) { a.Template.Scale = resource.Scale{Min: 2, Max: 2} }).LatestRevision
	old := w.running(revision)
	end := w.request(old[0])
	fewest, most := w.watch(), w.most(revision)
	wear(old[0])
	w.until("another one takes the requests", func() bool {
		up := w.routes.revision(revision).Replicas
		return len(up) == 2 && !slices.ContainsFunc(up, func(r link.Replica) bool { return r.Name == old[0] })
	})
	if !slices.Contains(w.running(revision), old[0]) {
		t.Error("it went while a request was on it")
	}
	if w.saw("ReplicaRecycled") {
		t.Error("it is said to end while a request is on it")
	}
	end()
	w.until("it has gone", func() bool { now := w.running(revision); return len(now) == 2 && !slices.Contains(now, old[0]) })
	if now := w.running(revision); !slices.Contains(now, old[1]) {
		t.Errorf("%v run, want %s among them, which does not leak", now, old[1])
	}
	if few, many := fewest(revision), most(); few < 2 || many != 3 {
		t.Errorf("a table had %d replicas, and %d ran at a time, want 2 and 3", few, many)
	}
	if !w.saw("ReplicaRecycled") {
		t.Error("no event says that it was replaced")
	}
}

// Replicas that leak at the same time are replaced one after the other where there may be no more of them, each as soon as the one
// before has gone, and together where there may.
func TestReplicasThatLeakTogether(t *testing.T) {
	for name, test := range map[string]struct{ maxReplicas, most int }{
		"at maxReplicas":    {3, 4},
		"below maxReplicas": {10, 6},
		"close to it":       {4, 5},
	} {
		t.Run(name, func(t *testing.T) {
			w, wear := leaking(t)
			revision := w.put(func(a *resource.App) { a.Template.Scale = resource.Scale{Min: 3, Max: test.maxReplicas} }).LatestRevision
			old := w.running(revision)
			fewest, most := w.watch(), w.most(revision)
			wear(old...)
			w.replaced(revision, old, 3)
			if few, many := fewest(revision), most(); few < 3 || many > test.most {
				t.Errorf("a table had %d replicas, and %d ran at a time, want 3 and at most %d", few, many, test.most)
			}
		})
	}
}

// A leaking replica whose successor does not start goes on serving.
func TestALeakingReplicaServesUntilItsSuccessorStarts(t *testing.T) {
	w, wear := leaking(t)
	w.set("code", "1")
	revision := w.put(func(a *resource.App) {
		a.Template.Containers[0].Env = []resource.EnvVar{{Name: "FAKE_EXIT_CODE", SecretRef: "code"}}
	}).LatestRevision
	old := w.running(revision)
	w.set("code", "")
	wear(old[0])
	w.until("the successor says what it lacks", func() bool { return w.saw("ContainerCreateFailure") })
	if up := w.routes.revision(revision).Replicas; len(up) != 1 || up[0].Name != old[0] {
		t.Errorf("requests go to %v, want %s", up, old[0])
	}
	w.set("code", "2")
	w.replaced(revision, old, 1)
}

// When fewer are wanted, the leaking one goes, and none takes its place.
func TestScaleInTakesALeakingReplica(t *testing.T) {
	s := &scaler{n: 3, forgotten: map[string]bool{}}
	w, wear := leaking(t, func(w *world) { w.scale = s })
	revision := w.put(func(a *resource.App) { a.Template.Scale = resource.Scale{Min: 0, Max: 3} }).LatestRevision
	w.until("three replicas", w.replicas(3))
	old := w.running(revision)
	most := w.most(revision)
	s.mu.Lock()
	s.n = 2
	s.mu.Unlock()
	wear(old[0])
	w.until("the two others", func() bool { return slices.Equal(w.running(revision), old[1:]) })
	if n := most(); n > 3 {
		t.Errorf("%d ran at a time, want no successor", n)
	}
	s.mu.Lock()
	s.n = 0
	s.mu.Unlock()
	w.reconciler.Touch(chat)
	w.until("no replica", w.replicas(0))
}

// Without room for one more, the leaking replica makes room: requests wait, and none is lost.
func TestALeakingReplicaMakesRoomForItsSuccessor(t *testing.T) {
	w, wear := leaking(t)
	revision := w.put(func(a *resource.App) { a.Template.Containers[0].Resources.Memory = room }).LatestRevision
	old := w.running(revision)
	end := w.request(old[0])
	wear(old[0])
	w.until("it gets no more requests", func() bool { return len(w.routes.revision(revision).Replicas) == 0 })
	if got := w.ask(host); got != "held: " {
		t.Errorf("got %q, want a request that is held", got)
	}
	end()
	w.replaced(revision, old, 1)
}
