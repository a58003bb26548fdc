package local

import (
	"context"
	"fmt"
)

// RemoveAll removes every revision and execution that has a replica or a standby, and returns when all of them have
// gone. The caller must ensure that nobody calls Apply or Execute meanwhile. Sandboxes that cannot be adopted stay,
// because they may belong to someone. strays reports whether there are any.
func (e *Engine) RemoveAll(ctx context.Context) (strays bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := e.Watch(ctx)
	if err := e.wait(ctx); err != nil {
		return false, fmt.Errorf("remove all replicas: %w", err)
	}
	e.mu.Lock()
	clear(e.wishes) // removed replicas do not make room for standbys of others
	e.mu.Unlock()
	for {
		replicas, err := e.Replicas(ctx)
		if err != nil {
			return false, fmt.Errorf("remove all replicas: %w", err)
		}
		standbys, err := e.Standbys(ctx)
		if err != nil {
			return false, fmt.Errorf("remove all replicas: %w", err)
		}
		left := len(standbys)
		for _, s := range standbys {
			if err := e.Remove(ctx, s.Revision); err != nil {
				return false, fmt.Errorf("remove all replicas: %w", err)
			}
		}
		for _, replica := range replicas {
			if replica.Revision.IsZero() {
				continue
			}
			left++
			if err := e.Remove(ctx, replica.Revision); err != nil {
				return false, fmt.Errorf("remove all replicas: %w", err)
			}
		}
		if left == 0 {
			return len(replicas) > 0, nil
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return false, fmt.Errorf("remove all replicas: %d are left: %w", left, context.Cause(ctx))
		}
	}
}
