package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Source is the server that Write backs up.
type Source struct {
	Info Info
	Data string // its data folder
	// Database writes a consistent copy of the database to a new file.
	Database func(ctx context.Context, path string) error
	// Images passes on every file of an OCI image layout. If it is nil, the backup has no images.
	Images func(ctx context.Context, add func(name string, size int64, content io.Reader) error) error
}

// left reports which parts of a data folder are not backed up: images and containers (images have their own OCI layout),
// logs, files about the running process, and unfinished files.
func left(name string) bool {
	switch name {
	case "containerd", "logs", "lock", "client.json", "server.log", "server.log.1", "storages", ImportDir:
		return true
	}
	return strings.HasPrefix(name, database) || strings.HasPrefix(path.Base(name), ".")
}

// Write writes a backup to w. After an error the backup has no valid end, and Restore rejects it.
func Write(ctx context.Context, w io.Writer, s Source) error {
	out := &writer{tar: tar.NewWriter(w), sums: map[string]string{}, at: s.Info.Created}
	if err := out.write(ctx, s); err != nil {
		return fmt.Errorf("back up %s: %w", s.Data, err)
	}
	return nil
}

func (w *writer) write(ctx context.Context, s Source) error {
	s.Info.Format, s.Info.Images = Format, s.Images != nil
	if err := w.json(infoName, s.Info); err != nil {
		return err
	}
	// The database is written first, so that everything it refers to is in what follows.
	scratch, err := os.MkdirTemp(s.Data, ".backup-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	copied := filepath.Join(scratch, database)
	if err := s.Database(ctx, copied); err != nil {
		return err
	}
	if err := w.file(path.Join(dataDir, database), copied); err != nil {
		return err
	}
	if err := w.folder(ctx, s.Data); err != nil {
		return err
	}
	if s.Images != nil {
		err := s.Images(ctx, func(name string, size int64, content io.Reader) error {
			return w.add(tar.Header{Name: path.Join(imagesDir, name), Size: size, Mode: 0o600}, content)
		})
		if err != nil {
			return fmt.Errorf("images: %w", err)
		}
	}
	if err := w.json(sumsName, w.sums); err != nil {
		return err
	}
	return w.tar.Close()
}

type writer struct {
	tar  *tar.Writer
	sums map[string]string
	at   time.Time
}

// folder adds the files of the data folder.
func (w *writer) folder(ctx context.Context, dir string) error {
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if inside != "." && left(filepath.ToSlash(inside)) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := e.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.IsDir():
			return w.tar.WriteHeader(&tar.Header{
				Typeflag: tar.TypeDir, Name: path.Join(dataDir, filepath.ToSlash(inside)) + "/", Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(),
			})
		case !info.Mode().IsRegular():
			return nil // a socket
		}
		if err := w.file(path.Join(dataDir, filepath.ToSlash(inside)), name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return ctx.Err()
	})
}

func (w *writer) file(name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return w.add(tar.Header{Name: name, Size: info.Size(), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime()}, io.LimitReader(f, info.Size()))
}

func (w *writer) json(name string, value any) error {
	b, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return w.add(tar.Header{Name: name, Size: int64(len(b)), Mode: 0o600}, strings.NewReader(string(b)))
}

func (w *writer) add(h tar.Header, content io.Reader) error {
	h.Typeflag, h.Format = tar.TypeReg, tar.FormatPAX // sizes beyond 8 GiB, long names
	if h.ModTime.IsZero() {
		h.ModTime = w.at
	}
	h.ModTime = h.ModTime.Truncate(time.Second)
	if err := w.tar.WriteHeader(&h); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w.tar, sum), content)
	if err == nil && n < h.Size {
		err = fmt.Errorf("it became shorter while it was read: %d of %d bytes", n, h.Size)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	w.sums[h.Name] = sumOf(sum)
	return nil
}

func sumOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// safe reports whether an archive name is one that Write could have written.
func safe(name string) bool {
	if !filepath.IsLocal(name) || path.Clean(name) != name || strings.ContainsAny(name, "\\\x00") {
		return false
	}
	top, rest, _ := strings.Cut(name, "/")
	return slices.Contains([]string{dataDir, imagesDir}, top) && (rest != "" || top == dataDir)
}
