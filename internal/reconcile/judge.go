package reconcile

import (
	"fmt"
	"slices"

	"penstock/internal/resource"
)

// failedStarts is the number of failed starts in a row after which a revision that has never been ready counts as
// failed, and waiting requests are refused. The engine keeps trying, and a success makes the revision ready.
const failedStarts = 3

// verdict is the state of a revision, derived from its replicas.
type verdict struct {
	state  resource.RevisionState
	reason string
}

// judge returns the state of a revision that should have replicas. refused is the engine's error, or nil.
func judge(rev resource.Revision, c replicaCount, replicas []resource.Replica, refused error) verdict {
	if refused != nil {
		return verdict{resource.RevisionActivationFailed, refused.Error()}
	}
	ready, crowded, reason, lost := 0, 0, "", false
	for _, replica := range replicas {
		if replica.State == resource.ReplicaReady {
			ready++
			continue
		}
		if why := trouble(replica); why != "" && reason == "" {
			reason = fmt.Sprintf("replica %s: %s", replica.Name, why)
		}
		if replica.WaitsForRoom() {
			crowded++
		}
		lost = lost || replica.Hopeless || replica.Failures >= failedStarts
	}
	switch {
	case c.wanted == 0:
		return verdict{resource.RevisionScaledToZero, ""} // also after a failed start: the next request starts another one
	case ready >= c.wanted, ready > 0 && reason == "" && !rev.Ready.IsZero():
		return verdict{resource.RevisionRunning, ""} // more may be on their way
	case rev.Ready.IsZero() && ready >= max(1, rev.Template.Scale.Min) && ready+crowded >= c.wanted:
		// It started with as many replicas as the previous revision, and there is not enough room for all of both.
		return verdict{resource.RevisionRunning, ""}
	case ready == 0 && lost:
		return verdict{resource.RevisionActivationFailed, reason}
	case rev.Ready.IsZero(), ready == 0 && reason == "":
		return verdict{resource.RevisionActivating, reason}
	default:
		return verdict{resource.RevisionDegraded, reason}
	}
}

// trouble returns why a replica is not ready. A replica that is restarting has no reason of its own, so it is that of
// its last end.
func trouble(replica resource.Replica) string {
	if replica.Reason != "" {
		return replica.Reason
	}
	for _, c := range slices.Concat(replica.InitContainers, replica.Containers) {
		if c.LastExit != nil && !c.Done {
			return fmt.Sprintf("container '%s' ended with exit code %d (%s)", c.Name, c.LastExit.Code, c.LastExit.Reason)
		}
	}
	return ""
}
