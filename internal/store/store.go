package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"penstock/internal/resource"
)

var (
	// ErrDamaged is wrapped if the file is not an intact database of Penstock. Open then changes nothing in it.
	ErrDamaged = errors.New("database is damaged")
	// ErrNewer is wrapped if a later Penstock wrote the file.
	ErrNewer = errors.New("database was written by a newer Penstock")
	// ErrFull is wrapped if there was no space on the disk for a write. Existing data is not affected.
	ErrFull = errors.New("no space left on the disk of the database")
)

// readers is how many reads can run at once. Reads are short; more connections would only cost memory.
const readers = 4

// Store is an open database. Its methods can be called concurrently.
type Store struct {
	write *sql.DB // one connection
	read  *sql.DB

	writing chan struct{} // holds a token while a write runs: writers queue here and not in SQLite's busy loop
	caches  sync.Map      // of *cache by kind
}

// Open opens the database at path, creates it if there is none, and converts an older format.
func Open(ctx context.Context, path string) (*Store, error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	switch info, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		if err := create(ctx, path); err != nil {
			return nil, fmt.Errorf("create: %w", explain(err))
		}
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("want a file, found %s", info.Mode())
	case info.Size() == 0:
		// A new database gets its name only when it is complete, so an empty file has lost its content.
		return nil, fmt.Errorf("%w: the file is empty", ErrDamaged)
	}
	found, err := examine(ctx, path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		write: connect(path, 1, "rw", "synchronous(FULL)", "journal_size_limit(67108864)"),
		read:  connect(path, readers, "ro"),

		writing: make(chan struct{}, 1),
	}
	// The journal mode is stored in the file, but a copy made by Backup does not have it.
	if _, err := s.write.ExecContext(ctx, "PRAGMA journal_mode = WAL"); err != nil {
		return nil, errors.Join(explain(err), s.Close())
	}
	if err := migrate(ctx, s.write, found); err != nil {
		return nil, errors.Join(explain(err), s.Close())
	}
	return s, nil
}

// Close waits for running reads and writes and closes the file.
func (s *Store) Close() error {
	return errors.Join(s.read.Close(), s.write.Close())
}

func (s *Store) Environments() *Table[resource.Environment, resource.EnvironmentStatus] {
	return &Table[resource.Environment, resource.EnvironmentStatus]{s, "environment",
		func(v *resource.Environment) *resource.ID { return &v.ID }, func(v *resource.Environment) *resource.EnvironmentStatus { return &v.EnvironmentStatus }}
}

func (s *Store) Apps() *Table[resource.App, resource.AppStatus] {
	return &Table[resource.App, resource.AppStatus]{s, "app",
		func(v *resource.App) *resource.ID { return &v.ID }, func(v *resource.App) *resource.AppStatus { return &v.AppStatus }}
}

func (s *Store) Revisions() *Table[resource.Revision, resource.RevisionStatus] {
	return &Table[resource.Revision, resource.RevisionStatus]{s, "revision",
		func(v *resource.Revision) *resource.ID { return &v.ID }, func(v *resource.Revision) *resource.RevisionStatus { return &v.RevisionStatus }}
}

func (s *Store) Jobs() *Table[resource.Job, resource.JobStatus] {
	return &Table[resource.Job, resource.JobStatus]{s, "job",
		func(v *resource.Job) *resource.ID { return &v.ID }, func(v *resource.Job) *resource.JobStatus { return &v.JobStatus }}
}

func (s *Store) Executions() *Table[resource.Execution, resource.ExecutionStatus] {
	return &Table[resource.Execution, resource.ExecutionStatus]{s, "execution",
		func(v *resource.Execution) *resource.ID { return &v.ID }, func(v *resource.Execution) *resource.ExecutionStatus { return &v.ExecutionStatus }}
}

func (s *Store) Groups() *Table[resource.Group, none] {
	return &Table[resource.Group, none]{s, "group",
		func(v *resource.Group) *resource.ID { return &v.ID }, func(*resource.Group) *none { return &none{} }}
}

func (s *Store) Certificates() *Table[resource.Certificate, none] {
	return &Table[resource.Certificate, none]{s, "certificate",
		func(v *resource.Certificate) *resource.ID { return &v.ID }, func(*resource.Certificate) *none { return &none{} }}
}

func (s *Store) Storages() *Table[resource.Storage, none] {
	return &Table[resource.Storage, none]{s, "storage",
		func(v *resource.Storage) *resource.ID { return &v.ID }, func(*resource.Storage) *none { return &none{} }}
}

// none is the status type of resources that have no status.
type none struct{}

func (s *Store) Operations() *Operations { return &Operations{s} }

// transact runs f in a transaction of the writer, and calls ended with the outcome before the next write begins. An
// error of f rolls everything back and is returned as it is; ended is not called then.
func (s *Store) transact(ctx context.Context, f func(tx *sql.Tx) error, ended func(error)) error {
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return explain(err)
	}
	defer tx.Rollback() // no effect after Commit; it also covers a panic of f
	if err := f(tx); err != nil {
		return err
	}
	err = tx.Commit()
	ended(err)
	return explain(err)
}

// connect prepares connections to an existing file; none is opened before the first use.
func connect(path string, limit int, mode string, pragmas ...string) *sql.DB {
	q := url.Values{
		"mode":    {mode},
		"_txlock": {"immediate"}, // a transaction that will write must not start as a reader
		"_pragma": append([]string{"busy_timeout(5000)"}, pragmas...),
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	// sql.Open only looks up the driver, which the import above registers.
	db, _ := sql.Open("sqlite", dsn.String())
	db.SetMaxOpenConns(limit)
	db.SetMaxIdleConns(limit)
	return db
}

// explain wraps SQLite's errors with the errors that callers check for.
func explain(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff { // the low byte is the primary code
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
