package local

import (
	"cmp"
	"time"

	"penstock/internal/resource"
)

// Backoff is the pause between the restarts of a container that ends again and again. The zero value is Kubernetes'
// CrashLoopBackOff (kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle, "Container restarts"): no pause after the
// first end, then 10, 20, 40 ... 300 s. It starts over after 10 minutes without an end.
type Backoff struct {
	First time.Duration // after the second end
	Max   time.Duration
	Reset time.Duration // a process that ran for this long is healthy
}

const (
	kubernetesFirst = 10 * time.Second
	kubernetesMax   = 300 * time.Second
	kubernetesReset = 10 * time.Minute
)

func (b Backoff) withDefaults() Backoff {
	return Backoff{
		First: cmp.Or(b.First, kubernetesFirst),
		Max:   cmp.Or(b.Max, kubernetesMax),
		Reset: cmp.Or(b.Reset, kubernetesReset),
	}
}

// after returns the pause after the n-th consecutive end, counted from 1.
func (b Backoff) after(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	d := b.First
	for range n - 2 {
		if d *= 2; d >= b.Max {
			break
		}
	}
	return min(d, b.Max)
}

// pause returns how long a container that has just ended waits for its restart. Replicas of a revision that fail
// together share their backoff: while no replica of the revision is ready, the cause is in the revision, so a new
// replica waits as long as those that failed before.
func (k *keeper) pause(c *container) time.Duration {
	k.e.mu.Lock()
	defer k.e.mu.Unlock()
	ends := c.ends
	for _, sibling := range k.e.live(k.rev.ID) {
		if sibling == k {
			continue
		}
		if sibling.view.State == resource.ReplicaReady {
			return k.e.cfg.Backoff.after(c.ends)
		}
		ends = max(ends, sibling.ends)
	}
	return k.e.cfg.Backoff.after(ends)
}
