package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"penstock/internal/atomicfile"
	"penstock/internal/store"
)

// maxJSON limits the size of backup.json and sums.json. It is enough for about 100,000 files.
const maxJSON = 16 << 20

// Check reads a backup to its end and returns an error if it is incomplete or damaged.
func Check(r io.Reader) (Info, error) {
	info, err := read(r, nil, func(*tar.Header, io.Reader) error { return nil })
	if err != nil {
		return info, fmt.Errorf("check backup: %w", err)
	}
	return info, nil
}

// Target is the data folder that Restore creates.
type Target struct {
	Dir string // must be empty or not exist
	// AsNew leaves out the server's name and addresses, so that the new server can run beside the old one on the same
	// machine.
	AsNew bool
	// Allow is called before anything is written and can reject the restore. It may be nil.
	Allow func(Info) error
}

// Restore creates a data folder from a backup. The folder gets its final name only when it is complete and valid.
func Restore(ctx context.Context, r io.Reader, to Target) (Info, error) {
	info, err := restore(ctx, r, to)
	if err != nil {
		return info, fmt.Errorf("restore to %s: %w", to.Dir, err)
	}
	return info, nil
}

func restore(ctx context.Context, r io.Reader, to Target) (info Info, err error) {
	dir, err := filepath.Abs(to.Dir)
	if err != nil {
		return info, err
	}
	there, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return info, err
	}
	if len(there) > 0 {
		return info, fmt.Errorf("want an empty folder, found %s and %d more in it", there[0].Name(), len(there)-1)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return info, err
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-*")
	if err != nil {
		return info, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(made))
		}
	}()
	info, err = read(r, to.Allow, func(h *tar.Header, content io.Reader) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return place(made, h, content, to.AsNew)
	})
	if err != nil {
		return info, err
	}
	if err := store.Check(ctx, filepath.Join(made, database)); err != nil {
		return info, err
	}
	// Container users must be able to pass through this folder.
	if err := os.Chmod(made, 0o711); err != nil {
		return info, err
	}
	return info, atomicfile.Rename(made, dir)
}

// place writes one entry of the backup below dir.
func place(dir string, h *tar.Header, content io.Reader, asNew bool) error {
	top, inside, _ := strings.Cut(strings.TrimSuffix(h.Name, "/"), "/")
	if asNew && (inside == "instance" || inside == SettingsFile || path.Dir(inside) == "network") && top == dataDir {
		return nil
	}
	if top == imagesDir {
		inside = path.Join(ImportDir, inside)
	}
	target := filepath.Join(dir, filepath.FromSlash(inside))
	mode := fs.FileMode(h.Mode) & 0o777
	if h.Typeflag == tar.TypeDir {
		if err := os.MkdirAll(target, 0o700); err != nil {
			return err
		}
		return os.Chmod(target, mode|0o700)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Sync(), f.Close())
}

// read passes each file and folder of a backup to take, and checks the sums at the end. A folder has no content.
func read(r io.Reader, allow func(Info) error, take func(*tar.Header, io.Reader) error) (info Info, err error) {
	in := tar.NewReader(r)
	h, err := in.Next()
	if err != nil || h.Name != infoName {
		return info, fmt.Errorf("want a backup of Penstock, which begins with %s: %w", infoName, errors.Join(err, errNot(h)))
	}
	sums := map[string]string{}
	if err := decode(h.Name, in, sums, &info); err != nil {
		return info, err
	}
	if err := info.check(); err != nil {
		return info, err
	}
	if allow != nil {
		if err := allow(info); err != nil {
			return info, err
		}
	}
	for {
		h, err := in.Next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return info, fmt.Errorf("%w: it has no %s", ErrCut, sumsName)
		case err != nil:
			return info, err
		}
		if h.Name == sumsName {
			var want map[string]string
			if err := decode(h.Name, in, map[string]string{}, &want); err != nil {
				return info, err
			}
			return info, compare(want, sums)
		}
		if !safe(strings.TrimSuffix(h.Name, "/")) || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			return info, fmt.Errorf("%q (type %q): want files and folders in %s/ and %s/", h.Name, h.Typeflag, dataDir, imagesDir)
		}
		if h.Typeflag == tar.TypeDir {
			if err := take(h, nil); err != nil {
				return info, err
			}
			continue
		}
		if _, twice := sums[h.Name]; twice {
			return info, fmt.Errorf("%s: it is in the backup twice", h.Name)
		}
		sum := sha256.New()
		content := io.TeeReader(in, sum)
		err = take(h, content)
		if err == nil {
			_, err = io.Copy(io.Discard, content)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return info, fmt.Errorf("%w in %s", ErrCut, h.Name)
		}
		if err != nil {
			return info, fmt.Errorf("%s: %w", h.Name, err)
		}
		sums[h.Name] = sumOf(sum)
	}
}

func errNot(h *tar.Header) error {
	if h == nil {
		return nil
	}
	return fmt.Errorf("got %q", h.Name)
}

func decode(name string, in io.Reader, sums map[string]string, into any) error {
	b, err := io.ReadAll(io.LimitReader(in, maxJSON+1))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w in %s", ErrCut, name)
	}
	if err != nil {
		return err
	}
	if len(b) > maxJSON {
		return fmt.Errorf("%s: want at most %d bytes", name, maxJSON)
	}
	sum := sha256.Sum256(b)
	sums[name] = fmt.Sprintf("%x", sum)
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func compare(want, got map[string]string) error {
	if maps.Equal(want, got) {
		return nil
	}
	for name, sum := range want {
		switch have, ok := got[name]; {
		case !ok:
			return fmt.Errorf("%s: it is missing from the backup", name)
		case have != sum:
			return fmt.Errorf("%s: it was changed after the backup was made (SHA-256 %s, want %s)", name, have, sum)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			return fmt.Errorf("%s: it was added after the backup was made", name)
		}
	}
	return nil
}
