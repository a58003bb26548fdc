package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"penstock/internal/resource"
)

// Table holds the resources of one type, each as two documents: what users wrote, and its status S, which is what the
// platform did for it. Put and Begin write the former, Observe the latter; no method can write the other document. A T
// that was read has both. IDs are compared by Key and keep the spelling of the first write.
type Table[T, S any] struct {
	s      *Store
	kind   string // "app"; also used in error messages
	id     func(*T) *resource.ID
	status func(*T) *S
}

// Scope narrows a list. Zero fields match everything; letters match case-insensitively.
type Scope struct {
	Subscription string
	Group        string
	Parent       resource.ID // the resource one level up, as returned by ID.Parent; used alone
}

// Get returns one resource. The error wraps resource.ErrNotFound if there is none. Values that the resource points to
// are shared by all readers and must not be changed.
func (t *Table[T, S]) Get(ctx context.Context, id resource.ID) (T, error) {
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

// List returns the resources in a scope, ordered by the key of their ID. Values that they point to are shared, as with
// Get.
func (t *Table[T, S]) List(ctx context.Context, in Scope) ([]T, error) {
	if found, known := t.cache().list(in); known {
		return found, nil
	}
	keys, all, err := t.fill(ctx)
	if err != nil {
		return nil, fmt.Errorf("list %ss: %w", t.kind, err)
	}
	return pick(keys, all, in), nil
}

// cache returns the cache for the table's kind.
func (t *Table[T, S]) cache() *cache[T] {
	found, ok := t.s.caches.Load(t.kind)
	if !ok {
		found, _ = t.s.caches.LoadOrStore(t.kind, &cache[T]{})
	}
	return found.(*cache[T])
}

// errStatus reports a bug in the calling code: what it wrote would be lost.
var errStatus = errors.New("a write of users must not change the status; Observe does")

// Put lets change modify what users wrote of a resource, in one transaction. v is zero if exists is false; Put sets its
// ID. change sees the status too but must not modify it. If change fails, nothing is written and its error is returned
// as it is. change can read the store but must not write to it, because the only writer is in use.
func (t *Table[T, S]) Put(ctx context.Context, id resource.ID, change func(v *T, exists bool) error) (T, error) {
	return t.put(ctx, id, change, nil)
}

// Begin is like Put and also stores the operation by which the write is polled, in the same transaction.
func (t *Table[T, S]) Begin(ctx context.Context, id resource.ID, change func(v *T, exists bool) error, operation func(v T) Operation) (T, error) {
	return t.put(ctx, id, change, operation)
}

func (t *Table[T, S]) put(ctx context.Context, id resource.ID, change func(v *T, exists bool) error, operation func(v T) Operation) (T, error) {
	return t.write(ctx, id, func(tx *sql.Tx, found row) (row, T, error) {
		v, err := t.decode(found)
		if err != nil {
			return row{}, v, err
		}
		before, err := t.decode(found)
		if err != nil {
			return row{}, v, err
		}
		if err := change(&v, found.exists()); err != nil {
			return row{}, v, refused{err}
		}
		if !reflect.DeepEqual(t.status(&v), t.status(&before)) {
			return row{}, v, errStatus
		}
		*t.id(&v) = id
		if found.exists() {
			*t.id(&v) = *t.id(&before)
		}
		if operation != nil {
			if err := putOperation(ctx, tx, operation(v)); err != nil {
				return row{}, v, err
			}
		}
		next := found
		next.document, err = json.Marshal(v)
		if next.status == nil {
			next.status = []byte("{}")
		}
		return next, v, err
	})
}

// Create adds a resource with its first status and, unless it is nil, the operation by which it is polled. If a
// resource with this ID exists, it stays as it is and is returned, and made is false.
func (t *Table[T, S]) Create(ctx context.Context, v T, operation *Operation) (kept T, made bool, err error) {
	kept, err = t.write(ctx, *t.id(&v), func(tx *sql.Tx, found row) (row, T, error) {
		if found.exists() {
			old, err := t.decode(found)
			return found, old, err
		}
		made = true
		if operation != nil {
			if err := putOperation(ctx, tx, *operation); err != nil {
				return row{}, v, err
			}
		}
		document, err := json.Marshal(v)
		if err != nil {
			return row{}, v, err
		}
		status, err := json.Marshal(t.status(&v))
		return row{document, status}, v, err
	})
	return kept, made && err == nil, err
}

// Observe lets change modify the status of a resource, in one transaction. v is the current resource. The error wraps
// resource.ErrNotFound if there is none. Otherwise it is like Put.
func (t *Table[T, S]) Observe(ctx context.Context, id resource.ID, change func(v T, status *S) error) (T, error) {
	return t.write(ctx, id, func(_ *sql.Tx, found row) (row, T, error) {
		v, err := t.decode(found)
		if err != nil {
			return row{}, v, err
		}
		if !found.exists() {
			return row{}, v, refused{fmt.Errorf("%s: %w", t.words(id), resource.ErrNotFound)}
		}
		if err := change(v, t.status(&v)); err != nil {
			return row{}, v, refused{err}
		}
		found.status, err = json.Marshal(t.status(&v))
		return found, v, err
	})
}

// refused wraps an error of a caller's function, which is returned to the caller as it is.
type refused struct{ error }

// write changes the documents of a resource in one transaction.
func (t *Table[T, S]) write(ctx context.Context, id resource.ID, change func(tx *sql.Tx, found row) (next row, v T, err error)) (T, error) {
	var v, kept T
	err := t.s.transact(ctx, func(tx *sql.Tx) error {
		found, err := t.load(ctx, tx, id)
		if err != nil {
			return err
		}
		var next row
		if next, v, err = change(tx, found); err != nil {
			return err
		}
		if err := t.save(ctx, tx, id, next); err != nil {
			return err
		}
		// The cached value is decoded again, so that it shares nothing that the writer could still change.
		kept, err = t.decode(next)
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
		if refusal, ok := errors.AsType[refused](err); ok {
			return zero, refusal.error
		}
		return zero, fmt.Errorf("write %s: %w", t.words(id), err)
	}
	return v, nil
}

// Delete removes a resource. It is not an error if there is none.
func (t *Table[T, S]) Delete(ctx context.Context, id resource.ID) error {
	err := t.DeleteIf(ctx, id, func(T) error { return nil })
	if errors.Is(err, resource.ErrNotFound) {
		return nil
	}
	return err
}

// DeleteIf removes a resource unless may refuses it, in one transaction. The error wraps resource.ErrNotFound if there is
// none.
func (t *Table[T, S]) DeleteIf(ctx context.Context, id resource.ID, may func(v T) error) error {
	err := t.s.transact(ctx, func(tx *sql.Tx) error {
		found, err := t.load(ctx, tx, id)
		if err != nil {
			return err
		}
		if !found.exists() {
			return refused{fmt.Errorf("%s: %w", t.words(id), resource.ErrNotFound)}
		}
		v, err := t.decode(found)
		if err != nil {
			return err
		}
		if err := may(v); err != nil {
			return refused{err}
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM resources WHERE kind = ? AND key = ?", t.kind, id.Key())
		return explain(err)
	}, func(err error) {
		if err != nil {
			t.cache().forget()
			return
		}
		t.cache().remove(id.Key())
	})
	if refusal, ok := errors.AsType[refused](err); ok {
		return refusal.error
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", t.words(id), err)
	}
	return nil
}

// row is the two documents of a resource, as JSON.
type row struct{ document, status []byte }

func (r row) exists() bool { return r.document != nil }

func (t *Table[T, S]) load(ctx context.Context, tx *sql.Tx, id resource.ID) (found row, err error) {
	err = tx.QueryRowContext(ctx, "SELECT document, status FROM resources WHERE kind = ? AND key = ?", t.kind, id.Key()).
		Scan(&found.document, &found.status)
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, nil
	}
	return found, explain(err)
}

func (t *Table[T, S]) save(ctx context.Context, tx *sql.Tx, id resource.ID, r row) error {
	// Unchanged documents change no page, so the commit needs no sync of the disk.
	_, err := tx.ExecContext(ctx, `INSERT INTO resources (kind, key, subscription, grp, parent, document, status) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (kind, key) DO UPDATE SET document = excluded.document, status = excluded.status
		WHERE document <> excluded.document OR status <> excluded.status`,
		t.kind, id.Key(), strings.ToLower(id.Subscription), strings.ToLower(id.Group), id.Parent().Key(), string(r.document), string(r.status))
	return explain(err)
}

// fill reads the whole table, in the order of its keys, and caches it for later readers.
func (t *Table[T, S]) fill(ctx context.Context) (keys []string, all map[string]T, err error) {
	version := t.cache().version()
	rows, err := t.s.read.QueryContext(ctx, "SELECT key, document, status FROM resources WHERE kind = ? ORDER BY key", t.kind)
	if err != nil {
		return nil, nil, explain(err)
	}
	defer rows.Close()
	all = map[string]T{}
	for rows.Next() {
		var key string
		var document, status sql.RawBytes
		if err := rows.Scan(&key, &document, &status); err != nil {
			return nil, nil, explain(err)
		}
		v, err := t.decode(row{document, status})
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

// decode returns the zero value for a missing row.
func (t *Table[T, S]) decode(r row) (v T, err error) {
	if !r.exists() {
		return v, nil
	}
	if err := json.Unmarshal(r.document, &v); err != nil {
		return v, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := json.Unmarshal(r.status, t.status(&v)); err != nil {
		return v, fmt.Errorf("%w: status: %w", ErrDamaged, err)
	}
	return v, nil
}

// words names a resource in messages: `revision "chat--1" of "chat" in resource group "default"`.
func (t *Table[T, S]) words(id resource.ID) string {
	of := ""
	if parent := id.Parent(); !parent.IsZero() {
		of = fmt.Sprintf(" of %q", parent.Base())
	}
	return fmt.Sprintf("%s %q%s in resource group %q", t.kind, id.Base(), of, id.Group)
}
