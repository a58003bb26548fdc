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
	// ErrDamaged is wrapped when the file is not a sound database of Penstock. Open changes nothing in it then.
	ErrDamaged = errors.New("database is damaged")
	// ErrNewer is wrapped when a later Penstock wrote the file.
	ErrNewer = errors.New("database was written by a newer Penstock")
	// ErrFull is wrapped when a write found no room on the disk. What was there before is still there.
	ErrFull = errors.New("no space left on the disk of the database")
)

// readers is how many reads may run at once. Reads are short; more connections than this only cost memory.
const readers = 4

// Store is an open database. Its methods may be called from many goroutines.
type Store struct {
	write *sql.DB // one connection
	read  *sql.DB

	writing chan struct{} // holds a token while a write is under way: they queue here and not in SQLite's busy loop
	caches  sync.Map      // of *cache by kind
}

// Open opens the database at path, makes it when there is none, and brings an older format up to date.
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
		// A new database gets its name only once it is complete, so an empty one has lost its content.
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
	// The mode is kept in the file, but a copy that Backup made has not got it.
	if _, err := s.write.ExecContext(ctx, "PRAGMA journal_mode = WAL"); err != nil {
		return nil, errors.Join(explain(err), s.Close())
	}
	if err := migrate(ctx, s.write, found); err != nil {
		return nil, errors.Join(explain(err), s.Close())
	}
	return s, nil
}

// Close waits for what is under way and closes the file.
func (s *Store) Close() error {
	return errors.Join(s.read.Close(), s.write.Close())
}

func (s *Store) Environments() *Table[resource.Environment] {
	return &Table[resource.Environment]{s, "environment", func(v *resource.Environment) *resource.ID { return &v.ID }}
}

func (s *Store) Apps() *Table[resource.App] {
	return &Table[resource.App]{s, "app", func(v *resource.App) *resource.ID { return &v.ID }}
}

func (s *Store) Revisions() *Table[resource.Revision] {
	return &Table[resource.Revision]{s, "revision", func(v *resource.Revision) *resource.ID { return &v.ID }}
}

func (s *Store) Jobs() *Table[resource.Job] {
	return &Table[resource.Job]{s, "job", func(v *resource.Job) *resource.ID { return &v.ID }}
}

func (s *Store) Executions() *Table[resource.Execution] {
	return &Table[resource.Execution]{s, "execution", func(v *resource.Execution) *resource.ID { return &v.ID }}
}

func (s *Store) Groups() *Table[resource.Group] {
	return &Table[resource.Group]{s, "group", func(v *resource.Group) *resource.ID { return &v.ID }}
}

func (s *Store) Certificates() *Table[resource.Certificate] {
	return &Table[resource.Certificate]{s, "certificate", func(v *resource.Certificate) *resource.ID { return &v.ID }}
}

func (s *Store) Storages() *Table[resource.Storage] {
	return &Table[resource.Storage]{s, "storage", func(v *resource.Storage) *resource.ID { return &v.ID }}
}

func (s *Store) Operations() *Operations { return &Operations{s} }

// transact runs f in a transaction of the writer, and tells ended how it came out before the next write begins. An error
// of f undoes all of it and is returned as it is; ended is not called then.
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
	defer tx.Rollback() // after Commit it does nothing; it also covers a panic of f
	if err := f(tx); err != nil {
		return err
	}
	err = tx.Commit()
	ended(err)
	return explain(err)
}

// connect prepares connections to an existing file; none is made before the first use.
func connect(path string, limit int, mode string, pragmas ...string) *sql.DB {
	q := url.Values{
		"mode":    {mode},
		"_txlock": {"immediate"}, // a transaction that will write must not start as a reader
		"_pragma": append([]string{"busy_timeout(5000)"}, pragmas...),
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	// sql.Open only looks the driver up, and the import above registers it.
	db, _ := sql.Open("sqlite", dsn.String())
	db.SetMaxOpenConns(limit)
	db.SetMaxIdleConns(limit)
	return db
}

// explain gives SQLite's errors the names that callers branch on.
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
