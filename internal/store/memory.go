package store

import (
	"context"
	"fmt"
)

// Memory is the part of a table that is in memory: the documents as they were last committed. Its methods never read
// the file and never wait for it, so they can be called with a lock held.
type Memory[T any] struct{ c *cache[T] }

// Memory returns the part of the table that is in memory: all of it or nothing. Load reads it.
func (t *Table[T, S]) Memory() Memory[T] { return Memory[T]{t.cache()} }

// Load reads the table into memory if it is not there. No write runs in the meantime.
func (t *Table[T, S]) Load(ctx context.Context) error {
	select {
	case t.s.writing <- struct{}{}:
		defer func() { <-t.s.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, _, known := t.cache().get(""); known {
		return nil
	}
	if _, _, err := t.fill(ctx); err != nil {
		return fmt.Errorf("load %ss: %w", t.kind, err)
	}
	return nil
}

// Get looks up a resource by the key of its ID. known is false if the table is not in memory.
func (m Memory[T]) Get(key string) (v T, exists, known bool) { return m.c.get(key) }

// List is like Table.List. known is false if the table is not in memory.
func (m Memory[T]) List(in Scope) (all []T, known bool) { return m.c.list(in) }

// Changes returns the keys that were written or deleted after version, which is the value of now from an earlier call.
// A key can occur more than once. Get and List reflect all changes it returns. complete is false if it does not know
// all changes; then the whole table must be loaded and compared. A loaded table knows some hundred of the newest
// writes.
func (m Memory[T]) Changes(version uint64) (keys []string, now uint64, complete bool) {
	return m.c.since(version)
}
