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
	Parent       resource.ID // the resource one level up, as ID.Parent tells; alone
}

// Get returns one resource. The error wraps resource.ErrNotFound when there is none. What the resource points at is
// shared by all who read it and must not be changed.
func (t *Table[T]) Get(ctx context.Context, id resource.ID) (T, error) {
	v, exists, known := t.cache().get(id.Key())
	if !known {
		_, all, err := t.fill(ctx)
		if err != nil {
			return v, fmt.Errorf("read %s: %w", t.words(id), err)
		}
		v, exists = all[id.Key()]
	}
	if !exists {
		return v, fmt.Errorf("%s: %w", t.words(id), resource.ErrNotFound)
	}
	return v, nil
}

// List returns the resources in a scope, ordered by the key of their ID. What they point at is shared, as that of Get.
func (t *Table[T]) List(ctx context.Context, in Scope) ([]T, error) {
	if found, known := t.cache().list(in); known {
		return found, nil
	}
	keys, all, err := t.fill(ctx)
	if err != nil {
		return nil, fmt.Errorf("list %ss: %w", t.kind, err)
	}
	return pick(keys, all, in), nil
}

// cache is that of the table's kind.
func (t *Table[T]) cache() *cache[T] {
	found, ok := t.s.caches.Load(t.kind)
	if !ok {
		found, _ = t.s.caches.LoadOrStore(t.kind, &cache[T]{})
	}
	return found.(*cache[T])
}

// Put reads a resource, lets change alter it, and writes it, in one transaction. v is zero when exists is false; its ID
// is set by Put. An error of change leaves everything as it was and is returned as it is. change may read the store but
// must not write to it: there is one writer, and it is in use.
func (t *Table[T]) Put(ctx context.Context, id resource.ID, change func(v *T, exists bool) error) (T, error) {
	return t.put(ctx, id, change, nil)
}

// Begin is Put with the operation by which the write is polled: neither is there without the other.
func (t *Table[T]) Begin(ctx context.Context, id resource.ID, change func(v *T, exists bool) error, operation func(v T) Operation) (T, error) {
	return t.put(ctx, id, change, operation)
}

func (t *Table[T]) put(ctx context.Context, id resource.ID, change func(v *T, exists bool) error, operation func(v T) Operation) (T, error) {
	var v, kept T
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
		if operation != nil {
			if err := putOperation(ctx, tx, operation(v)); err != nil {
				return err
			}
		}
		kept, err = t.save(ctx, tx, first, &v)
		return err
	}, func(err error) {
		if err != nil {
			t.cache().forget()
			return
		}
		t.cache().put(id.Key(), kept)
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
	err := t.s.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM resources WHERE kind = ? AND key = ?", t.kind, id.Key())
		return explain(err)
	}, func(err error) {
		if err != nil {
			t.cache().forget()
			return
		}
		t.cache().remove(id.Key())
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", t.words(id), err)
	}
	return nil
}

func (t *Table[T]) load(ctx context.Context, tx *sql.Tx, id resource.ID) (v T, exists bool, err error) {
	var document []byte
	err = tx.QueryRowContext(ctx, "SELECT document FROM resources WHERE kind = ? AND key = ?", t.kind, id.Key()).Scan(&document)
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

// save writes a resource and returns it as it is read back, with nothing in it that its writer could still change.
func (t *Table[T]) save(ctx context.Context, tx *sql.Tx, id resource.ID, v *T) (kept T, err error) {
	document, err := json.Marshal(v)
	if err != nil {
		return kept, err
	}
	// A document that did not change touches no page, and then the commit needs no sync of the disk.
	_, err = tx.ExecContext(ctx, `INSERT INTO resources (kind, key, subscription, grp, parent, document) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (kind, key) DO UPDATE SET document = excluded.document WHERE document <> excluded.document`,
		t.kind, id.Key(), strings.ToLower(id.Subscription), strings.ToLower(id.Group), id.Parent().Key(), string(document))
	if err != nil {
		return kept, explain(err)
	}
	return decode[T](document)
}

// fill reads the whole table, in the order of its keys, and keeps it for the readers to come.
func (t *Table[T]) fill(ctx context.Context) (keys []string, all map[string]T, err error) {
	version := t.cache().version()
	rows, err := t.s.read.QueryContext(ctx, "SELECT key, document FROM resources WHERE kind = ? ORDER BY key", t.kind)
	if err != nil {
		return nil, nil, explain(err)
	}
	defer rows.Close()
	all = map[string]T{}
	for rows.Next() {
		var key string
		var document sql.RawBytes
		if err := rows.Scan(&key, &document); err != nil {
			return nil, nil, explain(err)
		}
		v, err := decode[T](document)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", key, err)
		}
		keys, all[key] = append(keys, key), v
	}
	if err := rows.Err(); err != nil {
		return nil, nil, explain(err)
	}
	t.cache().fill(version, keys, all)
	return keys, all, nil
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
