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
	// old are to be replaced: they were created before the last restart of their revision, or worn says why they must go.
	// surplus are the others that are not needed, the least loaded first.
	old, surplus []resource.Replica
	worn         map[string]string // by replica
}

func (c replicaCount) isOld(replica resource.Replica) bool {
	return slices.ContainsFunc(c.old, func(r resource.Replica) bool { return r.Name == replica.Name })
}

// countReplicas returns how many replicas a revision should have.
func (r *Reconciler) countReplicas(app resource.App, rev resource.Revision, replicas []resource.Replica) (c replicaCount) {
	c.old = stale(rev, replicas)
	var fresh, kept []resource.Replica
	all := staying(replicas)
	for _, replica := range all {
		if !replica.Created.Before(rev.Restarted) {
			fresh = append(fresh, replica)
			if !r.departures.has(replica.Name) {
				kept = append(kept, replica)
			}
		}
	}
	c.wanted, c.reason = r.cfg.Scale.Wanted(app, rev, kept)
	names, why := r.cfg.Recycle.Worn(rev, all)
	if len(names) > 0 {
		fresh = r.recycle(rev, &c, fresh, len(replicas)-len(all), names, why)
	}
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

// recycle moves the replicas that must be replaced now from fresh to c.old, and returns the others. Their successors, and those
// that have been replaced and are not gone yet, are at most one more than maxReplicas, together with all others.
func (r *Reconciler) recycle(rev resource.Revision, c *replicaCount, fresh []resource.Replica, stopping int, names []string, why map[string]string) (rest []resource.Replica) {
	places := max(rev.Template.Scale.Max, c.wanted) + 1 - c.wanted - stopping - len(c.old)
	for _, replica := range fresh {
		if r.departures.has(replica.Name) && why[replica.Name] == "" {
			places-- // it is being scaled in
		}
	}
	// Those that get no more requests stay among them.
	slices.SortStableFunc(names, func(a, b string) int {
		rank := func(name string) int {
			if r.departures.has(name) {
				return 0
			}
			return 1
		}
		return rank(a) - rank(b)
	})
	c.worn = map[string]string{}
	for _, name := range names {
		i := slices.IndexFunc(fresh, func(replica resource.Replica) bool { return replica.Name == name })
		if i >= 0 && (places > 0 || r.departures.has(name)) {
			places--
			c.worn[name] = why[name]
			c.old = append(c.old, fresh[i])
			fresh = slices.Delete(fresh, i, i+1)
		}
	}
	return fresh
}

// apply asks the engine for as many replicas as w says in addition to those being removed, and to stop those of them
// that have no requests left.
func (r *Reconciler) apply(ctx context.Context, w runtimes.Workload, c replicaCount) error {
	old := slices.Concat(c.old, c.surplus)
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
		if why := c.worn[name]; why != "" {
			r.emitReplica(w.Revision, name, "ReplicaRecycled", fmt.Sprintf("Replica %q ends: %s, and no request is left on it", name, why))
		} else if c.isOld(resource.Replica{Name: name}) {
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

// outgoing returns the replicas that can be removed now: the surplus, and the old ones that are no longer needed. New
// replicas come first, and as many old ones stay as are still needed. Only if the machine has no room for a new replica
// in addition, one old replica at a time makes room for it; requests that it would have taken wait.
func outgoing(replicas []resource.Replica, c replicaCount) []resource.Replica {
	var useless, serving []resource.Replica
	ready, coming, crowded := 0, false, false
	for _, replica := range replicas {
		switch {
		case replica.State == resource.ReplicaStopping:
			coming = true // it makes room, or there is some
		case c.isOld(replica) && replica.State == resource.ReplicaReady:
			serving = append(serving, replica)
		case c.isOld(replica):
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
	// Before, there was room for the wanted number. If there are fewer now, the waiting one will get that room.
	if crowded && !coming && ready+len(serving)+len(useless) >= c.wanted {
		n = max(n, 1)
	}
	return slices.Concat(useless, serving[:min(max(n, 0), len(serving))], c.surplus)
}
