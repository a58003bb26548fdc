package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"penstock/internal/resource"
)

// DeleteGroup marks a resource group and every environment, app and job in it as deleted, and stores the operation by which
// that is polled, in one transaction: a crash cannot leave a part of them unmarked. change has the group, which is zero if it
// was never written, and can refuse the deletion; it sets Deleted. It can read the store but must not write to it.
func (s *Store) DeleteGroup(ctx context.Context, id resource.ID, change func(g *resource.Group, exists bool) error, operation func(g resource.Group) Operation) error {
	groups := s.Groups()
	var g resource.Group
	err := s.transact(ctx, func(tx *sql.Tx) error {
		found, err := groups.load(ctx, tx, id)
		if err != nil {
			return err
		}
		if g, err = groups.decode(found); err != nil {
			return err
		}
		if err := change(&g, found.exists()); err != nil {
			return refused{err}
		}
		if !found.exists() {
			g.ID = id
		}
		if found.document, err = json.Marshal(g); err != nil {
			return err
		}
		if found.status == nil {
			found.status = []byte("{}")
		}
		if err := groups.save(ctx, tx, id, found); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE resources SET document = json_set(document, '$.Deleted', ?)
			WHERE kind IN (?, ?, ?) AND subscription = ? AND grp = ? AND document ->> '$.Deleted' IS NULL`,
			g.Deleted.UTC().Format(time.RFC3339Nano), s.Environments().kind, s.Apps().kind, s.Jobs().kind, strings.ToLower(id.Subscription), strings.ToLower(id.Group))
		if err != nil {
			return explain(err)
		}
		return putOperation(ctx, tx, operation(g))
	}, func(error) {
		groups.cache().forget()
		s.Environments().cache().forget()
		s.Apps().cache().forget()
		s.Jobs().cache().forget()
	})
	if refusal, ok := errors.AsType[refused](err); ok {
		return refusal.error
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", groups.words(id), err)
	}
	return nil
}
