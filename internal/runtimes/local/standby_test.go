package local_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

// waits waits for the engine to have one standby, which is ready.
func (b *bench) waits(t testing.TB) runtimes.Standby {
	t.Helper()
	end := time.After(20 * time.Second)
	for {
		list, err := b.Standbys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 && list[0].Ready {
			return list[0]
		}
		select {
		case <-time.After(time.Millisecond):
		case <-end:
			t.Fatalf("no standby is ready: %+v\nevents:\n%s", list, b.events)
		}
	}
}

func standbys(c *local.Config) { c.Standbys = 1 }

// changingSecret is the secret "key" of every app.
type changingSecret struct {
	mu    sync.Mutex
	value resource.Secret
}

func (s *changingSecret) set(value resource.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = value
}

// standbys is a configuration with standbys, in which apps have the secret.
func (s *changingSecret) standbys(c *local.Config) {
	standbys(c)
	c.Secrets = func(context.Context, resource.ID) (map[string]resource.Secret, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return map[string]resource.Secret{"key": s.value}, nil
	}
}

// A request may come before anybody has told the engine that a secret was changed.
func TestStandbyIsNotStartedWithAnOldSecret(t *testing.T) {
	var value changingSecret
	value.set("old")
	b := setUp(t, value.standbys)
	w := web(0, resource.EnvVar{Name: "KEY", SecretRef: "key"})
	w.Standby = resource.StandbyCreated
	b.apply(t, w)
	name := b.waits(t).Replica
	value.set("new")
	w.Replicas = 1
	b.apply(t, w)
	if r := b.ready(t, 1)[0]; r.Name != name || r.Restarts != 0 || r.Failures != 0 {
		t.Errorf("want %s woken without a failure, got %+v", name, r)
	}
	made := b.driver.created()
	if last := made[len(made)-1]; !slices.Contains(last.Env, resource.EnvVar{Name: "KEY", Value: "new"}) {
		t.Errorf("started with %+v, want the secret as it is now", last.Env)
	}
}

func TestStandbyIsMadeAgainWhenASecretChanges(t *testing.T) {
	var value changingSecret
	value.set("old")
	b := setUp(t, value.standbys)
	w := web(0, resource.EnvVar{Name: "KEY", SecretRef: "key"})
	w.Standby = resource.StandbyCreated
	b.apply(t, w)
	b.waits(t)
	value.set("new")
	b.apply(t, w)
	end := time.After(20 * time.Second)
	for len(b.driver.created()) < 2 {
		select {
		case <-time.After(time.Millisecond):
		case <-end:
			t.Fatal("it was not made again")
		}
	}
	w.Replicas = 1
	b.apply(t, w)
	b.ready(t, 1)
	if made := b.driver.created(); len(made) != 2 {
		t.Errorf("made %d containers, want 2: the wake starts the second", len(made))
	}
}

// A standby that cannot be made is not tried again at each Apply. The next replica starts without it.
func TestStandbyThatCannotBeMadeIsTriedLater(t *testing.T) {
	var mu sync.Mutex
	asked, missing := 0, errors.New("no such secret")
	b := setUp(t, func(c *local.Config) {
		standbys(c)
		c.Secrets = func(context.Context, resource.ID) (map[string]resource.Secret, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return map[string]resource.Secret{"key": "value"}, missing
		}
	})
	tries := func() int {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
	w := web(0, resource.EnvVar{Name: "KEY", SecretRef: "key"})
	w.Standby = resource.StandbyCreated
	b.apply(t, w)
	end := time.After(20 * time.Second)
	for tries() == 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-end:
			t.Fatal("no standby was tried")
		}
	}
	pace := time.NewTicker(time.Millisecond) // time in which it could be tried between two
	defer pace.Stop()
	for range 100 {
		b.apply(t, w)
		<-pace.C
	}
	mu.Lock()
	missing = nil
	mu.Unlock()
	w.Replicas = 1
	b.apply(t, w)
	b.ready(t, 1)
	if n := tries(); n > 10 {
		t.Errorf("secrets were asked for %d times, want a few: one try, and the start of the replica", n)
	}
}

