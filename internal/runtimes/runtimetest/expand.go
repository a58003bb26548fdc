package runtimetest

import (
	"net/http"
	"strings"
	"testing"

	"penstock/internal/resource"
)

// A container's variables and words have the values of earlier variables for $(NAME), as in Kubernetes.
func testExpand(t *testing.T, m *machine) {
	w := m.withInit(m.workload("web", m.Serve, 1), m.Write)
	template := &w.Revision.Template
	template.Volumes = []resource.Volume{{Name: "one", Type: resource.EmptyDir}}
	init := &template.InitContainers[0]
	init.Mounts = []resource.VolumeMount{{Volume: "one", Path: "/in"}}
	init.Env = append(init.Env,
		resource.EnvVar{Name: "FIRST", Value: "$(SECOND) $$(FIRST)"},
		resource.EnvVar{Name: "SECOND", Value: "by $(CONTAINER_APP_REPLICA_NAME)"},
		resource.EnvVar{Name: "FILE", Value: "hello"},
	)
	init.Args = []string{"/in/$(FILE)", "$(FIRST)|$(SECOND)|$$(SECOND)|$(NONE)|$(date)"}
	template.Containers[0].Mounts = []resource.VolumeMount{{Volume: "one", Path: "/data"}}
	m.apply(t, w)
	r := m.ready(t, w, 1)[0]
	want := strings.Join([]string{"$(SECOND) $(FIRST)", "by " + r.Name, "$(SECOND)", "$(NONE)", "$(date)"}, "|")
	if status, got := m.file(t, r.Address, "/data/hello"); status != http.StatusOK || got != want {
		t.Errorf("got %d %q, want %q", status, got, want)
	}
}
