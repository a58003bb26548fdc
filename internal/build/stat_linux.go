package build

import (
	"io/fs"
	"syscall"
	"time"
)

// inode is the identity of a file on this machine.
type inode struct{ device, number uint64 }

func fileID(info fs.FileInfo) (id inode, links uint64, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, 0, false
	}
	return inode{uint64(st.Dev), st.Ino}, uint64(st.Nlink), true
}

// changed is the time at which the file's content or status was last changed. Programs cannot set it.
func changed(info fs.FileInfo) time.Time {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.ModTime()
	}
	return time.Unix(st.Ctim.Unix())
}
