package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"penstock/internal/atomicfile"
	"penstock/internal/link"
)

// tableFormat is the version of the file that SaveTable writes.
const tableFormat = 1

type tableFile struct {
	Format int        `json:"format"`
	Table  link.Table `json:"table"`
}

// SaveTable keeps the last table in a file, for an ingress that starts while control is away. The file has the private
// keys of certificates, so only its owner may read it.
func (in *Ingress) SaveTable(path string) error {
	t, ok := in.Table()
	if !ok {
		return nil
	}
	text, err := json.Marshal(tableFile{tableFormat, t})
	if err != nil {
		return fmt.Errorf("save routes: %w", err)
	}
	if err := atomicfile.Write(path, text, 0o600); err != nil {
		return fmt.Errorf("save routes: %w", err)
	}
	return nil
}

// keepAfter is how long tables are let come before the newest one is saved. With a thousand apps saving takes as long as
// reading and using a change, and nobody waits for it.
const keepAfter = 100 * time.Millisecond

// KeepTable saves the tables that are applied, each a moment later, until ctx ends.
func (in *Ingress) KeepTable(ctx context.Context, path string) {
	save := func() {
		if err := in.SaveTable(path); err != nil {
			in.cfg.Log.Warn("routes not kept; an ingress that starts while control is away will not have them", "err", err)
		}
	}
	for {
		select {
		case <-in.fresh:
		case <-ctx.Done():
			select {
			case <-in.fresh: // what came last is kept all the same
				save()
			default:
			}
			return
		}
		select {
		case <-time.After(keepAfter): // others may follow
		case <-ctx.Done():
		}
		save()
	}
}

// Table is the last table, if there has been one.
func (in *Ingress) Table() (t link.Table, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.last, in.applied
}

// LoadTable applies the table that SaveTable kept, unless there is a table already. Without a file there is nothing to do.
func (in *Ingress) LoadTable(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load routes: %w", err)
	}
	var f tableFile
	if err := json.Unmarshal(text, &f); err != nil {
		return fmt.Errorf("load routes from %s: %w", path, err)
	}
	if f.Format != tableFormat {
		return fmt.Errorf("load routes from %s: want format %d, got %d", path, tableFormat, f.Format)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.applied {
		in.apply(f.Table)
	}
	return nil
}
