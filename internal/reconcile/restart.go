package reconcile

import (
	"context"
	"fmt"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// apply asks the engine for as many replicas as w says beside the stale ones, and then to end those of the stale ones
// that no request is left on.
func (r *Reconciler) apply(ctx context.Context, w runtimes.Workload, old []resource.Replica) error {
	w.Replicas += len(old)
	if err := r.cfg.Runtime.Apply(ctx, w); err != nil {
		return err
	}
	done, _ := r.departures.done(old)
	if len(done) == 0 {
		return nil
	}
	w.Replicas -= len(done)
	w.Retire = done
	if err := r.cfg.Runtime.Apply(ctx, w); err != nil {
		return err
	}
	for _, name := range done {
		r.emitReplica(w.Revision, name, "ReplicaReplaced", fmt.Sprintf("Replica %q ends: its revision was restarted, and no request is left on it", name))
	}
	return nil
}

// staying are the replicas that have not been told to end.
func staying(replicas []resource.Replica) []resource.Replica {
	var list []resource.Replica
	for _, replica := range replicas {
		if replica.State != resource.ReplicaStopping {
			list = append(list, replica)
		}
	}
	return list
}

// stale are the replicas that were made before their revision was restarted.
func stale(rev resource.Revision, replicas []resource.Replica) []resource.Replica {
	var list []resource.Replica
	for _, replica := range staying(replicas) {
		if replica.Created.Before(rev.Restarted) {
			list = append(list, replica)
		}
	}
	return list
}

// outgoing are the stale replicas that may go now. New ones come first: as many old ones stay as are needed beside them.
// Only where the machine has no room for a new one beside them, one old one makes room at a time; requests that it
// would have taken are held meanwhile.
func outgoing(rev resource.Revision, replicas []resource.Replica) []resource.Replica {
	var useless, serving []resource.Replica
	ready, coming, crowded := 0, false, false
	for _, replica := range replicas {
		switch {
		case replica.State == resource.ReplicaStopping:
			coming = true // it makes room, or there is some
		case replica.Created.Before(rev.Restarted) && replica.State == resource.ReplicaReady:
			serving = append(serving, replica)
		case replica.Created.Before(rev.Restarted):
			useless = append(useless, replica)
		case replica.State == resource.ReplicaReady:
			ready++
		case waitsForRoom(replica):
			crowded = true
		default:
			coming = true
		}
	}
	n := len(serving) - max(0, replicasWanted(rev)-ready)
	// As many as are wanted had room before; while fewer are there, the one that waits is about to get it.
	if crowded && !coming && ready+len(serving)+len(useless) >= replicasWanted(rev) {
		n = max(n, 1)
	}
	return append(useless, serving[:min(max(n, 0), len(serving))]...)
}
