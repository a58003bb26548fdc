package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"penstock/internal/atomicfile"
)

// applicationID marks the file as ours in SQLite's header: "Pnsk".
const applicationID = 0x506e736b

// steps convert each format version to the next. A database of version n has had the first n steps. A released step
// never changes.
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
		// The platform's part moves from the document that users write into a status document. Unlike ->>, -> keeps a
		// value as JSON; json_patch drops missing fields.
		`ALTER TABLE resources ADD COLUMN status TEXT NOT NULL DEFAULT '{}';

		UPDATE resources SET
			status = json_patch('{}', json_object(
				'Observed', (document ->> '$.Generation') - (document ->> '$.Provisioning' = 'InProgress'),
				'DefaultDomain', document -> '$.DefaultDomain')),
			document = json_remove(document, '$.Provisioning', '$.DefaultDomain')
		WHERE kind = 'environment' AND document ->> '$.Provisioning' <> 'Deleting';
		UPDATE resources SET
			status = json_patch('{}', json_object(
				'Observed', document -> '$.Generation',
				'DefaultDomain', document -> '$.DefaultDomain')),
			document = json_set(json_remove(document, '$.Provisioning', '$.DefaultDomain'), '$.Deleted', strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
		WHERE kind = 'environment' AND document ->> '$.Provisioning' = 'Deleting';

		UPDATE resources SET document = json_set(document, '$.Deleted', strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
		WHERE kind IN ('app', 'job') AND document ->> '$.Provisioning' = 'Deleting';
		UPDATE resources SET
			status = json_patch('{}', json_object(
				'Observed', document -> '$.Observed',
				'Failure', coalesce(nullif(document ->> '$.ProvisioningError', ''), iif(document ->> '$.Provisioning' = 'Failed', 'the reason was not kept', NULL)),
				'LatestRevision', document -> '$.LatestRevision',
				'LatestReadyRevision', document -> '$.LatestReadyRevision')),
			document = json_remove(document, '$.Provisioning', '$.ProvisioningError', '$.Observed', '$.LatestRevision', '$.LatestReadyRevision')
		WHERE kind = 'app';
		UPDATE resources SET
			status = json_patch('{}', json_object('Observed', document -> '$.Observed')),
			document = json_remove(json_set(document, '$.ScheduledFrom', document -> '$.Since'), '$.Provisioning', '$.ProvisioningError', '$.Observed', '$.Since')
		WHERE kind = 'job';

		UPDATE resources SET
			status = json_patch('{}', json_object(
				'TargetPort', document -> '$.TargetPort', 'DetectPort', document -> '$.DetectPort', 'TLS', document -> '$.TLS',
				'Settings', document -> '$.Settings',
				'Retired', iif(document ->> '$.Active' OR coalesce(document ->> '$.Off', 0), NULL, json('true')),
				'State', document -> '$.State', 'Reason', document -> '$.Reason', 'Ready', document -> '$.Ready')),
			document = json_remove(document, '$.TargetPort', '$.DetectPort', '$.TLS', '$.Settings', '$.Active', '$.State', '$.Reason', '$.Ready')
		WHERE kind = 'revision';
		UPDATE resources SET
			status = json_patch('{}', json_object(
				'State', document -> '$.State', 'Reason', document -> '$.Reason', 'Message', document -> '$.Message', 'Ended', document -> '$.Ended',
				'Settings', document -> '$.Revision.Settings', 'Images', document -> '$.Revision.Images', 'Replicas', document -> '$.Replicas')),
			document = json_remove(
				json_set(document,
					'$.Environment', document -> '$.Revision.Environment', '$.Generation', document -> '$.Revision.Generation',
					'$.Template', document -> '$.Revision.Template', '$.Policy', document -> '$.Plan'),
				'$.Revision', '$.Plan', '$.State', '$.Reason', '$.Message', '$.Ended', '$.Replicas')
		WHERE kind = 'execution';`,
	}
}

// create creates an empty database of format 0 under a temporary name and renames it, so that no incomplete file ever
// has the real name.
func create(ctx context.Context, path string) error {
	temp := path + ".new"
	for _, left := range []string{temp, temp + "-journal", temp + "-wal", temp + "-shm"} {
		if err := os.Remove(left); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// SQLite would make the file readable for all. Its companions (-wal, -shm) get the mode of the file.
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
	return atomicfile.Rename(temp, path)
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

// migrate runs the remaining steps on a database of the version found, each in one transaction with its new version.
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
