package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"penstock/internal/resource"
)

// Operation is a long-running change of a resource that a client polls. Its progress is read from the resource: it is
// done when the resource's status has observed Generation.
type Operation struct {
	ID         string // compared case-insensitively
	Resource   resource.ID
	Kind       string // "put", "patch", "delete", "start", "stop"
	Generation int64
	Started    time.Time
	Location   string // the region that the client named
}

// Operations holds the operations that clients can still poll.
type Operations struct{ s *Store }

// putOperation adds an operation or replaces the one with the same ID.
func putOperation(ctx context.Context, tx *sql.Tx, op Operation) error {
	_, err := tx.ExecContext(ctx,
		"INSERT OR REPLACE INTO operations (id, resource, kind, generation, started, location) VALUES (?, ?, ?, ?, ?, ?)",
		op.ID, op.Resource.String(), op.Kind, op.Generation, op.Started.UnixNano(), op.Location)
	if err != nil {
		return fmt.Errorf("write operation %q: %w", op.ID, explain(err))
	}
	return nil
}

// Get returns one operation. The error wraps resource.ErrNotFound if there is none.
func (o *Operations) Get(ctx context.Context, id string) (Operation, error) {
	var op Operation
	var path string
	var started int64
	err := o.s.read.QueryRowContext(ctx,
		"SELECT id, resource, kind, generation, started, location FROM operations WHERE id = ?", id).
		Scan(&op.ID, &path, &op.Kind, &op.Generation, &started, &op.Location)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Operation{}, fmt.Errorf("operation %q: %w", id, resource.ErrNotFound)
	case err != nil:
		return Operation{}, fmt.Errorf("read operation %q: %w", id, explain(err))
	}
	if op.Resource, err = resource.ParseID(path); err != nil {
		return Operation{}, fmt.Errorf("read operation %q: %w: %w", id, ErrDamaged, err)
	}
	op.Started = time.Unix(0, started).UTC()
	return op, nil
}

// Prune removes the operations that were started before a time.
func (o *Operations) Prune(ctx context.Context, before time.Time) error {
	if _, err := o.s.write.ExecContext(ctx, "DELETE FROM operations WHERE started < ?", before.UnixNano()); err != nil {
		return fmt.Errorf("prune operations: %w", explain(err))
	}
	return nil
}
