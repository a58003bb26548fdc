package reconcile

import (
	"context"

	"penstock/internal/resource"
)

// Look is one look at an app, as a worker has it.
func (r *Reconciler) Look(ctx context.Context, app resource.ID) error { return r.app(ctx, app) }
