//go:build !linux

package build

import (
	"io/fs"
	"time"
)

// inode identifies a file. It is not available on this system, so a hard link is packed as a separate file.
type inode struct{}

func fileID(fs.FileInfo) (inode, uint64, bool) { return inode{}, 0, false }

func changed(info fs.FileInfo) time.Time { return info.ModTime() }
