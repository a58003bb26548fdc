package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"penstock/internal/resource"
)

// Table holds the resources of one type. IDs are compared by Key and keep the spelling that they were first put with.
type Table[T any] struct {
	s    *Store
	kind string // "app"; what a person reads in an error, too
	id   func(*T) *resource.ID
}

// Scope narrows a list. Zero fields match all; letters match in any case.
type Scope struct {
	Subscription string
	Group        string
	Parent       resource.ID // the resource one level up, as ID.Parent tells
}

// Get returns one resource. The error wraps resource.ErrNotFound when there is none.
func (t *Table[T]) Get(ctx context.Context, id resource.ID) (T, error) {
	v, exists, err := t.load(ctx, t.s.read, id)
	switch {
	case err != nil:
		err = fmt.Errorf("read %s: %w", t.words(id), err)
	case !exists:
		err = fmt.Errorf("%s: %w", t.words(id), resource.ErrNotFound)
	}
	return v, err
}

// List returns the resources in a scope, ordered by the key of their ID.
func (t *Table[T]) List(ctx context.Context, in Scope) ([]T, error) {
	all, err := t.list(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("list %ss: %w", t.kind, err)
	}
	return all, nil
}

// Put reads a resource, lets change alter it, and writes it, in one transaction. v is zero when exists is false; its ID
// is set by Put. An error of change leaves everything as it was and is returned as it is. change may read the store but
// must not write to it: there is one writer, and it is in use.
func (t *Table[T]) Put(ctx context.Context, id resource.ID, change func(v *T, exists bool) error) (T, error) {
	var v T
	var changed error
	err := t.s.transact(ctx, func(tx *sql.Tx) error {
		found, exists, err := t.load(ctx, tx, id)
		if err != nil {
			return err
		}
		first := id
		if exists {
			first = *t.id(&found)
		}
		v = found
		if changed = change(&v, exists); changed != nil {
			return changed
		}
		*t.id(&v) = first
		return t.save(ctx, tx, first, &v)
	})
	if err != nil {
		var zero T
		if changed != nil {
			return zero, changed
		}
		return zero, fmt.Errorf("write %s: %w", t.words(id), err)
	}
	return v, nil
}

// Delete removes a resource. One that is not there is no error.
func (t *Table[T]) Delete(ctx context.Context, id resource.ID) error {
	_, err := t.s.write.ExecContext(ctx, "DELETE FROM resources WHERE kind = ? AND key = ?", t.kind, id.Key())
	if err != nil {
		return fmt.Errorf("delete %s: %w", t.words(id), explain(err))
	}
	return nil
}

// querier is a pool of connections or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (t *Table[T]) load(ctx context.Context, from querier, id resource.ID) (v T, exists bool, err error) {
	var document []byte
	err = from.QueryRowContext(ctx, "SELECT document FROM resources WHERE kind = ? AND key = ?", t.kind, id.Key()).Scan(&document)
	if errors.Is(err, sql.ErrNoRows) {
		return v, false, nil
	}
	if err != nil {
		return v, false, explain(err)
	}
	if v, err = decode[T](document); err != nil {
		return v, false, err
	}
	return v, true, nil
}

func (t *Table[T]) save(ctx context.Context, tx *sql.Tx, id resource.ID, v *T) error {
	document, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// A document that did not change touches no page, and then the commit needs no sync of the disk.
	_, err = tx.ExecContext(ctx, `INSERT INTO resources (kind, key, subscription, grp, parent, document) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (kind, key) DO UPDATE SET document = excluded.document WHERE document <> excluded.document`,
		t.kind, id.Key(), strings.ToLower(id.Subscription), strings.ToLower(id.Group), id.Parent().Key(), string(document))
	return explain(err)
}

func (t *Table[T]) list(ctx context.Context, in Scope) (all []T, err error) {
	query, args := "SELECT key, document FROM resources WHERE kind = ?", []any{t.kind}
	for _, filter := range []struct{ column, want string }{
		{"subscription", strings.ToLower(in.Subscription)},
		{"grp", strings.ToLower(in.Group)},
		{"parent", in.Parent.Key()},
	} {
		if filter.want != "" {
			query, args = query+" AND "+filter.column+" = ?", append(args, filter.want)
		}
	}
	rows, err := t.s.read.QueryContext(ctx, query+" ORDER BY key", args...)
	if err != nil {
		return nil, explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		var document sql.RawBytes
		if err := rows.Scan(&key, &document); err != nil {
			return nil, explain(err)
		}
		v, err := decode[T](document)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		all = append(all, v)
	}
	return all, explain(rows.Err())
}

func decode[T any](document []byte) (v T, err error) {
	if err := json.Unmarshal(document, &v); err != nil {
		return v, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return v, nil
}

// words names a resource for people: `revision "chat--1" of "chat" in resource group "default"`.
func (t *Table[T]) words(id resource.ID) string {
	of := ""
	if parent := id.Parent(); !parent.IsZero() {
		of = fmt.Sprintf(" of %q", parent.Base())
	}
	return fmt.Sprintf("%s %q%s in resource group %q", t.kind, id.Base(), of, id.Group)
}
