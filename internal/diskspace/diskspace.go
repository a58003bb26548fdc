// Package diskspace says how much room a disk has.
package diskspace

import "golang.org/x/sys/unix"

// Free is how many bytes processes without privileges can still write to the disk of a folder.
func Free(folder string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}
