package local_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
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
