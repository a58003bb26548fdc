package build

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	// maxEntries is far above what root file systems have: a Debian with PyTorch has some 20,000.
	maxEntries = 1 << 20
	// maxPath is Linux's limit of a path (PATH_MAX, limits.h).
	maxPath = 4096
	// maxCompared is the largest file of a base that is compared with the one above it by content; a larger one that
	// looks the same is taken along again, which costs room and no more.
	maxCompared = 64 << 20
)

// rootfs makes a layer of the tar of a root file system: all of it, or what differs from the layers below.
// What it writes follows from the files alone: see header and dropped.
type rootfs struct {
	epoch time.Time
	// made is the time from which on files were made by whoever assembled the tree, and not by who published them.
	// Theirs is the epoch; the others keep their times, on which compiled Python depends.
	made  time.Time
	below map[string]entrySum // nil: the layer is the whole tree
	// drop, if not nil, tells what does not belong into an image.
	drop func(name string, kind byte) bool
	// through gets the contents of the files with these names and returns what to write in their place.
	through map[string]func(content []byte) []byte

	seen map[string]entrySum
}

// entrySum stands for an entry and its content.
type entrySum struct {
	header  string
	content string // of a file: SHA-256
}

// pack reads a tar and writes the layer's. It returns the entries of the whole tree, for a layer above to be
// compared with.
func (r *rootfs) pack(ctx context.Context, from io.Reader, to io.Writer) (map[string]entrySum, error) {
	r.seen = make(map[string]entrySum)
	in, out := tar.NewReader(from), tar.NewWriter(to)
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(r.seen) == maxEntries {
			return nil, fmt.Errorf("want at most %d files, got more", maxEntries)
		}
		if err := r.entry(h, in, out); err != nil {
			return nil, err
		}
	}
	if err := r.whiteouts(out); err != nil {
		return nil, err
	}
	return r.seen, out.Close()
}

func (r *rootfs) entry(h *tar.Header, in io.Reader, out *tar.Writer) error {
	name, err := localName(h.Name)
	if err != nil || name == "." { // the root itself is the engine's
		return err
	}
	if r.drop != nil && r.drop(name, h.Typeflag) {
		return nil
	}
	clean, err := r.header(name, h)
	if err != nil {
		return err
	}
	if _, twice := r.seen[name]; twice {
		return fmt.Errorf("%s: it is there twice", name)
	}
	if clean.Typeflag != tar.TypeReg {
		sum := entrySum{header: describeHeader(clean)}
		unchanged := r.same(name, sum) && (clean.Typeflag != tar.TypeLink || r.same(clean.Linkname, r.seen[clean.Linkname]))
		r.seen[name] = sum
		if unchanged {
			return nil
		}
		return out.WriteHeader(clean)
	}
	return r.file(name, clean, in, out)
}

// file writes a file unless the layers below have it. It is read into memory only if they may, or if somebody wants
// to see or to change it.
func (r *rootfs) file(name string, h *tar.Header, in io.Reader, out *tar.Writer) error {
	change := r.through[name]
	if old, ok := r.below[name]; h.Size > maxCompared || change == nil && (!ok || old.header != describeHeader(h)) {
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		sum := sha256.New()
		if _, err := io.Copy(io.MultiWriter(out, sum), in); err != nil {
			return err
		}
		r.seen[name] = entrySum{describeHeader(h), hex.EncodeToString(sum.Sum(nil))}
		return nil
	}
	content, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if change != nil {
		content = change(content)
		h.Size = int64(len(content))
	}
	digest := sha256.Sum256(content)
	sum := entrySum{describeHeader(h), hex.EncodeToString(digest[:])}
	unchanged := r.same(name, sum)
	r.seen[name] = sum
	if unchanged {
		return nil
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err = out.Write(content)
	return err
}

func (r *rootfs) same(name string, sum entrySum) bool {
	old, ok := r.below[name]
	return ok && old == sum
}

// whiteouts says of what the layers below have and this tree has not that it is gone: of a folder once.
func (r *rootfs) whiteouts(out *tar.Writer) error {
	var gone []string
	for name := range r.below {
		if _, here := r.seen[name]; here {
			continue
		}
		if dir := path.Dir(name); dir != "." {
			if parent, here := r.seen[dir]; !here || !strings.HasPrefix(parent.header, string(rune(tar.TypeDir))) {
				continue // it goes with what it was in
			}
		}
		gone = append(gone, path.Join(path.Dir(name), whiteout+path.Base(name)))
	}
	slices.Sort(gone)
	for _, name := range gone {
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: r.epoch}); err != nil {
			return err
		}
	}
	return nil
}

