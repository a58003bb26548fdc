package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// whiteout is the prefix of names with which a layer marks files of lower layers as deleted. No file in an image can have
// such a name.
const whiteout = ".wh."

// tree holds the files of a layer, which are found but not read yet.
type tree struct {
	root    *os.Root // folder of the entries' paths; nothing outside it can be opened
	file    bool     // from is a file, the only entry
	entries []entry  // sorted; the folder itself, ".", comes first
	size    int64    // of all files
	newest  time.Time
}

type entry struct {
	path string // below root, with slashes
	info fs.FileInfo
	link string // target of a symbolic link
}

func errMissing(dir *os.Root, spec LayerSpec) error {
	return fmt.Errorf("from: want a file or folder, got %q, which does not exist in %s; penstock build compiles and downloads nothing, so make it first", spec.From, dir.Name())
}

// openTree finds the files of a layer. Links in the path of from are followed if they stay inside dir. Links below from are
// kept as links. The caller closes the tree.
func openTree(ctx context.Context, dir *os.Root, spec LayerSpec) (*tree, error) {
	from := filepath.FromSlash(spec.From)
	info, err := dir.Stat(from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errMissing(dir, spec)
	case err != nil:
		return nil, fmt.Errorf("from: want a file or folder inside %s, got %q: %w", dir.Name(), spec.From, err)
	case info.Mode().IsRegular():
		parent, err := dir.OpenRoot(".")
		if err != nil {
			return nil, fmt.Errorf("from: %w", err)
		}
		return &tree{root: parent, file: true, size: info.Size(), newest: newest(info), entries: []entry{{path: spec.From, info: info}}}, nil
	case !info.IsDir():
		return nil, fmt.Errorf("from: want a file or folder, got %q, which is %s", spec.From, kind(info.Mode()))
	}
	root, err := dir.OpenRoot(from)
	if err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	t := &tree{root: root}
	skip, err := readIgnored(dir)
	if err == nil {
		err = t.scan(ctx, spec.From, skip)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return t, nil
}

// scan adds the entries of a folder that are not ignored. Its error lists all files that a layer cannot contain.
func (t *tree) scan(ctx context.Context, from string, skip *ignored) error {
	var refused []error
	refuse := func(p, format string, args ...any) {
		const shown = 20
		switch len(refused) {
		case shown:
			refused = append(refused, errors.New("and more"))
		default:
			if len(refused) < shown {
				refused = append(refused, fmt.Errorf("from: %s: %s", path.Join(from, p), fmt.Sprintf(format, args...)))
			}
		}
	}
	linked := make(map[inode]string)
	err := fs.WalkDir(t.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		switch out, below, err := skip.matches(path.Join(from, p), p == "."); {
		case err != nil:
			return err
		case out && d.IsDir() && !below:
			return fs.SkipDir
		case out:
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{path: p, info: info}
		switch mode := info.Mode(); {
		case strings.HasPrefix(path.Base(p), whiteout):
			refuse(p, "want a name that does not start with %s (which deletes files in an image)", whiteout)
		case mode.IsRegular():
			if ino, links, ok := fileID(info); ok && links > 1 {
				if first, seen := linked[ino]; seen {
					refuse(p, "want a file of its own, got a hard link to %s; copy it or link it symbolically", path.Join(from, first))
				}
				linked[ino] = p
			}
			t.size += info.Size()
		case mode&fs.ModeSymlink != 0:
			if e.link, err = t.root.Readlink(filepath.FromSlash(p)); err != nil {
				return err
			}
		case !mode.IsDir():
			refuse(p, "want files, folders and symbolic links, got %s", kind(mode))
		}
		if at := newest(info); at.After(t.newest) && !info.IsDir() {
			t.newest = at
		}
		t.entries = append(t.entries, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("from: read %s: %w", from, err)
	}
	if len(t.entries) == 1 {
		refuse("", "want something in it, got an empty folder, or one whose files are all in %s", IgnoreFile)
	}
	return errors.Join(refused...)
}

func (t *tree) Close() error { return t.root.Close() }

// fingerprint stands for what layer would be built of the tree, without reading a file. Inode and time of status
// change catch what was replaced or changed with its old time put back.
func (t *tree) fingerprint(spec LayerSpec, epoch time.Time) string {
	h := sha256.New()
	fmt.Fprintf(h, "layer %d\nto %q\ncompression %s\nowner %d:%d\nepoch %d\nfile %v\n", layerFormat, spec.To, spec.Compression, spec.UID, spec.GID, epoch.Unix(), t.file)
	for _, e := range t.entries {
		if e.info.IsDir() { // its times tell of its entries, which are here themselves
			fmt.Fprintf(h, "%q\n", e.path)
			continue
		}
		ino, _, _ := fileID(e.info)
		fmt.Fprintf(h, "%q %o %d %d %v %d %q\n", e.path, e.info.Mode(), e.info.Size(), e.info.ModTime().UnixNano(), ino, changed(e.info).UnixNano(), e.link)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// newest is the time of an entry's last change of any kind.
func newest(info fs.FileInfo) time.Time {
	if at := changed(info); at.After(info.ModTime()) {
		return at
	}
	return info.ModTime()
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}
