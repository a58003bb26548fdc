package reconcile

import (
	"context"
	"fmt"
	"sync"

	"penstock/internal/resource"
	"penstock/internal/runtimes"
)

// snapshots hold the replicas of each app as the engine last reported them. Routes are built from them and not from the
// engine, so a pass decides and routes by the same replicas.
type snapshots struct {
	mu     sync.Mutex
	asked  uint64 // numbers the queries: of two answers, the one to the later query is newer
	newest map[string]snapshot
}

type snapshot struct {
	asked    uint64
	replicas map[string][]resource.Replica // by the key of the revision
}

// look queries the engine for the replicas of an app and stores the answer. Callers must not change the result.
func (s *snapshots) look(ctx context.Context, rt runtimes.Runtime, app resource.ID) (map[string][]resource.Replica, error) {
	s.mu.Lock()
	s.asked++
	asked := s.asked
	s.mu.Unlock()
	by, err := replicasOf(ctx, rt, app)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if key := app.Key(); s.newest[key].asked < asked {
		if s.newest == nil {
			s.newest = map[string]snapshot{}
		}
		s.newest[key] = snapshot{asked, by}
	}
	return by, nil
}

// last returns the newest snapshot of an app, by its key.
func (s *snapshots) last(app string) (replicas map[string][]resource.Replica, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.newest[app]
	return found.replicas, ok
}

// forget drops the snapshot of a deleted app.
func (s *snapshots) forget(app string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.newest, app)
}

// replicasOf queries the engine for the replicas of an app or a job, by the key of the revision or execution.
func replicasOf(ctx context.Context, rt runtimes.Runtime, id resource.ID) (map[string][]resource.Replica, error) {
	all, err := rt.ReplicasOf(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("list replicas: %w", err)
	}
	by := map[string][]resource.Replica{}
	for _, replica := range all {
		key := replica.Revision.Key()
		by[key] = append(by[key], replica)
	}
	return by, nil
}
