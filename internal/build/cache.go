package build

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"penstock/internal/atomicfile"
)

const (
	// keepUnused is how long an unused packed layer is kept.
	keepUnused = 30 * 24 * time.Hour
	// keepPartial is how long an unfinished file is kept: longer than any build takes.
	keepPartial = 24 * time.Hour
	// settle is longer than a tick of the clock that the kernel uses for file times (10 ms at HZ=100). A file that changed
	// more recently could change again without getting a new time.
	settle = 20 * time.Millisecond
)

// DefaultCache returns the user's cache folder for packed layers.
func DefaultCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	return filepath.Join(dir, "penstock", "build"), nil
}

// cache stores packed layers by digest (layers/sha256-<hex>), facts about them by fingerprint (index/<hex>.json), and Debian
// packages by address (debs/<hex>). Files are created by rename and never changed, so concurrent or killed builds do no harm. At worst they do work twice.
type cache struct {
	dir string
}

func openCache(dir string) (*cache, error) {
	c := &cache{dir: dir}
	for _, sub := range []string{"layers", "index", "debs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("build cache: %w", err)
		}
	}
	return c, nil
}

// secret returns the secret with which builders read from the gate. It stays the same, because builders remember where they
// found a layer by a path that contains it.
func (c *cache) secret() (string, error) {
	path := filepath.Join(c.dir, "gate-secret")
	if raw, err := os.ReadFile(path); err == nil && len(raw) == len(rand.Text()) {
		return string(raw), nil
	}
	secret := strings.ToLower(rand.Text())
	if err := atomicfile.Write(path, []byte(secret), 0o600); err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	return secret, nil
}

func (c *cache) layerPath(b blob) string {
	return filepath.Join(c.dir, "layers", "sha256-"+b.Digest.Hex)
}

func (c *cache) indexPath(fingerprint string) string {
	return filepath.Join(c.dir, "index", fingerprint+".json")
}

// lookup finds a layer by its fingerprint. Entries that are unreadable or do not fit count as missing.
func (c *cache) lookup(fingerprint string, compression Compression) (b blob, path string, ok bool) {
	raw, err := os.ReadFile(c.indexPath(fingerprint))
	if err != nil || json.Unmarshal(raw, &b) != nil || b.MediaType != mediaTypes[compression] || b.Digest.Hex == "" || b.DiffID.Hex == "" {
		return blob{}, "", false
	}
	now := time.Now()
	_ = os.Chtimes(c.indexPath(fingerprint), now, now) // marks it as used, so that clean keeps it; on failure it is only rebuilt
	if compression == None {
		return b, "", true
	}
	path = c.layerPath(b)
	if info, err := os.Stat(path); err != nil || info.Size() != b.Size {
		return blob{}, "", false
	}
	_ = os.Chtimes(path, now, now) // as above
	return b, path, true
}

// remember stores a blob, or a struct that contains one, under the fingerprint of its source.
func (c *cache) remember(fingerprint string, built any) error {
	raw, err := json.Marshal(built)
	if err != nil {
		return err
	}
	_, err = c.write("index", func(f *os.File) (string, error) {
		_, err := f.Write(raw)
		return c.indexPath(fingerprint), err
	})
	return err
}

// forget removes a damaged layer. Its path is empty if only its digest was stored.
func (c *cache) forget(fingerprint, path string) error {
	err := remove(c.indexPath(fingerprint))
	if path != "" {
		err = errors.Join(err, remove(path))
	}
	return err
}

// remove removes a file that another build may have removed already.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// write writes a temporary file and renames it to the path that fill returns.
func (c *cache) write(sub string, fill func(f *os.File) (path string, err error)) (path string, err error) {
	f, err := os.CreateTemp(filepath.Join(c.dir, sub), "partial-*")
	if err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // clean removes files that remain
		}
	}()
	path, err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return path, atomicfile.Rename(f.Name(), path)
}

// clean removes files that no build has used for long. It ignores errors and leaves such files to the next build, because a
// cache that is too large must not make a successful build fail.
func (c *cache) clean(now time.Time) {
	for _, sub := range []string{"layers", "index", "debs"} {
		entries, err := os.ReadDir(filepath.Join(c.dir, sub))
		if err != nil {
			continue
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				continue // removed by another build
			}
			keep := keepUnused
			if ok, _ := filepath.Match("partial-*", e.Name()); ok {
				keep = keepPartial
			}
			if now.Sub(info.ModTime()) > keep {
				_ = os.Remove(filepath.Join(c.dir, sub, e.Name())) // see above
			}
		}
	}
}

// layer returns a layer from the cache, or packs it. The caller closes it.
func (c *cache) layer(ctx context.Context, dir *os.Root, spec LayerSpec, epoch time.Time, read func(done, total int64)) (*layer, int64, error) {
	begin := time.Now()
	t, err := openSettled(ctx, dir, spec)
	if err != nil {
		return nil, 0, err
	}
	l := &files{spec: spec, tree: t, epoch: epoch}
	var hashed int64
	fingerprint := t.fingerprint(spec, epoch)
	built, path, cached := c.lookup(fingerprint, spec.Compression)
	if !cached {
		if built, path, hashed, err = c.pack(ctx, dir, l, fingerprint, read); err != nil {
			return nil, 0, errors.Join(err, t.Close())
		}
	}
	open := func(ctx context.Context) (io.ReadCloser, error) { return l.stream(ctx), nil }
	if path != "" {
		open = func(context.Context) (io.ReadCloser, error) { return os.Open(path) }
	}
	return &layer{
		name: spec.Name, madeBy: fmt.Sprintf("penstock build: %s to %s", spec.Name, spec.To),
		built: built, cached: cached, took: time.Since(begin), open: open,
		forget: func() error { return c.forget(fingerprint, path) },
		close:  t.Close,
	}, hashed, nil
}

// pack packs a layer's files and stores the result. The path is empty if only the digest is stored.
func (c *cache) pack(ctx context.Context, dir *os.Root, l *files, fingerprint string, read func(done, total int64)) (built blob, path string, hashed int64, err error) {
	var done int64
	count := func(n int) {
		done += int64(n)
		read(done, l.tree.size)
	}
	if l.spec.Compression == None {
		built, hashed, err = l.pack(ctx, nil, count)
	} else {
		path, err = c.write("layers", func(f *os.File) (string, error) {
			built, hashed, err = l.pack(ctx, f, count)
			return c.layerPath(built), err
		})
	}
	if err != nil {
		return blob{}, "", 0, err
	}
	// A file that changed while it was read must not be remembered with its old state.
	again, err := openTree(ctx, dir, l.spec)
	if err != nil {
		return blob{}, "", 0, err
	}
	if err := again.Close(); err != nil {
		return blob{}, "", 0, err
	}
	if again.fingerprint(l.spec, l.epoch) != fingerprint {
		return blob{}, "", 0, &changedError{l.spec.From}
	}
	if time.Since(l.tree.newest) < settle { // also true for times in the future, from another machine's clock
		return built, path, hashed, nil
	}
	return built, path, hashed, c.remember(fingerprint, built)
}

// openSettled opens a tree and waits until its last change is so old that any later change is visible in file times.
func openSettled(ctx context.Context, dir *os.Root, spec LayerSpec) (*tree, error) {
	t, err := openTree(ctx, dir, spec)
	if err != nil {
		return nil, err
	}
	wait := settle - time.Since(t.newest)
	if wait <= 0 || wait > settle {
		return t, nil
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return openTree(ctx, dir, spec)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