func TestInitContainersOfAStandbyRunAtTheWake(t *testing.T) {
	b := setUp(t, standbys)
	w := web(0)
	w.Standby = resource.StandbyCreated
	w.Revision.Template.InitContainers = []resource.Container{{Name: "prepare", Image: fake.Done, Resources: resource.Resources{MilliCPU: 250, Memory: 1 << 20}}}
	b.apply(t, w)
	b.waits(t)
	if n := b.events.count("ContainerStarted"); n != 0 {
		t.Errorf("%d containers started of a standby, want none", n)
	}
	b.restart(t, standbys)
	b.apply(t, w)
	b.waits(t)
	w.Replicas = 1
	b.apply(t, w)
	r := b.ready(t, 1)[0]
	if len(r.InitContainers) != 1 || !r.InitContainers[0].Done {
		t.Errorf("want the init container done, got %+v", r.InitContainers)
	}
	if made := b.driver.created(); len(made) != 2 {
		t.Errorf("made %d containers, want each one once", len(made))
	}
}

// What is made ahead may be lost, as by a shim that was killed.
func TestStandbyThatIsLost(t *testing.T) {
	b := setUp(t, standbys)
	w := web(0)
	w.Standby = resource.StandbyCreated
	b.apply(t, w)
	b.waits(t)
	if err := b.driver.Delete(t.Context(), b.driver.created()[0].ID); err != nil {
		t.Fatal(err)
	}
	w.Replicas = 1
	b.apply(t, w)
	if r := b.ready(t, 1)[0]; r.Failures != 0 {
		t.Errorf("want it to be made again at once, got %+v", r)
	}
}

// The crash of the platform comes while a standby is made.
func TestHalfAStandbyIsNotKept(t *testing.T) {
	b := setUp(t, standbys)
	w := web(0)
	w.Standby = resource.StandbyCreated
	b.apply(t, w)
	first := b.waits(t)
	b.stop()
	if err := b.driver.Delete(t.Context(), b.driver.created()[0].ID); err != nil {
		t.Fatal(err)
	}
	b.restart(t, standbys)
	b.apply(t, w)
	if second := b.waits(t); second.Replica == first.Replica {
		t.Errorf("%s has no container, and was kept", first.Replica)
	}
	b.remove(t, w)
	b.gone(t)
}

func TestFrozenReplicaThatEndsIsReplaced(t *testing.T) {
	b := setUp(t, standbys)
	w := web(1)
	w.Standby = resource.StandbyPaused
	b.apply(t, w)
	b.ready(t, 1)
	w.Replicas = 0
	b.apply(t, w)
	frozen := b.waits(t)
	b.driver.Crash(frozen.Replica, 137)
	end := time.After(20 * time.Second)
	for {
		if s := b.waits(t); s.Replica != frozen.Replica {
			if s.Kind != resource.StandbyCreated {
				t.Errorf("got %+v, want one that is created", s)
			}
			break
		}
		select {
		case <-time.After(time.Millisecond):
		case <-end:
			t.Fatal("it was not replaced")
		}
	}
	ends, err := b.Ended(t.Context())
	if err != nil || len(ends) != 1 || ends[0].Replica != frozen.Replica {
		t.Errorf("ends: got %+v, %v, want that of %s", ends, err, frozen.Replica)
	}
}

func TestRemoveAllEndsStandbys(t *testing.T) {
	b := setUp(t, func(c *local.Config) { c.Standbys = 2 })
	for i, kind := range []resource.Standby{resource.StandbyCreated, resource.StandbyPaused, resource.StandbyCreated} {
		w := web(1)
		w.Revision.ID = resource.AppID("s", "g", fmt.Sprint("web", i)).Child("revisions", fmt.Sprintf("web%d--0000001", i))
		w.Standby = kind
		b.apply(t, w)
		b.ready(t, 1)
		w.Replicas = 0
		b.apply(t, w)
		b.until(t, "no replica", func(list []resource.Replica) bool { return len(list) == 0 })
	}
	if strays, err := b.RemoveAll(t.Context()); strays || err != nil {
		t.Errorf("got %t, %v", strays, err)
	}
	b.gone(t)
}
