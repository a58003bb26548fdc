package build

import (
	"io/fs"
	"syscall"
	"time"
)

// inode identifies a file on this machine.
type inode struct{ device, number uint64 }

func fileID(info fs.FileInfo) (id inode, links uint64, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, 0, false
	}
	return inode{uint64(st.Dev), st.Ino}, uint64(st.Nlink), true
}

// changed returns the time of the last change of the file's content or status. Programs cannot set it.
func changed(info fs.FileInfo) time.Time {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.ModTime()
	}
	return time.Unix(st.Ctim.Unix())
}
