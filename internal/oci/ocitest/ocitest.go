// Package ocitest opens the stores of package oci for tests: containerd's real content store and metadata database,
// without its daemon.
package ocitest

import (
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"go.etcd.io/bbolt"

	"penstock/internal/oci"
)

// Open opens empty stores in a folder of the test. It also returns their database and folder. They are closed when the
// test ends.
func Open(t testing.TB) (stores oci.Stores, db *metadata.DB, dir string) {
	t.Helper()
	dir = t.TempDir()
	store, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	bolt, err := bbolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	db = metadata.NewDB(bolt, store, nil)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := db.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return oci.Stores{Content: db.ContentStore(), Images: metadata.NewImageStore(db), Leases: metadata.NewLeaseManager(db)}, db, dir
}
