package containerd_test

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"penstock/internal/resource"
	"penstock/internal/runtimes/local"
)

// field returns the value of a line of /proc/self/status in the container.
func (r *replica) field(name string) string {
	r.Helper()
	for line := range strings.Lines(r.file("/proc/self/status")) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func TestContainerHasDockersRightsInAUserNamespace(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("one", nil)
	other := l.run("two", nil)
	ids := strings.Fields(r.file("/proc/self/uid_map"))
	if len(ids) != 3 || ids[0] != "0" || ids[1] == "0" || ids[2] != "65536" {
		t.Errorf("uid map %v, want 65536 ids that are not the host's", ids)
	}
	if others := strings.Fields(other.file("/proc/self/uid_map")); len(others) == 3 && others[1] == ids[1] {
		t.Errorf("both replicas have the ids from %s", ids[1])
	}
	for name, want := range map[string]string{
		"NoNewPrivs": "1",
		"Seccomp":    "2",
		// chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod
		// audit_write setfcap
		"CapEff": "00000000a80425fb",
		"CapBnd": "00000000a80425fb",
	} {
		if got := r.field(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if got := r.file("/proc/interrupts"); got != "" {
		t.Errorf("/proc/interrupts is not masked: %d bytes", len(got))
	}
}

func TestNoCapabilitiesWhenAskedForNone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("bare", func(s *local.Sandbox, _ *local.Container) { s.Capabilities = resource.CapabilitiesNone })
	for _, name := range []string{"CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"} {
		if got := r.field(name); got != "0000000000000000" {
			t.Errorf("%s: got %s, want none", name, got)
		}
	}
}

func TestContainerHasItsFilesAndEnvironment(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run("app--1-x", nil)
	if got := r.file("/etc/hostname"); got != "app--1-x\n" {
		t.Errorf("hostname %q", got)
	}
	if got := r.file("/etc/hosts"); !strings.Contains(got, r.address.String()+"\tapp--1-x\n") {
		t.Errorf("hosts %q has not the replica's own name", got)
	}
	_, gateway, err := l.network.Environment(resource.EnvironmentID("s", "g", "env").Key())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.file("/etc/resolv.conf"), "nameserver "+gateway.String()+"\noptions timeout:2 attempts:2\n"; got != want {
		t.Errorf("resolv.conf %q, want %q", got, want)
	}
	env := "\n" + r.get("/env", nil)
	for _, want := range []string{"NAME=app--1-x", "FROM_IMAGE=yes", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} {
		if !strings.Contains(env, "\n"+want+"\n") {
			t.Errorf("environment has no %s:%s", want, env)
		}
	}
	r.post("/write", url.Values{"path": {"/tmp/x"}, "mb": {"1"}})
	if got := r.file("/tmp/x"); len(got) != 1<<20 {
		t.Errorf("read back %d bytes", len(got))
	}
	if got := r.file("/proc/self/cgroup"); !strings.Contains(got, ":/\n") || strings.Contains(got, l.name) {
		t.Errorf("the container sees the host's cgroups: %s", got)
	}
}

func TestHintsGiveWayToTheContainerAndItsImage(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	image := l.push(func(c *v1.Config) { c.Env = []string{"OMP_NUM_THREADS=3", "PATH=/image", "PORT=8080"} })
	r := l.run("hinted", func(_ *local.Sandbox, c *local.Container) {
		c.Image = image
		c.Env = []resource.EnvVar{{Name: "MKL_NUM_THREADS", Value: "4"}, {Name: "PORT", Value: "8080"}}
		for _, name := range []string{"OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMAXPROCS"} {
			c.Hints = append(c.Hints, resource.EnvVar{Name: name, Value: "1"})
		}
	})
	env := r.get("/env", nil)
	for _, want := range []string{"OMP_NUM_THREADS=3", "MKL_NUM_THREADS=4", "GOMAXPROCS=1", "PATH=/image"} {
		name, _, _ := strings.Cut(want, "=")
		if !strings.Contains("\n"+env, "\n"+want+"\n") || strings.Count("\n"+env, "\n"+name+"=") != 1 {
			t.Errorf("want %s and no other %s, got:\n%s", want, name, env)
		}
	}
}

func TestImageUserAndCommand(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	image := l.push(func(c *v1.Config) {
		c.User, c.Entrypoint, c.Cmd, c.WorkingDir = "model", []string{"/hello"}, []string{"exit", "3"}, "/tmp"
	})
	r := l.run("named", func(_ *local.Sandbox, c *local.Container) { c.Image, c.Command = image, []string{"/hello"} })
	if got := r.field("Uid"); got != "1000\t1000\t1000\t1000" {
		t.Errorf("uid %q, want the image's user", got)
	}
	events := l.watch()
	l.start("default", func(_ *local.Sandbox, c *local.Container) { c.Image = image })
	if e := next(t, events); e.Exit == nil || e.Exit.Code != 3 {
		t.Errorf("the image's own command: %+v, want exit 3", e)
	}
	l.start("args", func(_ *local.Sandbox, c *local.Container) { c.Image, c.Args = image, []string{"exit", "4"} })
	if e := next(t, events); e.Exit == nil || e.Exit.Code != 4 || e.Exit.Reason != "Error" {
		t.Errorf("args instead of the image's: %+v, want exit 4", e)
	}
	l.start("fine", func(_ *local.Sandbox, c *local.Container) { c.Image, c.Args = image, []string{"exit", "0"} })
	if e := next(t, events); e.Exit == nil || e.Exit.Code != 0 || e.Exit.Reason != "Completed" {
		t.Errorf("a good end: %+v", e)
	}
}

func TestReplicasDoNotReachEachOther(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b := l.run("a", nil), l.run("b", nil)
	c := l.run("c", func(s *local.Sandbox, _ *local.Container) {
		s.Environment = resource.EnvironmentID("s", "g", "other")
	})
	for name, to := range map[string]netip.Addr{"same environment": b.address, "other environment": c.address} {
		if _, err := a.try("GET", "/dial", url.Values{"to": {netip.AddrPortFrom(to, 8080).String()}}); err == nil {
			t.Errorf("%s: reached", name)
		}
	}
	if got := a.get("/dial", url.Values{"to": {"127.0.0.1:8080"}}); got != "connected\n" {
		t.Errorf("itself: %q", got)
	}
}

func TestContainerMayServeALowPort(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.start("low", func(_ *local.Sandbox, c *local.Container) {
		c.Env = append(c.Env, resource.EnvVar{Name: "PORT", Value: "80"})
	})
	until(t, "port 80 answers", func() bool { return dialed(r.address, 80) })
}
