package reconcile

import (
	"context"
	"maps"

	"penstock/internal/link"
	"penstock/internal/resource"
)

// Look is one look at an app, as a worker has it.
func (r *Reconciler) Look(ctx context.Context, app resource.ID) error { return r.app(ctx, app) }

// FromScratch makes the table of everything, as a platform would that has just started and seen the same replicas.
func (r *Reconciler) FromScratch(ctx context.Context) (link.Table, error) {
	var made published
	cfg := r.cfg
	cfg.Routes, cfg.Expose = &made, nil
	other := New(cfg)
	r.engine.mu.Lock()
	other.engine.newest = maps.Clone(r.engine.newest)
	r.engine.mu.Unlock()
	r.departures.mu.Lock()
	other.departures.by = maps.Clone(r.departures.by)
	r.departures.mu.Unlock()
	other.table.open()
	_, err := other.publish(ctx, resource.ID{})
	return made.table, err
}

type published struct {
	Routes
	table link.Table
}

func (p *published) Publish(t link.Table) uint64 {
	p.table = t
	return 1
}
