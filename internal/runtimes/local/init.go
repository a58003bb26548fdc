package local

import (
	"context"
	"time"

	"penstock/internal/resource"
)

// initialized records that an init container has succeeded.
func (k *keeper) initialized(c *container, exit resource.Exit, ran time.Duration) {
	c.done, c.last, c.trouble, c.ends = true, &exit, "", 0
	k.tellEnd(c, exit, completed, ran)
}

// tidy deletes the init containers that are done, once all other containers exist. It does not delete them earlier,
// because their existence tells the next process of the platform what need not run again. As in Kubernetes, they do not
// run again when a container restarts.
func (k *keeper) tidy(ctx context.Context) {
	for _, c := range k.containers {
		if !c.init && !c.exists {
			return
		}
	}
	for _, c := range k.containers {
		if !c.init || !c.exists || ctx.Err() != nil {
			continue
		}
		if err := k.e.cfg.Driver.Delete(ctx, c.id); err != nil {
			if ctx.Err() == nil {
				k.e.cfg.Log.Warn("an init container that is done cannot be deleted; it goes with its replica", "replica", k.name, "container", c.spec.Name, "err", err)
			}
			continue
		}
		c.exists = false
	}
}
