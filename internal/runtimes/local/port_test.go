package local_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
	"penstock/internal/runtimes/fake"
)

// undeclared returns a workload of an app that does not name its port. Its image EXPOSEs 8080.
func undeclared(vars ...string) runtimes.Workload {
	w := web(1, env(vars...)...)
	w.Revision.Serving = resource.Serving{DetectPort: true}
	return w
}

func withSidecar(w runtimes.Workload, c resource.Container) runtimes.Workload {
	c.Name, c.Resources = "sidecar", resource.Resources{MilliCPU: 250, Memory: 1 << 29}
	w.Revision.Template.Containers = append(w.Revision.Template.Containers, c)
	return w
}

func TestThePortIsFoundOut(t *testing.T) {
	onTCP := func(port int) []resource.Probe {
		return []resource.Probe{{Type: resource.Readiness, TCP: &resource.TCPSocket{Port: port}}}
	}
	tests := map[string]struct {
		workload runtimes.Workload
		want     int
		says     string
	}{
		"the one that there is, whatever the image says":  {undeclared("PORT=8000"), 8000, "Target port 8000 detected"},
		"the one that the image exposes, of several":      {undeclared("FAKE_LISTEN_ALSO=7000"), 8080, ""},
		"the lowest of several that no image exposes":     {undeclared("PORT=9100", "FAKE_LISTEN_ALSO=9000"), 9000, "Target port 9000 detected; the replica listens on 9100 too"},
		"not the one by which another container is asked": {withSidecar(undeclared("PORT=9100"), resource.Container{Image: fake.Echo, Env: env("PORT=7000"), Probes: onTCP(7000)}), 9100, ""},
		"another container's, if there is no other":       {withSidecar(undeclared("FAKE_START_DELAY=1h"), resource.Container{Image: fake.Echo, Env: env("PORT=7000"), Probes: onTCP(7000)}), 7000, ""},
		"one that the image exposes and that opens later": {undeclared("FAKE_LISTEN_ALSO=7000", "FAKE_START_DELAY=400ms"), 8080, "Target port 7000 detected"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, nil)
			b.apply(t, test.workload)
			b.until(t, "the port", func(list []resource.Replica) bool {
				return len(list) == 1 && list[0].State == resource.ReplicaReady && list[0].Port == test.want
			})
			b.events.want(t, "TargetPortDetected", test.says)
		})
	}
}

// After a restart of the platform, the port is detected again and the replica is not changed. The same holds after a
// restart of the process.
func TestThePortIsFoundAgain(t *testing.T) {
	b := setUp(t, nil)
	w := undeclared("PORT=8000")
	b.apply(t, w)
	before := b.ready(t, 1)[0]
	b.restart(t, nil)
	after := b.ready(t, 1)[0]
	if after.Port != 8000 || after.Containers[0].PID != before.Containers[0].PID {
		t.Errorf("after a restart of the platform: port %d and process %d, want 8000 and %d", after.Port, after.Containers[0].PID, before.Containers[0].PID)
	}
	b.driver.Crash(after.Name, 1)
	b.until(t, "a restart with its port", func(list []resource.Replica) bool {
		return list[0].State == resource.ReplicaReady && list[0].Restarts > 0 && list[0].Port == 8000
	})
	if n := b.events.count("TargetPortDetected"); n != 3 {
		t.Errorf("the port was told %d times, want once for each process and platform:\n%s", n, b.events)
	}
}

// A replica that never listens never becomes ready, whatever its own probes report, and its status says why.
func TestNoPortIsNotReady(t *testing.T) {
	for name, test := range map[string]struct {
		sockets []netip.AddrPort
		want    string
	}{
		"nothing listens":       {[]netip.AddrPort{}, "Probe of Readiness failed: the replica listens on no port yet"},
		"for itself only":       {[]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080")}, "listens on no port that others can reach, only on 127.0.0.1:8080; let it listen on 0.0.0.0"},
		"on an address of IPv6": {[]netip.AddrPort{netip.MustParseAddrPort("[fe80::1]:8080")}, "only on [fe80::1]:8080"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, nil)
			b.driver.sockets = test.sockets
			w := undeclared()
			w.Revision.Template.Containers[0].Probes = []resource.Probe{
				{Type: resource.Startup, TCP: &resource.TCPSocket{Port: 8080}},
				{Type: resource.Readiness, HTTP: &resource.HTTPGet{Path: "/", Port: 8080}},
			}
			b.apply(t, w)
			b.until(t, "the reason is told", func(list []resource.Replica) bool {
				return len(list) == 1 && list[0].State == resource.ReplicaStarting && strings.Contains(list[0].Reason, test.want)
			})
			b.events.want(t, "ProbeFailed", test.want)
			if b.list(t)[0].Port != 0 {
				t.Errorf("got port %d, want none", b.list(t)[0].Port)
			}
		})
	}
}

