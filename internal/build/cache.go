package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// keepUnused is how long a packed layer that no build uses is kept.
	keepUnused = 30 * 24 * time.Hour
	// keepPartial is how long an unfinished file is kept: longer than any build takes.
	keepPartial = 24 * time.Hour
	// settle is longer than a tick of the clock that the kernel stamps files with (10 ms at HZ=100). A file changed
	// less than that ago may change again without a new time.
	settle = 20 * time.Millisecond
)

// DefaultCache is the folder in which packed layers are kept for the user who builds.
func DefaultCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	return filepath.Join(dir, "penstock", "build"), nil
}

// cache keeps packed layers by digest (layers/sha256-<hex>) and what is known of them by fingerprint
// (index/<hex>.json). Files appear whole, by rename, and are never changed, so that builds at the same time and
// builds that are killed do no harm: they at most do work twice.
type cache struct {
	dir string
}

func openCache(dir string) (*cache, error) {
	c := &cache{dir: dir}
	for _, sub := range []string{"layers", "index"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("build cache: %w", err)
		}
	}
	return c, nil
}

func (c *cache) layerPath(b blob) string {
	return filepath.Join(c.dir, "layers", "sha256-"+b.Digest.Hex)
}

func (c *cache) indexPath(fingerprint string) string {
	return filepath.Join(c.dir, "index", fingerprint+".json")
}

// lookup finds a layer by its fingerprint. What cannot be read or does not fit is not found.
func (c *cache) lookup(fingerprint string, compression Compression) (b blob, path string, ok bool) {
	raw, err := os.ReadFile(c.indexPath(fingerprint))
	if err != nil || json.Unmarshal(raw, &b) != nil || b.MediaType != mediaTypes[compression] || b.Digest.Hex == "" || b.DiffID.Hex == "" {
		return blob{}, "", false
	}
	now := time.Now()
	_ = os.Chtimes(c.indexPath(fingerprint), now, now) // keeps it from being cleaned away; else it is built again
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

// remember keeps a blob, or what holds one and more, under the fingerprint of what it was made from.
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

// forget removes a layer that turned out to be damaged. Its path is empty when only its digest was kept.
func (c *cache) forget(fingerprint, path string) error {
	err := remove(c.indexPath(fingerprint))
	if path != "" {
		err = errors.Join(err, remove(path))
	}
	return err
}

// remove removes a file that another build may have removed.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// write writes a file aside and renames it to the path that fill returns.
func (c *cache) write(sub string, fill func(f *os.File) (path string, err error)) (path string, err error) {
	f, err := os.CreateTemp(filepath.Join(c.dir, sub), "partial-*")
	if err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // clean takes what stays
		}
	}()
	path, err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return path, os.Rename(f.Name(), path)
}

// clean removes what no build has used for long. What cannot be removed is left for the next build to try: the image
// is built, and a cache that is too large is no reason to say that it failed.
func (c *cache) clean(now time.Time) {
	for _, sub := range []string{"layers", "index"} {
		entries, err := os.ReadDir(filepath.Join(c.dir, sub))
		if err != nil {
			continue
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				continue // another build was faster
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

// layer finds a layer in the cache or packs it. The caller closes it.
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

// pack reads a layer's files and keeps what came of it. The path is empty when it is only the digest.
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
	// What changed while it was read must not be remembered for what it was before.
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
	if time.Since(l.tree.newest) < settle { // times of the future, from another machine's clock
		return built, path, hashed, nil
	}
	return built, path, hashed, c.remember(fingerprint, built)
}

// openSettled opens a tree whose last change is long enough ago for any later one to show in its times.
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
