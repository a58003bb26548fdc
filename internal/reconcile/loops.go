package reconcile

import (
	"context"
	"maps"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// Loops reports the apps whose requests come back to them.
type Loops interface {
	// Looped waits until that has happened at least every after told[app]. It fails only if ctx ends.
	Looped(ctx context.Context, told map[string]time.Time, every time.Duration) (app string, at time.Time, err error)
}

// loopEvery is how often an app gets the event of a loop that goes on.
const loopEvery = 2 * link.HeardFor

// ReportLoops emits a warning event for an app when a request was ended because it had come to the app too often. It
// returns when ctx ends.
func (r *Reconciler) ReportLoops(ctx context.Context, loops Loops) {
	told := map[string]time.Time{}
	for {
		app, at, err := loops.Looped(ctx, told, loopEvery)
		if err != nil {
			return
		}
		maps.DeleteFunc(told, func(_ string, before time.Time) bool { return at.Sub(before) >= loopEvery })
		told[app] = at
		id, err := resource.ParseID(app)
		if err != nil {
			continue
		}
		if _, err := r.cfg.Store.Apps().Get(ctx, id); err != nil {
			continue // deleted meanwhile
		}
		r.cfg.Emit(resource.Event{
			At: at.UTC(), Warning: true, App: id, Reason: "RequestLoop", Source: "Ingress",
			Message: "A loop: a request came back to this app again and again, and was answered with status 508. The app, or one that " +
				"it calls, passes requests on to the app's own address. Check the addresses that it sends requests to.",
		})
	}
}
