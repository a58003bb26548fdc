package local_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

// A replica of which nothing is left after a restart of the platform has ended, at an unknown time.
func TestEndOfAReplicaThatIsGone(t *testing.T) {
	folder := t.TempDir()
	config := func(c *local.Config) { c.Replicas = folder }
	b := setUp(t, config)
	b.apply(t, web(1))
	r := b.ready(t, 1)[0]
	b.stop()
	list, err := b.driver.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		for _, c := range s.Containers {
			if err := b.driver.Delete(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.driver.RemoveSandbox(t.Context(), s.Replica); err != nil {
			t.Fatal(err)
		}
	}
	// Next to it are files that no platform wrote, or did not finish.
	for name, text := range map[string]string{"other.json": "{", ".half.json-123": "{"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	back := time.Now()
	for range 2 { // once, no matter how often the platform restarts
		b.restart(t, config)
		ends, err := b.Ended(t.Context())
		if err != nil || len(ends) != 1 {
			t.Fatalf("want one end, got %+v, %v", ends, err)
		}
		if end := ends[0]; end.Replica != r.Name || end.Reason != runtimes.EndGone || end.Ended.Before(back) || !end.Ready.Equal(r.ReadySince) {
			t.Errorf("want the end of %+v by %s, got %+v", r, runtimes.EndGone, end)
		}
	}
}

// A replica that never ran has no end and leaves no record.
func TestNoEndOfWhatNeverRan(t *testing.T) {
	folder := t.TempDir()
	b := setUp(t, func(c *local.Config) { c.Replicas = folder })
	w := web(1)
	w.Revision.Template.Containers[0].Env = []resource.EnvVar{{Name: "FAKE_START_ERROR", Value: "no such file"}}
	b.apply(t, w)
	b.until(t, "a failed start", func(list []resource.Replica) bool { return len(list) == 1 && list[0].Failures > 0 })
	b.remove(t, w)
	b.gone(t)
	ends, err := b.Ended(t.Context())
	if err != nil || len(ends) != 0 {
		t.Errorf("want no end, got %+v, %v", ends, err)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
		t.Errorf("want no records left, got %v, %v", entries, err)
	}
}

// The platform may end after it was asked to end replicas and before it could tell them, because it was still starting
// a container of theirs.
func TestReplicasToEndWhenThePlatformEndsAreNotRestarted(t *testing.T) {
	d, told := &spy{Driver: fake.New(fake.Options{})}, &events{}
	t.Cleanup(d.Close)
	held, creating := make(chan struct{}), make(chan struct{})
	d.before(func(c local.Container) {
		if c.Name == "sidecar" {
			creating <- struct{}{}
			<-held
		}
	})
	const replicas = 8
	cfg := local.Config{Driver: d, Replicas: t.TempDir(), Starts: replicas, Backoff: quick, Emit: told.add, Scheme: "fake", Log: slog.New(slog.DiscardHandler)}
	first := local.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- first.Run(ctx) }()
	w := web(replicas)
	sidecar := w.Revision.Template.Containers[0]
	sidecar.Name = "sidecar"
	w.Revision.Template.Containers = append(w.Revision.Template.Containers, sidecar)
	b := &bench{Engine: first, driver: d, events: told}
	b.apply(t, w)
	for range replicas {
		<-creating
	}
	b.remove(t, w)
	cancel()
	close(held)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, c := range d.created() {
		if c.Name == "main" {
			if err := d.Kill(t.Context(), c.ID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	started := told.count("ContainerStarted")
	d.before(nil)
	b.Engine, _ = start(t, cfg)
	b.gone(t)
	if again := told.count("ContainerStarted") - started; again != 0 {
		t.Errorf("%d containers were started again after their replicas had been told to end", again)
	}
}
