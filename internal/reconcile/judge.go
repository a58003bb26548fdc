package reconcile

import (
	"fmt"
	"slices"

	"penstock/internal/resource"
)

// failedStarts is the number of failed starts in a row after which a revision that has never been ready is given up:
// whoever waits for it is answered. The engine goes on trying, and a success brings it back.
const failedStarts = 3

// verdict is what a revision's replicas say about it.
type verdict struct {
	state  resource.RevisionState
	reason string
}

// replicasWanted is how many replicas a revision has. Nothing scales yet: it is at least one.
func replicasWanted(rev resource.Revision) int { return max(1, rev.Template.Scale.Min) }

// judge says how a revision is. wanted says whether it is to have replicas; refused is why the engine would not take it, or nil.
func judge(rev resource.Revision, wanted bool, replicas []resource.Replica, refused error) verdict {
	if !wanted {
		return verdict{resource.RevisionStopped, ""}
	}
	if refused != nil {
		return verdict{resource.RevisionActivationFailed, refused.Error()}
	}
	ready, reason, lost := 0, "", false
	for _, replica := range replicas {
		if replica.State == resource.ReplicaReady {
			ready++
			continue
		}
		if why := trouble(replica); why != "" && reason == "" {
			reason = fmt.Sprintf("replica %s: %s", replica.Name, why)
		}
		lost = lost || replica.Hopeless || replica.Failures >= failedStarts
	}
	switch {
	case ready >= replicasWanted(rev):
		return verdict{resource.RevisionRunning, ""}
	case ready == 0 && lost:
		return verdict{resource.RevisionActivationFailed, reason}
	case rev.Ready.IsZero():
		return verdict{resource.RevisionActivating, reason}
	default:
		return verdict{resource.RevisionDegraded, reason}
	}
}

// trouble says why a replica is not ready. One that is just started again has no reason of its own, but had an end.
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
