package reconcile

import (
	"context"
	"fmt"
	"time"

	"penstock/internal/resource"
)

// ended reports the replicas of an app that have ended for good, with their running time, and then acknowledges their
// ends. After a crash between the two, an end is reported again; none is lost.
func (r *Reconciler) ended(ctx context.Context, app resource.ID, exists bool) error {
	ends, err := r.cfg.Runtime.Ended(ctx)
	if err != nil {
		return fmt.Errorf("list ended replicas: %w", err)
	}
	var told []string
	for _, end := range ends {
		if end.Revision.Parent().Key() != app.Key() {
			continue
		}
		told = append(told, end.Replica)
		if !exists {
			r.cfg.Log.Info("a replica of an app that is not in the database has ended", "replica", end.Replica, "app", app, "reason", end.Reason,
				"started", end.Started, "ended", end.Ended)
			continue
		}
		r.cfg.Emit(resource.Event{
			At: time.Now().UTC(), App: app, Revision: end.Revision.Base(), Replica: end.Replica, Reason: "ReplicaEnded", Source: eventSource, Duration: end.Ran(),
			Message: fmt.Sprintf("Replica '%s' has ended (%s). It ran for %s, from %s to %s.", end.Replica, end.Reason, end.Ran(),
				end.Started.Format(time.RFC3339Nano), end.Ended.Format(time.RFC3339Nano)),
		})
	}
	if len(told) == 0 {
		return nil
	}
	return r.cfg.Runtime.Acknowledge(ctx, told...)
}
