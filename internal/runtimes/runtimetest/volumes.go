package runtimetest

import (
	"net/http"
	"testing"

	"penstock/internal/resource"
)

func testVolumes(t *testing.T, m *machine) {
	w := m.withInit(m.workload("web", m.Serve, 1), m.Write, m.Write)
	template := &w.Revision.Template
	template.Volumes = []resource.Volume{{Name: "one", Type: resource.EmptyDir}, {Name: "two", Type: resource.EmptyDir}}
	template.InitContainers[0].Args = []string{"/in/hello", "from the first"}
	template.InitContainers[0].Mounts = []resource.VolumeMount{{Volume: "one", Path: "/in"}}
	template.InitContainers[1].Args = []string{"/in/deep/hello", "from the second"}
	template.InitContainers[1].Mounts = []resource.VolumeMount{{Volume: "two", Path: "/in"}, {Volume: "one", Path: "/in/deep", SubPath: "a/b"}}
	template.Containers[0].Mounts = []resource.VolumeMount{
		{Volume: "two", Path: "/data/two"}, {Volume: "one", Path: "/data"}, {Volume: "one", Path: "/part", SubPath: "a"},
		{Volume: "one", Path: "/whole", SubPath: "./"},
	}
	m.apply(t, w)
	r := m.ready(t, w, 1)[0]
	check := func(when string) {
		t.Helper()
		for path, want := range map[string]string{
			"/data/hello": "from the first", "/data/a/b/hello": "from the second", "/part/b/hello": "from the second",
			"/whole/hello":    "from the first",
			"/data/two/hello": "", "/in/hello": "",
		} {
			status, got := m.file(t, r.Address, path)
			if want == "" && status != http.StatusNotFound || want != "" && (status != http.StatusOK || got != want) {
				t.Errorf("%s: file %s: want %q, got %d %q", when, path, want, status, got)
			}
		}
	}
	check("after init")
	m.Crash(t, r)
	r = m.until(t, w.Revision, "a restart", func(list []resource.Replica) bool {
		return len(list) == 1 && list[0].Restarts > 0 && list[0].State == resource.ReplicaReady
	})[0]
	check("after a restart of the container")
	m.stop()
	m.start(t)
	r = m.ready(t, w, 1)[0]
	check("after a restart of the platform")

	template.InitContainers = nil
	w.Revision.ID = w.Revision.App().Child("revisions", "web--0000002")
	m.apply(t, w)
	next := m.ready(t, w, 1)[0]
	if status, text := m.file(t, next.Address, "/data/hello"); status != http.StatusNotFound {
		t.Errorf("another replica: want its volumes empty, got %d %q", status, text)
	}
}
