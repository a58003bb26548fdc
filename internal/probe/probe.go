// Package probe asks the containers of a replica how they are and decides what the answers mean.
//
//	Checks ──> Core (pure: what is due, what an answer means)  <──>  Run (sockets and timers)  ──> Verdict
//	 own and implicit                                                                              started, ready, kill
package probe

import (
	"cmp"
	"slices"
	"time"

	"penstock/internal/resource"
)

// Check is a probe and where it comes from.
type Check struct {
	resource.Probe
	// Implicit is set when the platform added the probe because the template has none of this type.
	Implicit bool
}

// Kubernetes' defaults for what a probe leaves out (kubernetes.io/docs/tasks/configure-pod-container/
// configure-liveness-readiness-startup-probes), which are Azure's too.
const (
	defaultPeriod  = 10 * time.Second
	defaultTimeout = time.Second
	defaultFailure = 3
	defaultSuccess = 1
)

// implicit lists the probes of an app with ingress whose template names none of the type
// (learn.microsoft.com/azure/container-apps/health-probes, "Default configuration"). The page gives no numbers for
// Liveness, so Kubernetes' defaults hold.
func implicit(port int) []resource.Probe {
	tcp := &resource.TCPSocket{Port: port}
	return []resource.Probe{
		{Type: resource.Startup, TCP: tcp, InitialDelay: time.Second, Period: time.Second, Timeout: 3 * time.Second, FailureThreshold: 240},
		{Type: resource.Readiness, TCP: tcp, InitialDelay: 3 * time.Second, Period: 5 * time.Second, Timeout: 5 * time.Second, FailureThreshold: 48},
		{Type: resource.Liveness, TCP: tcp},
	}
}

// Detected stands for a target port that nobody has named: Target.Port is asked for it each time.
const Detected = -1

// Checks returns what is asked of a container: its own probes and, for a type that it has none of, the implicit one on
// the target port. targetPort is 0 for containers that take no requests. With Detected the implicit readiness probe is
// there beside one of the container's own: without a port it gets no requests.
//
// Under resource.Fast there is no implicit liveness probe: a full accept queue looks like a dead process to it, and
// killing what is only busy makes things worse.
func Checks(own []resource.Probe, targetPort int, b resource.Behaviour) []Check {
	var list []Check
	for _, p := range own {
		list = append(list, Check{Probe: withDefaults(p)})
	}
	if targetPort == 0 {
		return list
	}
	for _, p := range implicit(targetPort) {
		has := slices.ContainsFunc(own, func(o resource.Probe) bool { return o.Type == p.Type })
		if has && targetPort == Detected && p.Type == resource.Readiness {
			has = false
		}
		if has || p.Type == resource.Liveness && b != resource.Azure {
			continue
		}
		list = append(list, Check{Probe: withDefaults(p), Implicit: true})
	}
	return list
}

func withDefaults(p resource.Probe) resource.Probe {
	p.Period = cmp.Or(p.Period, defaultPeriod)
	p.Timeout = cmp.Or(p.Timeout, defaultTimeout)
	p.FailureThreshold = cmp.Or(p.FailureThreshold, defaultFailure)
	p.SuccessThreshold = cmp.Or(p.SuccessThreshold, defaultSuccess)
	return p
}
