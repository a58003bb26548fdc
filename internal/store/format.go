package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// applicationID marks the file as ours in SQLite's header: "Pnsk".
const applicationID = 0x506e736b

// steps lead from each format version to the next; a database of version n has had the first n of them. A step that was
// released never changes.
func steps() []string {
	return []string{
		// key is resource.ID.Key; subscription, grp and parent are parts of it that lists filter by, in lower case.
		`CREATE TABLE resources (
			kind         TEXT NOT NULL,
			key          TEXT NOT NULL,
			subscription TEXT NOT NULL,
			grp          TEXT NOT NULL,
			parent       TEXT NOT NULL,
			document     TEXT NOT NULL,
			PRIMARY KEY (kind, key)
		) STRICT, WITHOUT ROWID;
		CREATE INDEX resources_parent ON resources (kind, parent, key);
		CREATE TABLE operations (
			id         TEXT NOT NULL COLLATE NOCASE PRIMARY KEY,
			resource   TEXT NOT NULL,
			kind       TEXT NOT NULL,
			generation INTEGER NOT NULL,
			started    INTEGER NOT NULL, -- nanoseconds since 1970
			location   TEXT NOT NULL
		) STRICT, WITHOUT ROWID;
		CREATE INDEX operations_started ON operations (started);`,
	}
}

// create makes an empty database of format 0 beside path and renames it, so that no half-made file ever has the name.
func create(ctx context.Context, path string) error {
	temp := path + ".new"
	for _, left := range []string{temp, temp + "-journal", temp + "-wal", temp + "-shm"} {
		if err := os.Remove(left); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// SQLite would make the file readable for all; its companions (-wal, -shm) take over the mode of the file.
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	db := connect(temp, 1, "rw", "synchronous(FULL)")
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA journal_mode = WAL", applicationID))
	if err := errors.Join(err, db.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// examine reads the whole file without changing it and returns its format version.
func examine(ctx context.Context, path string) (version int, err error) {
	db := connect(path, 1, "ro")
	defer db.Close()
	var application int
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&application); err != nil {
		return 0, explain(err)
	}
	if application != applicationID {
		return 0, fmt.Errorf("%w: an SQLite file of another program (application id %#x, want %#x)", ErrDamaged, application, applicationID)
	}
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, explain(err)
	}
	if known := len(steps()); version > known {
		return 0, fmt.Errorf("%w: its format is %d, this one reads up to %d; run the newer Penstock or restore an older copy", ErrNewer, version, known)
	}
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return 0, explain(err)
	}
	if verdict != "ok" {
		return 0, fmt.Errorf("%w: %s", ErrDamaged, verdict)
	}
	return version, nil
}

// migrate takes the steps that a database of the version found has not had, each with its new version in one transaction.
func migrate(ctx context.Context, db *sql.DB, found int) error {
	for i, step := range steps()[found:] {
		version := found + i + 1
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return fmt.Errorf("bring to format %d: %w", version, err)
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf("%s; PRAGMA user_version = %d", step, version))
		if err != nil {
			return fmt.Errorf("bring to format %d: %w", version, errors.Join(err, tx.Rollback()))
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("bring to format %d: %w", version, err)
		}
	}
	return nil
}
