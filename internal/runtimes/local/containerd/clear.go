package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// clearBatch is how many names of a folder are read at a time.
const clearBatch = 1024

// removeTree removes a folder that a container has filled, and need not exist. It does not descend: each folder inside
// is moved to the first level and emptied there. So however deep the tree is, few descriptors are open and no path is
// too long.
func removeTree(ctx context.Context, dir string) error {
	top, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer top.Close()
	t := &tree{ctx: ctx, top: int(top.Fd())}
	for {
		before := t.removed
		t.failed = nil
		empty, err := t.empty(top, t.emptyFolder)
		if err != nil {
			return fmt.Errorf("remove what is in %s: %w", dir, err)
		}
		if empty {
			return os.Remove(dir)
		}
		if t.removed == before {
			return fmt.Errorf("remove what is in %s: %w", dir, t.failed)
		}
		if _, err := top.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

type tree struct {
	ctx     context.Context
	top     int
	moved   int   // folders that were moved to the top
	removed int   // or moved
	failed  error // the last reason why something was left
}

// empty removes the files of a folder and calls folder for the name of each folder in it. It reports whether it found
// nothing.
func (t *tree) empty(f *os.File, folder func(parent int, name string) error) (nothing bool, err error) {
	nothing = true
	for {
		if err := t.ctx.Err(); err != nil {
			return false, context.Cause(t.ctx)
		}
		names, err := f.Readdirnames(clearBatch)
		if errors.Is(err, io.EOF) {
			return nothing, nil
		}
		if err != nil {
			return false, err
		}
		nothing = false
		for _, name := range names {
			err := unix.Unlinkat(int(f.Fd()), name, 0)
			if errors.Is(err, unix.EISDIR) {
				err = folder(int(f.Fd()), name)
			}
			t.note(err)
		}
	}
}

func (t *tree) note(err error) {
	if err == nil {
		t.removed++
	} else if !errors.Is(err, unix.ENOENT) {
		t.failed = err
	}
}

// emptyFolder removes a folder of the first level after it has emptied it.
func (t *tree) emptyFolder(parent int, name string) error {
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err == nil {
		return nil
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = t.empty(f, t.move)
	f.Close()
	if err != nil {
		return err
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

// move moves a folder to the first level under a name of its own, unless it is empty and can be removed at once.
func (t *tree) move(parent int, name string) error {
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err == nil {
		return nil
	}
	for {
		t.moved++
		err := unix.Renameat2(parent, name, t.top, strconv.Itoa(t.moved), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
}
