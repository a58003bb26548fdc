package reconcile

import (
	"context"
	"fmt"
	"sync"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// snapshots are what the engine was seen to run, by the key of the revision. Each look at an app takes one; routes are made
// from the newest that anybody took, so that no table goes back behind an earlier one.
type snapshots struct {
	mu     sync.Mutex // held while the engine is asked: of two snapshots the later one knows more
	newest map[string][]resource.Replica
}

// look asks the engine. What it returns must not be changed.
func (s *snapshots) look(ctx context.Context, rt runtimes.Runtime) (map[string][]resource.Replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := rt.Replicas(ctx)
	if err != nil {
		return nil, fmt.Errorf("list replicas: %w", err)
	}
	by, keys := map[string][]resource.Replica{}, map[resource.ID]string{}
	for _, replica := range all {
		key, known := keys[replica.Revision]
		if !known {
			key = replica.Revision.Key()
			keys[replica.Revision] = key
		}
		by[key] = append(by[key], replica)
	}
	s.newest = by
	return by, nil
}

// last is the newest, asking the engine when there is none.
func (s *snapshots) last(ctx context.Context, rt runtimes.Runtime) (map[string][]resource.Replica, error) {
	s.mu.Lock()
	newest := s.newest
	s.mu.Unlock()
	if newest != nil {
		return newest, nil
	}
	return s.look(ctx, rt)
}