// A replica that was started before its app had an ingress has its port detected when the app gets one.
func TestThePortOfAReplicaThatRanWithoutIngress(t *testing.T) {
	b := setUp(t, nil)
	w := undeclared("PORT=8000")
	w.Revision.Serving = resource.Serving{}
	b.apply(t, w)
	before := b.ready(t, 1)[0]
	w.Revision.Serving = resource.Serving{DetectPort: true}
	b.apply(t, w)
	b.apply(t, w)
	after := b.until(t, "the port", func(list []resource.Replica) bool { return list[0].Port == 8000 })[0]
	if after.Containers[0].PID != before.Containers[0].PID {
		t.Error("the replica was disturbed")
	}
	if n := b.events.count("TargetPortDetected"); n != 1 {
		t.Errorf("the port was told %d times, want once", n)
	}
	b.driver.Crash(after.Name, 1)
	b.until(t, "a process that starts anew", func(list []resource.Replica) bool {
		return list[0].State == resource.ReplicaReady && list[0].Restarts > 0 && list[0].Port == 0
	})
	b.apply(t, w)
	b.until(t, "the port again", func(list []resource.Replica) bool { return list[0].Port == 8000 })
	b.remove(t, w)
	b.gone(t)
}

// A replica keeps the port that the app named when the replica was created.
func TestANamedPortStays(t *testing.T) {
	b := setUp(t, nil)
	w := web(1)
	b.apply(t, w)
	b.ready(t, 1)
	w.Revision.Serving = resource.Serving{DetectPort: true}
	b.apply(t, w)
	if got := b.list(t)[0].Port; got != 8080 {
		t.Errorf("got port %d, want 8080", got)
	}
	if slices.Contains(b.events.reasons(), "TargetPortDetected") {
		t.Errorf("a port was looked for:\n%s", b.events)
	}
}

// The ports that the image EXPOSEs are known after a restart of the platform, even if the image is gone or cannot be
// read.
func TestTheImageIsNotAskedAgain(t *testing.T) {
	b := setUp(t, nil)
	b.apply(t, undeclared("FAKE_LISTEN_ALSO=7000"))
	b.until(t, "the port", func(list []resource.Replica) bool { return len(list) == 1 && list[0].Port == 8080 })
	b.stop()
	b.driver.pull = func(context.Context) error { return errors.New("the image has gone") }
	b.restart(t, nil)
	if got := b.ready(t, 1)[0].Port; got != 8080 {
		t.Errorf("got port %d, want 8080, which the image exposes", got)
	}
}

// A replica whose own probes succeed while nothing listens on its target port becomes ready, as in Azure, and a warning says
// that its requests fail, and where it listens.
func TestTargetPortClosed(t *testing.T) {
	probes := func(port int) []resource.Probe {
		get := &resource.HTTPGet{Path: "/", Port: port}
		return []resource.Probe{{Type: resource.Startup, HTTP: get}, {Type: resource.Readiness, HTTP: get}}
	}
	tests := map[string]struct {
		target, listens int
		also            string
		sidecar         string
		warns           bool
	}{
		"another port":          {9000, 8000, "", "", true},
		"the port":              {8000, 8000, "", "", false},
		"the port and a health": {9000, 8000, "9000", "", false},
		"a sidecar has it":      {9000, 8000, "", "PORT=9000", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, nil)
			variables := []string{"PORT=" + strconv.Itoa(test.listens)}
			if test.also != "" {
				variables = append(variables, "FAKE_LISTEN_ALSO="+test.also)
			}
			w := web(1, env(variables...)...)
			w.Revision.Serving = resource.Serving{TargetPort: test.target}
			w.Revision.Template.Containers[0].Probes = probes(test.listens)
			if test.sidecar != "" {
				w = withSidecar(w, resource.Container{Image: fake.Echo, Env: env(test.sidecar), Probes: probes(9000)})
			}
			b.apply(t, w)
			b.ready(t, 1)
			if test.warns {
				ev := b.events.want(t, "TargetPortClosed", "Requests go to port 9000 (targetPort), where nothing listens; the container listens on 8000")
				if !ev.Warning {
					t.Error("want a warning")
				}
			} else if n := b.events.count("TargetPortClosed"); n > 0 {
				t.Errorf("got a warning:\n%s", b.events)
			}
		})
	}
}
