package store

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Backup writes a copy of the database as it is now to a new file at path, while others read and write. What is begun
// later is not in it.
func (s *Store) Backup(ctx context.Context, path string) error {
	// SQLite would make it readable for all; it takes an empty file as a new one.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("back up store: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("back up store: %w", err)
	}
	if _, err := s.write.ExecContext(ctx, "VACUUM INTO ?", path); err != nil {
		return errors.Join(fmt.Errorf("back up store: %w", explain(err)), os.Remove(path))
	}
	return nil
}

// Check reads the whole file at path and says whether this Penstock can use it. It changes nothing.
func Check(ctx context.Context, path string) error {
	if _, err := examine(ctx, path); err != nil {
		return fmt.Errorf("check store %s: %w", path, err)
	}
	return nil
}
