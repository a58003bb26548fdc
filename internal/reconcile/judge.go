package reconcile

import (
	"fmt"
	"slices"
	"time"

	"penstock/internal/resource"
)

// failedStarts is the number of failed starts in a row after which a revision that has never been ready counts as
// failed, and waiting requests are refused. The engine keeps trying, and a success makes the revision ready.
const failedStarts = 3

// verdict is the state of a revision, derived from its replicas.
type verdict struct {
	state  resource.RevisionState
	reason string
	again  time.Duration // 0, or how long until time alone can change the verdict
}

// judge returns the state of a revision that should have replicas. refused is the engine's error, or nil. Until it is
// ready for the first time, its containers without probes have to stay up.
func judge(now time.Time, stayUp time.Duration, rev resource.Revision, c replicaCount, replicas []resource.Replica, refused error) verdict {
	if refused != nil {
		return verdict{state: resource.RevisionActivationFailed, reason: refused.Error()}
	}
	ready, crowded, reason, lost := 0, 0, "", false
	var again time.Duration
	for _, replica := range replicas {
		var wait time.Duration
		if rev.Ready.IsZero() {
			wait = unproven(rev, replica, now, stayUp)
		}
		if replica.State == resource.ReplicaReady && wait <= 0 {
			ready++
			continue
		}
		if replica.State == resource.ReplicaReady && (again == 0 || wait < again) {
			again = wait
		}
		if why := trouble(replica); why != "" && reason == "" {
			reason = fmt.Sprintf("replica %s: %s", replica.Name, why)
		}
		if replica.WaitsForRoom() {
			crowded++
		}
		lost = lost || replica.Hopeless || replica.Failures >= failedStarts || rev.Ready.IsZero() && ends(replica) >= failedStarts
	}
	switch {
	case c.wanted == 0:
		return verdict{state: resource.RevisionScaledToZero} // also after a failed start: the next request starts another one
	case ready >= c.wanted, ready > 0 && reason == "" && !rev.Ready.IsZero():
		return verdict{state: resource.RevisionRunning} // more may be on their way
	case rev.Ready.IsZero() && ready >= max(1, rev.Template.Scale.Min) && ready+crowded >= c.wanted:
		// It started with as many replicas as the previous revision, and there is not enough room for all of both.
		return verdict{state: resource.RevisionRunning}
	case ready == 0 && lost:
		return verdict{state: resource.RevisionActivationFailed, reason: reason, again: again}
	case rev.Ready.IsZero(), ready == 0 && reason == "":
		return verdict{state: resource.RevisionActivating, reason: reason, again: again}
	default:
		return verdict{state: resource.RevisionDegraded, reason: reason, again: again}
	}
}

// unproven returns how much longer a replica must stay up before it shows that its revision works.
func unproven(rev resource.Revision, replica resource.Replica, now time.Time, stayUp time.Duration) (wait time.Duration) {
	for i, c := range rev.Template.Containers {
		if c.Probed() || i >= len(replica.Containers) {
			continue
		}
		wait = max(wait, stayUp-now.Sub(replica.Containers[i].Started))
	}
	return wait
}

// ends returns how often the container of a replica that ended most often has ended.
func ends(replica resource.Replica) (most int) {
	for _, c := range replica.Containers {
		n := c.Restarts
		if !c.Running && c.LastExit != nil {
			n++
		}
		most = max(most, n)
	}
	return most
}

// trouble returns why a replica is not ready. A replica that is restarting has no reason of its own, so it is that of
// its last end.
func trouble(replica resource.Replica) string {
	if replica.Reason != "" && replica.State != resource.ReplicaStopping { // "told to end" is no cause
		return replica.Reason
	}
	for _, c := range slices.Concat(replica.InitContainers, replica.Containers) {
		if c.LastExit != nil && !c.Done {
			return fmt.Sprintf("container '%s' %s", c.Name, c.LastExit)
		}
	}
	return ""
}
