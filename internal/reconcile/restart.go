package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// replicaCount is how many replicas a revision should have, and which ones are too many.
type replicaCount struct {
	wanted int
	reason string
	// stale were created before the last restart of their revision. surplus are the others that are not needed, the
	// least loaded first.
	stale, surplus []resource.Replica
}

// countReplicas returns how many replicas a revision should have.
func (r *Reconciler) countReplicas(app resource.App, rev resource.Revision, replicas []resource.Replica) (c replicaCount) {
	c.stale = stale(rev, replicas)
	var fresh, kept []resource.Replica
	for _, replica := range staying(replicas) {
		if !replica.Created.Before(rev.Restarted) {
			fresh = append(fresh, replica)
			if !r.departures.has(replica.Name) {
				kept = append(kept, replica)
			}
		}
	}
	c.wanted, c.reason = r.cfg.Scale.Wanted(app, rev, kept)
	if len(fresh) <= c.wanted {
		return c
	}
	load := r.cfg.Routes.InFlight()
	// Replicas that are already being removed come first, so two passes make the same choice. Then come those that are
	// not ready, then the least loaded, then the youngest.
	rank := func(replica resource.Replica) int {
		switch {
		case r.departures.has(replica.Name):
			return 0
		case replica.State != resource.ReplicaReady:
			return 1
		}
		return 2
	}
	slices.SortFunc(fresh, func(a, b resource.Replica) int {
		return cmp.Or(rank(a)-rank(b), load[a.Name]-load[b.Name], b.Created.Compare(a.Created), cmp.Compare(a.Name, b.Name))
	})
	c.surplus = fresh[:len(fresh)-c.wanted]
	return c
}

// apply asks the engine for as many replicas as w says in addition to those being removed, and to stop those of them
// that have no requests left.
func (r *Reconciler) apply(ctx context.Context, w runtimes.Workload, c replicaCount) error {
	old := slices.Concat(c.stale, c.surplus)
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
		if slices.ContainsFunc(c.stale, func(replica resource.Replica) bool { return replica.Name == name }) {
			r.emitReplica(w.Revision, name, "ReplicaReplaced", fmt.Sprintf("Replica %q ends: its revision was restarted, and no request is left on it", name))
		} else {
			r.emitReplica(w.Revision, name, "ReplicaScaledIn", fmt.Sprintf("Replica %q ends: %d are wanted (%s), and no request is left on it", name, c.wanted, c.reason))
		}
	}
	return nil
}

// staying returns the replicas that have not been told to stop.
func staying(replicas []resource.Replica) []resource.Replica {
	var list []resource.Replica
	for _, replica := range replicas {
		if replica.State != resource.ReplicaStopping {
			list = append(list, replica)
		}
	}
	return list
}

// stale returns the replicas that were created before the last restart of their revision.
func stale(rev resource.Revision, replicas []resource.Replica) []resource.Replica {
	var list []resource.Replica
	for _, replica := range staying(replicas) {
		if replica.Created.Before(rev.Restarted) {
			list = append(list, replica)
		}
	}
	return list
}

// outgoing returns the replicas that can be removed now: the surplus, and the stale ones that are no longer needed. New
// replicas come first, and as many old ones stay as are still needed. Only if the machine has no room for a new replica
// in addition, one old replica at a time makes room for it; requests that it would have taken wait.
func outgoing(rev resource.Revision, replicas []resource.Replica, c replicaCount) []resource.Replica {
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
		case replica.WaitsForRoom():
			crowded = true
		default:
			coming = true
		}
	}
	n := len(serving) - max(0, c.wanted-ready)
	// Before the restart there was room for the wanted number. If there are fewer now, the waiting one will get that
	// room.
	if crowded && !coming && ready+len(serving)+len(useless) >= c.wanted {
		n = max(n, 1)
	}
	return slices.Concat(useless, serving[:min(max(n, 0), len(serving))], c.surplus)
}
