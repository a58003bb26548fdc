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
	// maxEntries is far above the size of real root file systems: Debian with PyTorch has about 20,000 files.
	maxEntries = 1 << 20
	// maxPath is Linux's limit of a path (PATH_MAX, limits.h).
	maxPath = 4096
	// maxCompared is the largest file whose content is compared with that of the layers below. A larger file that looks
	// the same is included again, which only costs space.
	maxCompared = 64 << 20
)

// rootfs makes a layer from the tar of a root file system: all of it, or what differs from the layers below. Its output
// depends only on the files; see header and drop.
type rootfs struct {
	epoch time.Time
	// made is the start of the build of the tree. Files with a later time were created by the build and get the epoch.
	// Published files keep their times, on which compiled Python depends.
	made  time.Time
	below map[string]entrySum // nil if the layer is the whole tree
	// drop, if not nil, reports whether a file does not belong in an image.
	drop func(name string, kind byte) bool
	// through has functions that rewrite the content of files, by name.
	through map[string]func(content []byte) []byte

	seen map[string]entrySum
}

// entrySum identifies an entry and its content.
type entrySum struct {
	header  string
	content string // of a file: SHA-256
}

// pack reads a tar and writes the layer's tar. It returns the entries of the whole tree, so that a layer above can be
// compared with them.
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
	if err != nil || name == "." { // the engine provides the root folder
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
		return fmt.Errorf("%s: it occurs twice", name)
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

// file writes a file unless the layers below have it. The file is read into memory only if they might have it, or if its
// content is needed or rewritten.
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

// whiteouts writes a whiteout for each entry of the layers below that this tree does not have. A removed folder needs only
// one.
func (r *rootfs) whiteouts(out *tar.Writer) error {
	var gone []string
	for name := range r.below {
		if _, here := r.seen[name]; here {
			continue
		}
		if dir := path.Dir(name); dir != "." {
			if parent, here := r.seen[dir]; !here || !strings.HasPrefix(parent.header, string(rune(tar.TypeDir))) {
				continue // removed together with its folder
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

// header keeps what an image needs of an entry. It drops extended attributes. The only relevant ones, file capabilities,
// have no effect in containers, which run without new privileges.
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

// localName rejects names that lead out of the image, and those with a special meaning in a layer.
func localName(name string) (string, error) {
	clean := path.Clean(strings.TrimPrefix(name, "./"))
	switch {
	case name == "" || len(name) > maxPath || path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(name, 0):
		return "", fmt.Errorf("want a path inside the image, got %q", clip(name))
	case strings.HasPrefix(clean, whiteout) || strings.Contains(clean, "/"+whiteout):
		return "", fmt.Errorf("want a name that does not start with %s (which deletes files in an image), got %q", whiteout, clip(name))
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

// withoutDays clears the day of each password's last change, which is the day of the build
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