// header keeps of an entry what an image needs. Extended attributes go: those that matter, file capabilities, have no
// effect in containers that run without new privileges.
func (r *rootfs) header(name string, h *tar.Header) (*tar.Header, error) {
	clean := &tar.Header{Typeflag: h.Typeflag, Name: name, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid, ModTime: r.epoch}
	if h.Uid < 0 || h.Gid < 0 || h.Uid > maxID || h.Gid > maxID {
		return nil, fmt.Errorf("%s: want owners from 0 to %d, got %d:%d", name, maxID, h.Uid, h.Gid)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		clean.Name += "/"
	case tar.TypeReg:
		clean.Size = h.Size
		if at := h.ModTime.Truncate(time.Second); at.Before(r.made) && at.Unix() >= 0 {
			clean.ModTime = at
		}
	case tar.TypeSymlink:
		if clean.Linkname = h.Linkname; len(h.Linkname) > maxPath || h.Linkname == "" || strings.ContainsRune(h.Linkname, 0) {
			return nil, fmt.Errorf("%s: want a symbolic link of 1 to %d characters, got %q", name, maxPath, clip(h.Linkname))
		}
	case tar.TypeLink:
		target, err := localName(h.Linkname)
		if err != nil {
			return nil, fmt.Errorf("%s: hard link: %w", name, err)
		}
		if _, ok := r.seen[target]; !ok {
			return nil, fmt.Errorf("%s: want a hard link to a file that comes before it, got one to %q", name, clip(target))
		}
		clean.Linkname = target
	default:
		return nil, fmt.Errorf("%s: want files, folders and links, got %s", name, kindOf(h.Typeflag))
	}
	return clean, nil
}

func describeHeader(h *tar.Header) string {
	return fmt.Sprintf("%c %o %d:%d %d %d %q", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.Unix(), h.Linkname)
}

// localName refuses names that lead out of the image, and those that mean something else in a layer.
func localName(name string) (string, error) {
	clean := path.Clean(strings.TrimPrefix(name, "./"))
	switch {
	case name == "" || len(name) > maxPath || path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(name, 0):
		return "", fmt.Errorf("want a path inside the image, got %q", clip(name))
	case strings.HasPrefix(clean, whiteout) || strings.Contains(clean, "/"+whiteout):
		return "", fmt.Errorf("want no name beginning with %s, which deletes files in an image, got %q", whiteout, clip(name))
	}
	return clean, nil
}

func kindOf(typeflag byte) string {
	switch typeflag {
	case tar.TypeChar, tar.TypeBlock:
		return "a device"
	case tar.TypeFifo:
		return "a named pipe"
	}
	return fmt.Sprintf("a tar entry of type %q", typeflag)
}

// withoutDays empties the day of the last change of each password, which is the day of the build
// (shadow(5): an empty field means that password aging is disabled).
func withoutDays(shadow []byte) []byte {
	lines := bytes.Split(shadow, []byte("\n"))
	for i, line := range lines {
		if fields := bytes.Split(line, []byte(":")); len(fields) == 9 {
			fields[2] = nil
			lines[i] = bytes.Join(fields, []byte(":"))
		}
	}
	return bytes.Join(lines, []byte("\n"))
}
