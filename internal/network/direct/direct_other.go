//go:build !linux

package direct

import "syscall"

// Control does nothing, because replicas have their own addresses only on Linux.
func Control(_, _ string, _ syscall.RawConn) error { return nil }
