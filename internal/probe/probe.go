// Package probe runs the health probes of a replica's containers and decides what their results mean.
//
//	Checks ──> Core (pure: what is due, what a result means)  <──>  Run (sockets and timers)  ──> Verdict
//	 own and implicit                                                                              started, ready, kill
package probe

import (
	"cmp"
	"slices"
	"time"

	"penstock/internal/resource"
)

// Check is a probe and its origin.
type Check struct {
	resource.Probe
	// Implicit is set if the platform added the probe because the template has none of this type.
	Implicit bool
}

// Defaults for fields that a probe leaves out, as in Kubernetes (kubernetes.io/docs/tasks/configure-pod-container/
// configure-liveness-readiness-startup-probes) and Azure.
const (
	defaultPeriod  = 10 * time.Second
	defaultTimeout = time.Second
	defaultFailure = 3
	defaultSuccess = 1
)

// implicit lists the probes that an app with ingress gets if its template has none of the type
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

// Detected stands for a target port that is not configured. Target.Port returns the actual port for each probe.
const Detected = -1

// Checks returns the checks of a container: its own probes and, for each type without one, the implicit probe on the target
// port. targetPort is 0 for containers that get no requests. With Detected the implicit readiness probe is added even if the
// container has its own, because a container without a port can get no requests.
//
// With resource.Fast there is no implicit liveness probe. It cannot tell a full accept queue from a dead process, and killing
// a process that is only busy makes things worse.
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
