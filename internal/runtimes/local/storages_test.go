package local_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes/fake"
	"penstock/internal/runtimes/local"
)

func TestStoragesAreFoundAtEachStart(t *testing.T) {
	known := map[string]local.Storage{"models": {Folder: "/srv/models"}}
	with := func(c *local.Config) {
		c.Storage = func(_ context.Context, environment resource.ID, name string) (local.Storage, error) {
			s, ok := known[name]
			if !ok || environment.Base() != "env" {
				return s, fmt.Errorf("storage %q: %w", name, resource.ErrNotFound)
			}
			return s, nil
		}
	}
	b := setUp(t, with)
	volume := func(storage, options string) []resource.Volume {
		return []resource.Volume{{Name: "shared", Type: resource.AzureFile, Storage: storage, MountOptions: options}}
	}
	w := web(2)
	w.Revision.Template.Volumes = volume("models", "")
	w.Revision.Template.Containers[0].Mounts = []resource.VolumeMount{{Volume: "shared", Path: "/models"}}
	w.Revision.Template.InitContainers = []resource.Container{{
		Name: "seed", Image: fake.Write, Args: []string{"/in/weights", "heavy"}, Mounts: []resource.VolumeMount{{Volume: "shared", Path: "/in"}},
		Resources: resource.Resources{MilliCPU: 250, Memory: 1 << 29},
	}}
	b.apply(t, w)
	for _, r := range b.ready(t, 2) {
		if got := text(t, r, "/models/weights"); got != "heavy" {
			t.Errorf("%s reads %q", r.Name, got)
		}
	}
	b.remove(t, w)
	b.until(t, "no replicas", func(list []resource.Replica) bool { return len(list) == 0 })

	other := web(1)
	other.Revision.ID = other.Revision.App().Child("revisions", "web--0000002")
	other.Revision.Template.Volumes = volume("models", "uid=1,ro")
	other.Revision.Template.Containers[0].Mounts = w.Revision.Template.Containers[0].Mounts
	b.apply(t, other)
	if got := text(t, b.ready(t, 1)[0], "/models/weights"); got != "heavy" {
		t.Errorf("another revision reads %q", got)
	}
	made := b.driver.created()
	if m := made[0].Mounts[0]; made[0].Name != "main" || m.Storage != (local.Storage{Folder: "/srv/models"}) {
		t.Errorf("the first container has %+v", m)
	}
	if m := made[2].Mounts[0]; !m.Storage.ReadOnly {
		t.Errorf("a volume with the option ro is mounted as %+v", m)
	}
	b.remove(t, other)
	b.until(t, "no replicas", func(list []resource.Replica) bool { return len(list) == 0 })

	other.Revision.Template.Volumes = volume("gone", "")
	b.apply(t, other)
	b.until(t, "a replica that cannot be started", func(list []resource.Replica) bool {
		return len(list) == 1 && strings.Contains(list[0].Reason, `volume "shared": storage "gone":`)
	})
}
