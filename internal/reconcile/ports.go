package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// UnopenedPorts reports the external ports of apps that an ingress could not open.
type UnopenedPorts interface {
	// Unopened waits until the ports differ from last, and returns them. It fails only if ctx ends.
	Unopened(ctx context.Context, last []link.Unopened) ([]link.Unopened, error)
}

// ReportPorts emits a warning event for an app when one of its external ports cannot be opened, and another event when
// the port is open after all. It returns when ctx ends.
func (r *Reconciler) ReportPorts(ctx context.Context, ports UnopenedPorts) {
	var last []link.Unopened
	for {
		now, err := ports.Unopened(ctx, last)
		if err != nil {
			return
		}
		for _, u := range now {
			if !slices.Contains(last, u) {
				r.reportPort(u, true, "ExposedPortUnavailable", fmt.Sprintf("Nobody can connect to port %d of this machine: %s", u.Port, u.Reason))
			}
		}
		for _, u := range last {
			still := slices.ContainsFunc(now, func(n link.Unopened) bool { return n.Port == u.Port && n.App == u.App })
			if !still && r.exposes(ctx, u) {
				r.reportPort(u, false, "ExposedPortOpened", fmt.Sprintf("Port %d is open", u.Port))
			}
		}
		last = now
	}
}

func (r *Reconciler) reportPort(u link.Unopened, warning bool, reason, message string) {
	id, err := resource.ParseID(u.App)
	if err != nil {
		return
	}
	r.cfg.Emit(resource.Event{At: time.Now().UTC(), Warning: warning, App: id, Reason: reason, Message: message, Source: "Ingress"})
}

// exposes reports whether the app still exists and exposes the port externally.
func (r *Reconciler) exposes(ctx context.Context, u link.Unopened) bool {
	id, err := resource.ParseID(u.App)
	if err != nil {
		return false
	}
	found, err := r.cfg.Store.Apps().Get(ctx, id)
	return err == nil && slices.ContainsFunc(found.Ports(), func(p resource.ExposedPort) bool {
		return p.External && p.Port == u.Port
	})
}
